"""The settings of ``probe adapter sae``."""

from dataclasses import dataclass, field

from probe.config import check_above_zero, check_least
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.checks import check_inputs


@dataclass(frozen=True)
class SAEConfig:
    """An ordinary top-k SAE, which SAELens trains on the model's states at the tokens of the training texts."""

    site: str | None = None
    """Site that the SAE reads, such as ``resid_post.12``; None takes the output of the middle block."""
    latents: int = 0
    """Number of latents; 0 takes eight times the model's width."""
    k: int = 16
    """Number of latents that are active at a token."""
    steps: int = 2000
    """Maximum number of training steps. Training ends earlier, when the error of the last steps stops falling; one that
    reaches the maximum is reported as not converged."""
    batch_size: int = 1024
    """Tokens in a training step."""
    lr: float = 1e-3
    """Highest learning rate."""
    own: bool = False
    """Whether to train also on the base model's own rollouts on a run's training problems."""

    def __post_init__(self) -> None:
        check_least("sae", self, latents=0, k=1, steps=1, batch_size=1)
        check_above_zero("sae", self, "lr")


@dataclass(frozen=True)
class TrainSAEConfig:
    """The settings of ``probe adapter sae``."""

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """The model and its texts; the other settings of an adapter are ignored."""
    sae: SAEConfig = field(default_factory=SAEConfig)
    """The SAE and its training."""
    seed: int = 0
    """Seeds the SAE's weights and the order of the tokens."""

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self.adapter)
