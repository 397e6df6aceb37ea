"""The configuration of an adapter: one frozen dataclass, which is also the YAML file."""

from dataclasses import dataclass, field

from probe.adapters import INSERTS, OBJECTIVES, AdapterPlan, TuneConfig
from probe.config import byte_size, check_least, check_seeds, nearest
from probe.errors import ProbeError
from probe.models import DeviceNames, ModelConfig
from probe.pipeline.checks import check_inputs


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of ``probe adapter tune``.

    Raises:
        ProbeError: unless either a run, or a model and texts are given; or if a setting is out of range.
    """

    run: str | None = None
    """Folder of a finished run, which gives the base model, the thinking model's traces and the taxonomy's SAE."""
    model: ModelConfig | None = None
    """The model to train an adapter for, instead of a run's base model."""
    texts: str | None = None
    """JSONL file of texts to train on, instead of a run's traces: ``text``, and ``prompt`` for a beginning that is not
    learned. One of every ten texts is used for validation, and one for test."""
    general: str | None = None
    """JSONL file of texts of another kind, on which damage is measured; None takes the base model's traces of a run."""
    sae: str | None = None
    """Folder of an SAE in SAELens' or sparsify's format, or ``RELEASE/SAE_ID``, an SAE of SAELens' registry; None takes
    the SAE of the run's taxonomy."""
    site: str | None = None
    """Site that this SAE reads, such as ``resid_post.12``; None takes the site that its files name."""
    objective: str = "resa"
    """Objective to train for: resa, chen, steer-distil, source-distil, feature-match or ce."""
    insert: str = "sae"
    """What resa and chen insert: sae, or as a control noise, random-sae, shuffled-decoder or nothing."""
    through: bool = True
    """Whether gradients pass through what is inserted; Resa's published code stops them."""
    latents: tuple[int, ...] = ()
    """Indices of the latents that steer-distil raises and feature-match compares."""
    value: float = 0.0
    """Activation to which those latents are raised, in the SAE's units."""
    match: float = 1.0
    """Weight in steer-distil of the state at the SAE's site, beside the predictions."""
    behaviour: str | int | None = None
    """Behaviour that is counted in rollouts on a run's problems: a counter (``story:verification``), a category of the
    run's taxonomy (number or label), or a sentence type of its problem set. steer-distil without latents finds the
    latent that raises this behaviour the most, by rollouts on validation problems."""
    source: ModelConfig | None = None
    """The other model of source-distil and feature-match; None takes a run's thinking model."""
    seed: int = 0
    """Seeds random and shuffled SAEs and the intervals; training has its own seed, ``tune.seed``."""
    device: DeviceNames = "auto"
    """Device of the models: cpu, cuda, mps or auto; ``balanced``, several GPUs and a device for each module are as in
    the settings of a run."""
    memory: str | None = None
    """Memory that work may take on a device besides the weights, such as ``40GB``; None takes half of what is free.
    Results do not depend on it."""
    dtype: str = "float32"
    """Precision of the models: float32, bfloat16 or float16."""
    held: int = 60
    """Maximum number of test texts of each kind on which an adapter is measured."""
    problems: int = 100
    """Maximum number of problems of each split, test and validation, on which rollouts are measured."""
    max_new_tokens: int | None = field(default=None, metadata={"later": True})
    """Maximum number of tokens of a rollout; None takes the limit of the run."""
    plan: AdapterPlan = field(default_factory=AdapterPlan)
    """Which layers get a LoRA, and how large it is."""
    tune: TuneConfig = field(default_factory=TuneConfig)
    """How the adapter is trained."""

    def __post_init__(self) -> None:
        byte_size(self.memory)
        own = [each is not None for each in (self.model, self.texts)]
        if self.run is not None and any(own):
            raise ProbeError("both a run and a model or texts are given: name one")
        if self.run is None and not all(own):
            raise ProbeError("name a run (--run), or your own model and texts (--model and --texts)")
        for name, known in (("objective", OBJECTIVES), ("insert", INSERTS)):
            if (said := getattr(self, name)) not in known:
                raise ProbeError(f"there is no {name} {said!r}; {nearest(said, known)}")
        check_least("", self, held=1, problems=1, max_new_tokens=1)
        check_seeds("seed", [self.seed])

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)
