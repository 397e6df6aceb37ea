"""Means over texts, or shares of one mean in another, with bootstrap intervals that keep texts paired."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

_RESAMPLES = 2000


@dataclass(frozen=True)
class Measured:
    """A mean or a share, and its 95 % interval."""

    value: float
    ci: tuple[float, float]


def measured(
    values: Float[Tensor, "*seeds texts"], whole: Float[Tensor, "*seeds texts"] | None = None, *, seed: int = 0
) -> Measured:
    """A mean over texts, and over seeds where there are several; or the share of one mean in another.

    Args:
        values: one value a text; a row for each seed, if there is more than one.
        whole: of the same texts and seeds; without it the mean is taken as it is.
        seed: of the resampling, in which texts are drawn, the same for all rows, and rows too.

    Returns:
        NaN for a share of nothing.
    """
    top = np.atleast_2d(values.double().numpy())
    bottom = np.ones_like(top) if whole is None else np.atleast_2d(whole.double().numpy())
    rng = np.random.default_rng(seed)
    texts = rng.integers(0, top.shape[1], (_RESAMPLES, top.shape[1]))
    rows = rng.integers(0, len(top), (_RESAMPLES, len(top)))
    drawn = [np.take_along_axis(part[:, texts].mean(-1).T, rows, axis=1).mean(-1) for part in (top, bottom)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[0] / drawn[1]
        value = float(np.divide(top.mean(), bottom.mean()))
    low, high = np.nanpercentile(ratios, [2.5, 97.5]) if np.isfinite(ratios).any() else (np.nan, np.nan)
    return Measured(value, (float(low), float(high)))
