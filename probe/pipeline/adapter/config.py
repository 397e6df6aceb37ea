"""The configuration of an adapter: one frozen dataclass, which is also the YAML file."""

from dataclasses import dataclass, field

from probe.adapters import AdapterPlan, TuneConfig
from probe.config import check_least, check_seeds
from probe.errors import ProbeError
from probe.models import ModelConfig


@dataclass(frozen=True)
class AdapterConfig:
    """Everything ``probe adapter tune`` can be told."""

    run: str | None = None
    """The folder of a run: its base model, its thinking model's traces and its taxonomy's SAE; or"""
    model: ModelConfig | None = None
    """a model of your own,"""
    texts: str | None = None
    """JSONL with ``text``, and ``prompt`` where one comes before it that is not learned; of every ten texts one
    validates and one tests."""
    general: str | None = None
    """JSONL of other texts, by which damage is measured; of a run, the base model's own traces unless named."""
    sae: str | None = None
    """Folder of an SAE of SAELens or sparsify; None takes the run's taxonomy's."""
    site: str | None = None
    """Where that SAE reads, if its files do not say so."""
    objective: str = "resa"
    """resa, chen, steer-distil, source-distil, feature-match, ce."""
    insert: str = "sae"
    """What stands where the SAE would, as a control: sae, noise, random-sae, shuffled-decoder, nothing."""
    through: bool = True
    """Whether gradients cross what is inserted; Resa's published code stops them."""
    latents: tuple[int, ...] = ()
    """Of steer-distil and feature-match."""
    value: float = 0.0
    """To which those latents are raised."""
    match: float = 1.0
    """Of steer-distil, how much the state at the SAE's site counts beside the predictions."""
    behaviour: str | None = None
    """SCHEME:NAME, as ``story:verification``: counted in rollouts on a run's problems. steer-distil without latents
    finds the one that brings it about, by rollouts on validation problems."""
    source: ModelConfig | None = None
    """Of source-distil and feature-match; a run's thinking model unless named."""
    seed: int = 0
    """Draws random and shuffled SAEs; the training's own is ``tune.seed``."""
    device: str = "auto"
    dtype: str = "float32"
    held: int = 60
    """Held-out texts of each kind by which an adapter is measured, at most."""
    problems: int = 100
    """Problems of a run on which it is asked, at most."""
    plan: AdapterPlan = field(default_factory=AdapterPlan)
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        own = [each is not None for each in (self.model, self.texts)]
        if self.run is not None and any(own):
            raise ProbeError("both a run and a model or texts given: name one")
        if self.run is None and not all(own):
            raise ProbeError("name a run (run), or a model and texts of your own (model, texts)")
        check_least("", self, held=1, problems=1)
        check_seeds("seed", [self.seed])
