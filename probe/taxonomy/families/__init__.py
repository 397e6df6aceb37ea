"""Families, the ways of finding behaviours: the top-k SAE and its baselines, all scikit-learn estimators."""

from probe.taxonomy.families.base import Family as Family
from probe.taxonomy.families.clusterings import (
    Agglomerative as Agglomerative,
    GaussianMixtureBehaviours as GaussianMixtureBehaviours,
    PCAKMeans as PCAKMeans,
    SphericalKMeans as SphericalKMeans,
)
from probe.taxonomy.families.delimiter import DelimiterSAE as DelimiterSAE, delimiter_documents as delimiter_documents
from probe.taxonomy.families.registry import FAMILIES as FAMILIES, make_family as make_family
from probe.taxonomy.families.saelens import BatchTopKSAE as BatchTopKSAE, JumpReLUSAE as JumpReLUSAE
from probe.taxonomy.families.topk import TopKSAE as TopKSAE
