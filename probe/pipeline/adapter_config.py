"""The configuration of an adapter: one frozen dataclass, which is also the YAML file."""

from dataclasses import dataclass, field

from probe._config import check_seeds
from probe._errors import ProbeError
from probe.adapters import AdapterPlan, TuneConfig
from probe.models import ModelConfig


@dataclass(frozen=True)
class AdapterConfig:
    """Everything ``probe adapter tune`` can be told."""

    run: str | None = None
    """The folder of a run: its base model, its thinking model's traces and its taxonomy's SAE; or"""
    model: ModelConfig | None = None
    """a model of your own,"""
    texts: str | None = None
    """JSONL with ``text``, and ``prompt`` where one comes before it that is not learned; every fifth text validates."""
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
    source: ModelConfig | None = None
    """Of source-distil and feature-match; a run's thinking model unless named."""
    seed: int = 0
    """Draws random and shuffled SAEs; the training's own is ``tune.seed``."""
    device: str = "auto"
    dtype: str = "float32"
    plan: AdapterPlan = field(default_factory=AdapterPlan)
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        own = [each is not None for each in (self.model, self.texts)]
        if self.run is not None and any(own):
            raise ProbeError("both a run and a model or texts given: name one")
        if self.run is None and not all(own):
            raise ProbeError("name a run (run), or a model and texts of your own (model, texts)")
        check_seeds("seed", [self.seed])
