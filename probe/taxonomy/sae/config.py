"""Settings of a taxonomy's small SAEs."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least, check_seeds


@dataclass(frozen=True)
class SAEConfig:
    """How the SAEs of a taxonomy are trained.

    Raises:
        ProbeError: if a setting is invalid.
    """

    k: int = 1
    """Maximum number of latents that are active in one sentence. With 1, seeds agree more; 3, the value of Venhoff et
    al., explains more variance."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds; each size is trained once with each, and stability is measured between them."""
    steps: int = 1000
    """Maximum number of training steps; training ends earlier when the validation loss stops falling."""
    check_every: int = 25
    """The number of steps between two checks on validation data."""
    patience: int = 2
    """The number of checks without progress after which the learning rate falls to a tenth; the second time, training
    ends."""
    batch_size: int = 512
    """The number of sentences in a step."""
    lr: float = 1e-2
    """The learning rate of Adam."""

    def __post_init__(self) -> None:
        check_seeds("taxonomy.seeds", self.seeds)
        check_least("taxonomy", self, k=1, steps=1, check_every=1, patience=1, batch_size=1)
        check_above_zero("taxonomy", self, "lr")
