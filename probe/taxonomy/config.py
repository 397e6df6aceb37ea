"""Settings of a taxonomy."""

from dataclasses import dataclass, field
from typing import Literal

from probe.config import check_least, nearest
from probe.errors import ProbeError
from probe.taxonomy.sae.config import SAEConfig

#: Every way of finding behaviours that can be named; `families/registry.py` has their classes.
FAMILY_NAMES = (
    "topk",
    "batch-topk",
    "jumprelu",
    "delimiter",
    "spherical-kmeans",
    "gaussian-mixture",
    "pca-kmeans",
    "agglomerative",
)

#: Models narrower than this get the smaller default sizes.
_TINY = 512
TINY_SIZES = tuple(range(2, 17, 2))
SIZES = tuple(range(5, 51, 5))


@dataclass(frozen=True)
class TaxonomyConfig(SAEConfig):
    """How the taxonomy is searched for and chosen.

    Raises:
        ProbeError: if a setting is invalid, or contradicts another.
    """

    sites: tuple[str, ...] = ()
    """Sites of the thinking model to try, for example resid_post.2. Empty tries the output of the middle block."""
    sizes: tuple[int, ...] = ()
    """Numbers of behaviours to try. Empty tries 5 to 50 in steps of 5, or 2 to 16 in steps of 2 for models narrower
    than 512."""
    family: Literal["topk", "spherical-kmeans"] = "topk"
    """The taxonomy is a top-k SAE, or the centres of spherical k-means, which are a top-1 SAE."""
    rivals: tuple[str, ...] = ()
    """Baselines: other families that are fitted and scored at the same sites and sizes, for comparison only."""
    outlier_multiple: float = 10.0
    """A sentence whose activation norm is more than this many times the median is left out as an outlier."""
    most_sentences: int = field(default=50_000, metadata={"later": True})
    """Maximum number of sentences of each split that the search fits and scores on; of more, random ones are read, the
    same at every site. The mean and the limit of outliers always follow from all of them."""
    stable: float = 0.75
    """Minimum stability and agreement between seeds of a candidate; it is ignored if no candidate reaches it."""
    margin: float = 0.02
    """Scores that differ by at most this count as equal; among equal candidates, fewer behaviours win."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("taxonomy", self, outlier_multiple=1, most_sentences=2, stable=0, margin=0)
        if any(size < 2 for size in self.sizes):
            raise ProbeError(f"taxonomy.sizes has {min(self.sizes)}; a taxonomy needs at least 2 behaviours")
        if self.sizes and self.k > max(self.sizes):
            most = max(self.sizes)
            raise ProbeError(f"taxonomy.k is {self.k} active latents among at most {most} behaviours; choose fewer")
        for name in self.rivals:
            if name not in FAMILY_NAMES:
                raise ProbeError(f"unknown family {name!r} in taxonomy.rivals; {nearest(name, FAMILY_NAMES)}")

    @property
    def rule(self) -> str:
        """The rule, in words, by which site and size are chosen; it ignores true types of sentences."""
        return (
            "a site and size is scored by the mean of five scores on validation sentences: variance explained, "
            "silhouette, stability of directions between seeds, agreement of assignments between seeds, and "
            "consistency (macro F1 of the nearest mean); only those with stability and agreement of at least "
            f"{self.stable} take part, if there are any; of those within {self.margin} of the highest score, the one "
            "with the fewest behaviours, and of these the highest score; of its seeds, the one that explains most"
        )


def sizes_for(config: TaxonomyConfig, width: int, sentences: int) -> tuple[int, ...]:
    """Return the sizes to try.

    Args:
        config: its ``sizes``, if it names any.
        sentences: the number of training sentences.

    Raises:
        ProbeError: if there are fewer sentences than behaviours.
    """
    sizes = tuple(sorted(set(config.sizes)))
    if not sizes:
        # With fewer than ten sentences, a behaviour would be noise.
        sizes = tuple(size for size in (TINY_SIZES if width < _TINY else SIZES) if 10 * size <= sentences)
    if not sizes or max(sizes) > sentences:
        least = max(sizes) if sizes else 10 * (TINY_SIZES if width < _TINY else SIZES)[0]
        raise ProbeError(
            f"{sentences} training sentences are too few for a taxonomy of {max(sizes, default=2)} behaviours; "
            f"at least {least} are needed: give more traces, or smaller sizes"
        )
    return sizes
