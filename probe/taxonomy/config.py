"""Settings of a taxonomy."""

from dataclasses import dataclass

from probe._errors import ProbeError


@dataclass(frozen=True)
class TaxonomyConfig:
    """How behaviours are found.

    Raises:
        ProbeError: if a setting makes no sense, alone or beside another.
    """

    site: str | None = None
    """Where the thinking model is read; None for the output of its middle block (:func:`default_site`)."""
    sizes: tuple[int, ...] = (4, 6, 8, 10, 12)
    """Numbers of behaviours to try."""
    k: int = 3
    """How many latents may be active in one sentence."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One SAE for each size and seed; stability is agreement between seeds."""
    steps: int = 400
    batch_size: int = 512
    """Sentences a step."""
    lr: float = 3e-3
    """Adam's learning rate; the last third of the steps goes down to a tenth of it."""
    outlier_multiple: float = 10.0
    """Sentences whose norm is this many times the median take no part (attention sinks)."""
    enough: float = 0.85
    """A size must explain at least this share of the variance that the best size explains, on validation data."""
    stable: float = 0.75
    """A size must have at least this stability."""

    def __post_init__(self) -> None:
        if not self.sizes or not self.seeds:
            raise ProbeError("a taxonomy needs at least one size and one seed")
        if not 1 <= self.k <= min(self.sizes):
            raise ProbeError(
                f"k={self.k} active latents among {min(self.sizes)} behaviours; choose k from 1 to {min(self.sizes)}"
            )
        if min(self.steps, self.batch_size, self.lr, self.outlier_multiple) <= 0:
            raise ProbeError("steps, batch_size, lr and outlier_multiple of a taxonomy must be above 0")

    @property
    def rule(self) -> str:
        """How the size is chosen, in words; true types of sentences have no part in it."""
        return (
            f"the smallest size that explains at least {self.enough:.0%} of the validation variance that the best size "
            f"explains and whose stability is at least {self.stable}; if none is that stable, the most stable of those "
            "that explain enough; of its seeds, the one that explains most"
        )


def default_site(n_layers: int) -> str:
    """Where a taxonomy is read unless the user says: the output of the middle block.

    >>> default_site(4), default_site(32)
    ('resid_post.2', 'resid_post.16')
    """
    return f"resid_post.{n_layers // 2}"
