"""Settings of a taxonomy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from probe.config import check_least, nearest
from probe.errors import ProbeError
from probe.models import Model, Site, place
from probe.taxonomy.families import FAMILIES
from probe.taxonomy.sae.config import SAEConfig

#: Models narrower than this are tiny, and get the smaller sizes.
_TINY = 512
TINY_SIZES = tuple(range(2, 17, 2))
SIZES = tuple(range(5, 51, 5))


@dataclass(frozen=True)
class TaxonomyConfig(SAEConfig):
    """How behaviours are found.

    Raises:
        ProbeError: if a setting makes no sense, alone or beside another.
    """

    sites: tuple[str, ...] = ()
    """Where the thinking model is read; the best of them is chosen. Empty: the output of its middle block."""
    sizes: tuple[int, ...] = ()
    """Numbers of behaviours to try. Empty: 5 to 50 in steps of 5; for models narrower than 512, 2 to 16 by twos."""
    family: Literal["topk", "spherical-kmeans"] = "topk"
    """What the taxonomy is made of: a top-k SAE, or the centres of spherical k-means, which are a top-1 SAE."""
    rivals: tuple[str, ...] = ()
    """Other families that are fitted and scored at the same sites and sizes, to be compared with."""
    outlier_multiple: float = 10.0
    """Sentences whose norm is this many times the median take no part (attention sinks)."""
    stable: float = 0.75
    """The least stability and agreement between seeds that the rule accepts, if any candidate has it."""
    margin: float = 0.02
    """Scores that differ by no more count as equal, since other seeds give as much; then fewer behaviours win."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("taxonomy", self, outlier_multiple=1, stable=0, margin=0)
        if any(size < 2 for size in self.sizes):
            raise ProbeError(f"taxonomy.sizes has {min(self.sizes)}; a taxonomy has at least 2 behaviours")
        if self.sizes and self.k > max(self.sizes):
            most = max(self.sizes)
            raise ProbeError(f"taxonomy.k is {self.k} active latents among at most {most} behaviours; choose fewer")
        for name in self.rivals:
            if name not in FAMILIES:
                raise ProbeError(f"unknown family {name!r} in taxonomy.rivals; {nearest(name, FAMILIES)}")

    @property
    def rule(self) -> str:
        """How site and size are chosen, in words; true types of sentences have no part in it."""
        return (
            "a site and size is scored by the mean of five scores on validation sentences: variance explained, "
            "silhouette, stability of directions between seeds, agreement of assignments between seeds, and "
            "consistency (macro F1 of the nearest mean); only those with stability and agreement of at least "
            f"{self.stable} take part, if there are any; of those within {self.margin} of the highest score, the one "
            "with the fewest behaviours, and of these the highest score; of its seeds, the one that explains most"
        )


def sizes_for(config: TaxonomyConfig, width: int, sentences: int) -> tuple[int, ...]:
    """The sizes to try on so many training sentences of activations that are ``width`` wide.

    Raises:
        ProbeError: if there are fewer sentences than behaviours.
    """
    sizes = tuple(sorted(set(config.sizes)))
    if not sizes:
        # Ten sentences for each behaviour, or it would be made of chance.
        sizes = tuple(size for size in (TINY_SIZES if width < _TINY else SIZES) if 10 * size <= sentences)
    if not sizes or max(sizes) > sentences:
        least = max(sizes) if sizes else 10 * (TINY_SIZES if width < _TINY else SIZES)[0]
        raise ProbeError(
            f"{sentences} training sentences are too few for a taxonomy of {max(sizes, default=2)} behaviours; "
            f"at least {least} are needed: give more traces, or smaller sizes"
        )
    return sizes


def taxonomy_sites(model: Model, sites: Sequence[str], *, spread: int = 1, decoded: bool = False) -> tuple[str, ...]:
    """Where a thinking model is read: the sites given, or the outputs of ``spread`` blocks, evenly apart.

    The first and the last sixth of the blocks are left out: early on, the mean over a sentence is little more than its
    words, whose behaviours are easily told apart for that very reason; late, it is what comes next.

    Args:
        model: the thinking model.
        sites: as ``"resid_post.2"``; empty for blocks evenly apart, the middle one for a ``spread`` of 1.
        spread: how many blocks, at most.
        decoded: whether a hybrid is to be decoded with the taxonomy, which reads ``resid_post`` only.

    Raises:
        ProbeError: if the model has no such site, decoding does not read it, or it is given twice.
    """
    n = model.n_layers
    inner = range(-(-n // 6), max(n - n // 6, 1)) or range(n)
    few = min(spread, len(inner))
    layers = [n // 2] if few == 1 else [inner[round(i * (len(inner) - 1) / (few - 1))] for i in range(few)]
    found = [Site.parse(site) for site in sites or [f"resid_post.{layer}" for layer in layers]]
    for site in found:
        if decoded and (site.kind != "resid_post" or site.layer is None or site.layer >= model.n_layers):
            last = model.n_layers - 1
            raise ProbeError(
                f"taxonomy.sites has {site}; decoding reads {model.name} at resid_post.0 to resid_post.{last}"
            )
        place(model.hf, site)
    names = tuple(map(str, found))
    if len(set(names)) < len(names):
        raise ProbeError(f"taxonomy.sites names a site twice: {', '.join(names)}")
    return names
