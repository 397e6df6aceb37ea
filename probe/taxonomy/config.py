"""Settings of a taxonomy."""

from dataclasses import dataclass

from probe._config import check_above_zero, check_least, check_seeds
from probe._errors import ProbeError
from probe.models import Model, Site, place


@dataclass(frozen=True)
class TaxonomyConfig:
    """How behaviours are found.

    Raises:
        ProbeError: if a setting makes no sense, alone or beside another.
    """

    site: str | None = None
    """Where the thinking model is read, ``resid_post`` and a layer; None for the output of its middle block."""
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
        check_seeds("taxonomy.seeds", self.seeds)
        check_least("taxonomy", self, steps=1, batch_size=1, outlier_multiple=1, enough=0, stable=0)
        check_above_zero("taxonomy", self, "lr")
        if not self.sizes:
            raise ProbeError("taxonomy.sizes is empty: give at least one size")
        if not 1 <= self.k <= min(self.sizes):
            raise ProbeError(
                f"taxonomy.k is {self.k} active latents among {min(self.sizes)} behaviours; "
                f"choose k from 1 to {min(self.sizes)}, or larger sizes"
            )

    @property
    def rule(self) -> str:
        """How the size is chosen, in words; true types of sentences have no part in it."""
        return (
            f"the smallest size that explains at least {self.enough:.0%} of the validation variance that the best size "
            f"explains and whose stability is at least {self.stable}; if none is that stable, the most stable of those "
            "that explain enough; of its seeds, the one that explains most"
        )


def taxonomy_site(model: Model, site: str | None) -> str:
    """Where the thinking model is read: the site given, or the output of its middle block.

    Raises:
        ProbeError: if it is no ``resid_post``, which is what decoding reads, or the model has no such layer.
    """
    found = Site.parse(f"resid_post.{model.n_layers // 2}" if site is None else site)
    if found.kind != "resid_post" or found.layer is None or found.layer >= model.n_layers:
        last = model.n_layers - 1
        raise ProbeError(f"taxonomy.site is {found}; {model.name} is read at resid_post.0 to resid_post.{last}")
    place(model.hf, found)
    return str(found)
