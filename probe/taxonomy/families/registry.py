"""The families by name."""

from probe.config import nearest
from probe.errors import ProbeError
from probe.taxonomy.families.base import Family
from probe.taxonomy.families.clusterings import Agglomerative, GaussianMixtureBehaviours, PCAKMeans, SphericalKMeans
from probe.taxonomy.families.delimiter import DelimiterSAE
from probe.taxonomy.families.saelens import BatchTopKSAE, JumpReLUSAE
from probe.taxonomy.families.topk import TopKSAE

FAMILIES: dict[str, type[Family]] = {
    "topk": TopKSAE,
    "batch-topk": BatchTopKSAE,
    "jumprelu": JumpReLUSAE,
    "delimiter": DelimiterSAE,
    "spherical-kmeans": SphericalKMeans,
    "gaussian-mixture": GaussianMixtureBehaviours,
    "pca-kmeans": PCAKMeans,
    "agglomerative": Agglomerative,
}
"""The class of each family, by name."""


def make_family(name: str, n_behaviours: int, random_state: int = 0) -> Family:
    """Make an unfitted family with its default settings.

    Args:
        name: one of :data:`FAMILIES`.
        n_behaviours: the number of behaviours to find.
        random_state: seeds all random choices.

    Raises:
        ProbeError: if there is no family of that name; the message gives the nearest.
    """
    if name not in FAMILIES:
        raise ProbeError(f"unknown family {name!r}; {nearest(name, FAMILIES)}")
    return FAMILIES[name](n_behaviours, random_state=random_state)
