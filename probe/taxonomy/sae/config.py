"""Settings of the small SAEs that a taxonomy is made of."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least, check_seeds


@dataclass(frozen=True)
class SAEConfig:
    """How the SAEs of one taxonomy are trained.

    Raises:
        ProbeError: if a setting makes no sense.
    """

    k: int = 1
    """How many latents may be active in one sentence. A sentence is given one behaviour, and SAEs of different seeds
    agree more on it if they are trained so; Venhoff et al. have 3, which explains more variance."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One SAE for each size and seed; stability is agreement between seeds."""
    steps: int = 1000
    """The most steps that training takes; it ends before where validation data say so."""
    check_every: int = 25
    """Steps from one look at validation data to the next."""
    patience: int = 2
    """Looks without progress after which the learning rate falls to a tenth, and then training ends."""
    batch_size: int = 512
    """Sentences a step."""
    lr: float = 1e-2
    """Adam's learning rate."""

    def __post_init__(self) -> None:
        check_seeds("taxonomy.seeds", self.seeds)
        check_least("taxonomy", self, k=1, steps=1, check_every=1, patience=1, batch_size=1)
        check_above_zero("taxonomy", self, "lr")
