"""Massive activations, which distort means, cosines and SAEs, and their curve over training.

*Hidden Dynamics of Massive Activations* (2508.03616) fits ``f(t) = A·exp(−λx)·log x + K`` with ``x = γt + t0`` to the
ratio of the largest to the median activation over checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import least_squares
from scipy.special import lambertw
from torch import Tensor

from probe.activations import read
from probe.errors import ProbeError
from probe.html import html_table
from probe.models import Model

_MASSIVE = 100.0
"""Ratio to the median absolute value above which an activation is massive; Sun et al. (2402.17762) use 1,000."""
LEAST = 6
"""The smallest number of points to which the five parameters are fitted."""
_FEW, _MANY = 60, 4000
"""Evaluations for each start, and for the final fit from the best of them."""


@dataclass(frozen=True)
class MassiveActivations:
    """How far the largest activation of each block's output stands out.

    Attributes:
        ratio: largest over median absolute value, averaged over texts, for each block.
        dims: for each block, the dimensions that are massive at some token of some text.
        tokens: for each block, the share of tokens that have a massive activation.
    """

    ratio: Float[Tensor, " layers"]
    dims: tuple[tuple[int, ...], ...]
    tokens: Float[Tensor, " layers"]

    @property
    def found(self) -> bool:
        """Whether any block has massive activations; if so, leave out those tokens or set those dimensions to 0."""
        return any(self.dims)

    def _repr_html_(self) -> str:
        rows = [
            (f"resid_post.{i}", f"{self.ratio[i]:.1f}", list(dims) or "none", f"{self.tokens[i]:.1%}")
            for i, dims in enumerate(self.dims)
        ]
        return html_table(("site", "largest / median", "massive dimensions", "tokens"), rows)

    def __repr__(self) -> str:
        return f"MassiveActivations({len(self.dims)} blocks, largest ratio {float(self.ratio.max()):.1f})"


def massive_activations(
    model: Model, texts: Sequence[Sequence[int]], threshold: float = _MASSIVE
) -> MassiveActivations:
    """Find massive activations in every block's output.

    Args:
        texts: token ids of each text; every text is read in passes of its own.
        threshold: ratio to the text's median absolute value above which an activation is massive.
    """
    layers = range(model.n_layers)
    ratios, counts, n = torch.zeros(len(layers)), torch.zeros(len(layers)), 0
    dims: list[set[int]] = [set() for _ in layers]
    for text in texts:
        n += len(text)
        # The states of a long text at every layer need not fit, so it is read again for the next few layers.
        several = max(1, model.budget // 4 // max(1, len(text) * model.d_model * model.dtype.itemsize))
        for first in layers[::several]:
            some = layers[first : first + several]
            states, _ = read(model, [text], [f"resid_post.{layer}" for layer in some])
            for i in some:
                size = states[f"resid_post.{i}"][0].float().abs().cpu()
                over = size / size.median()
                ratios[i] += over.max() / len(texts)
                massive = over > threshold
                counts[i] += massive.any(1).sum()
                dims[i] |= set(massive.any(0).nonzero()[:, 0].tolist())
    return MassiveActivations(ratios, tuple(tuple(sorted(each)) for each in dims), counts / max(n, 1))


@dataclass(frozen=True)
class Rise:
    """A fitted curve with five parameters.

    Attributes:
        amplitude, decay, rate, start, level: A, λ, γ, t0 and K.
        r2: share of the variance that the curve explains.
    """

    amplitude: float
    decay: float
    rate: float
    start: float
    level: float
    r2: float

    def __call__(self, steps: Sequence[float] | ndarray) -> ndarray:
        return rise(np.asarray(steps, float), self.amplitude, self.decay, self.rate, self.start, self.level)

    @property
    def peak(self) -> float | None:
        """The step of the peak, ``(exp(W(1/λ)) − t0)/γ`` with Lambert's W; None if it lies before step 0."""
        at = (float(np.exp(lambertw(1 / self.decay).real)) - self.start) / self.rate
        return at if at >= 0 else None


def rise(t: ndarray, amplitude: float, decay: float, rate: float, start: float, level: float) -> ndarray:
    """The curve ``A·exp(−λx)·log x + K`` with ``x = γt + t0``.

    Args:
        t: steps of training.
        amplitude, decay, rate, start, level: A, λ, γ, t0 and K.
    """
    x = rate * t + start
    return amplitude * np.exp(-decay * x) * np.log(x) + level


def fit_rise(steps: Sequence[float] | ndarray, values: Sequence[float] | ndarray) -> Rise:
    """Fit the curve by least squares from several starts, after scaling steps and values to one.

    Args:
        steps: steps of training.

    Raises:
        ProbeError: for fewer than :data:`LEAST` points, or values that are not finite.
    """
    t, y = np.asarray(steps, float), np.asarray(values, float)
    if len(t) < LEAST or len(t) != len(y):
        raise ProbeError(f"{len(t)} steps and {len(y)} values: give at least {LEAST} points, one value for each step")
    if not (np.isfinite(t).all() and np.isfinite(y).all()):
        raise ProbeError("some steps or values are not finite: leave them out")
    width, height = float(np.ptp(t)) or 1.0, float(np.ptp(y)) or 1.0
    u, v = t / width, (y - y.min()) / height

    def fit(start: Sequence[float] | ndarray, evaluations: int) -> Any:
        return least_squares(
            lambda found: rise(u, *found) - v,
            start,
            jac=lambda found: _slopes(u, *found),  # pyright: ignore[reportArgumentType]
            bounds=((-np.inf, 1e-6, 1e-6, 1e-6, -np.inf), np.inf),
            max_nfev=evaluations,
        )

    grid = product((1.0, -1.0), (0.02, 0.1, 0.5), (1.0, 5.0, 25.0))
    tried = [fit((*start, 1.0, 0.5), _FEW) for start in grid]
    best = fit(min(tried, key=lambda each: each.cost).x, _MANY)
    amplitude, decay, rate, start, level = map(float, best.x)
    total = float(np.square(v - v.mean()).sum()) or 1.0
    r2 = 1 - 2 * float(best.cost) / total
    return Rise(amplitude * height, decay, rate / width, start, level * height + float(y.min()), r2)


def _slopes(t: ndarray, amplitude: float, decay: float, rate: float, start: float, _level: float) -> ndarray:
    """Derivatives of the curve with respect to its five parameters, ``[point, 5]``."""
    x = rate * t + start
    fall, rising = np.exp(-decay * x), np.log(x)
    by_x = amplitude * fall * (1 / x - decay * rising)
    return np.stack([fall * rising, -amplitude * x * fall * rising, by_x * t, by_x, np.ones_like(t)], 1)
