"""The entropy of a distribution."""

from collections.abc import Sequence

import numpy as np


def entropy_bits(counts: Sequence[float]) -> float:
    """Compute the entropy, in bits, of the distribution that is proportional to some counts."""
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum() if p.sum() else p[:0]
    return float(-(p * np.log2(p)).sum()) or 0.0  # no minus before a zero
