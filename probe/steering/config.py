"""The settings for learning a mechanism."""

from dataclasses import asdict, dataclass
from typing import Any

from probe.config import check_above_zero, check_least, check_seeds
from probe.errors import ProbeError


@dataclass(frozen=True)
class SteeringConfig:
    """Settings for learning the vectors of the hybrid and the mechanisms of other arms.

    Raises:
        ProbeError: if a setting is out of range.
    """

    layer: int | None = None
    """0-based steering layer of the base model; None takes the block at 37 % of the depth (2510.07364)."""
    layers: tuple[int, ...] = ()
    """Steering layers to choose from. Vectors are learned at each with the first seed, and the layer with the lowest
    loss at the gates of the validation traces is kept. If empty, ``layer`` is used."""
    steps: int = 1000
    """Maximum number of training steps. Training ends earlier, when the validation loss stops falling; one that reaches
    the maximum is reported as not converged."""
    check_every: int = 25
    """Number of steps between two evaluations on the gates of the validation traces."""
    patience: int = 25
    """The learning rate falls to zero after this many steps without progress."""
    lr_vectors: float = 0.15
    """Learning rate of the vectors, in units of a typical coordinate of the residual stream."""
    lr_strength: float = 5e-3
    """Learning rate of the strength network and of every parameter that is not a vector."""
    hidden: int = 32
    """Width of the hidden layer of the strength network."""
    balance: bool = False
    """Give every behaviour the same weight in a step, however many gates it has; ``per_trace`` then applies too."""
    per_trace: int | None = 64
    """With ``balance``, the maximum number of gates of a behaviour that count in one trace, chosen at random in each
    step; None counts all."""
    batches_per_step: int = 1
    """Number of batches whose gradients are summed for a step. Several processes share them, and each needs at least
    one."""
    persistent: bool = False
    """Whether later tokens attend to the shifted states; otherwise a shift changes only the logits at its own token.
    Training and decoding always follow the same convention."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the vectors; vectors are learned and reported for each seed."""

    def __post_init__(self) -> None:
        check_seeds("steering.seeds", self.seeds)
        if self.layers and self.layer is not None:
            raise ProbeError("both steering.layer and steering.layers are given; give one of them")
        check_least(
            "steering", self, layer=0, steps=1, check_every=1, patience=1, hidden=1, batches_per_step=1, per_trace=1
        )
        check_above_zero("steering", self, "lr_vectors", "lr_strength")


@dataclass(frozen=True)
class PolicyConfig:
    """Settings for learning the policy of the oracle-free hybrid.

    Raises:
        ProbeError: if a setting is out of range.
    """

    layers: int = 8
    """Maximum number of layers that the policy reads; they are evenly spread, and the last one is among them."""
    tokens: int = 50_000
    """Maximum number of tokens that it learns from, a random sample; as many again are kept for validation."""
    hidden: int = 256
    """Width of the policy's one hidden layer."""
    steps: int = 4000
    """Maximum number of training steps. Training ends earlier, when the validation loss stops falling; one that reaches
    the maximum is reported as not converged."""
    check_every: int = 25
    """Number of steps between two evaluations on the tokens of the validation traces."""
    patience: int = 300
    """The learning rate falls to zero after this many steps without progress."""
    lr: float = 2e-3
    """Highest learning rate of AdamW."""
    batch_size: int = 1024
    """Number of tokens in a training step."""
    dropout: float = 0.1
    """Dropout rate of the hidden layer during training."""

    def __post_init__(self) -> None:
        check_least("policy", self, layers=1, tokens=2, hidden=1, steps=1, check_every=1, patience=1, batch_size=1)
        check_above_zero("policy", self, "lr")

    def spread(self, n_layers: int) -> tuple[int, ...]:
        """Return the layers that are read of a model with ``n_layers``, 0-based."""
        some = min(self.layers, n_layers)
        return tuple(-(-n_layers * i // some) - 1 for i in range(1, some + 1))

    @property
    def key(self) -> dict[str, Any]:
        """The settings by name, without limits at their defaults, which policies of earlier versions did not have."""
        later = {name: getattr(PolicyConfig, name) for name in ("layers", "tokens")}
        return {name: value for name, value in asdict(self).items() if later.get(name) != value}
