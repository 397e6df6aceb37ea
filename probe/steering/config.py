"""Settings of how a mechanism is learned."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least, check_seeds
from probe.errors import ProbeError


@dataclass(frozen=True)
class SteeringConfig:
    """How mechanism and policy are learned.

    Raises:
        ProbeError: if a setting makes no sense.
    """

    layer: int | None = None
    """Steering layer of the base model, 0-based; None takes the block at 37 % of the depth (2510.07364)."""
    layers: tuple[int, ...] = ()
    """Layers to try: each gets vectors of the first seed, and the one with the lowest loss at the gates of validation
    traces is taken. Without any, ``layer`` is."""
    epochs: int = 3
    patience: int = 3
    """Epochs without a better validation loss after which training stops."""
    lr_vectors: float = 0.15
    """Step of the vectors, in units of a typical residual coordinate."""
    lr_strength: float = 5e-3
    hidden: int = 32
    """Width of the strength network."""
    balance: bool = False
    """Count every behaviour alike, however many gates it has, and of a trace not more than ``per_trace`` of each."""
    per_trace: int | None = 64
    """With ``balance``: how many gates of a behaviour count in one trace, drawn anew each epoch; None for all."""
    batches_per_step: int = 1
    """Batches whose gradients are added up before a step; several processes share them, so give each at least one."""
    persistent: bool = False
    """Whether later tokens see the shifted states (in the layers above, through their keys and values), or only the
    logits at a gate do. Training and decoding always do the same."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the vectors; each is trained and shown."""

    def __post_init__(self) -> None:
        check_seeds("steering.seeds", self.seeds)
        if self.layers and self.layer is not None:
            raise ProbeError("both steering.layer and steering.layers given: name one layer, or those to choose from")
        check_least("steering", self, layer=0, epochs=1, patience=1, hidden=1, batches_per_step=1, per_trace=1)
        check_above_zero("steering", self, "lr_vectors", "lr_strength")
