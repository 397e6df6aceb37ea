"""Massive activations: a guard to look at before any mean, cosine or SAE, and their curve over training.

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
from probe.models import Model

_MASSIVE = 100.0
"""Largest over median absolute value from which a state is called massive; Sun et al. (2402.17762) ask for 1,000."""
LEAST = 6
"""Points that five parameters are fitted to, at least."""
_FEW, _MANY = 60, 4000
"""Evaluations from every start, and from where the best of them came to."""


@dataclass(frozen=True)
class MassiveActivations:
    """How much the largest number of a block's output stands out.

    Attributes:
        ratio: of the largest to the median absolute value, the mean over texts; by block.
        dims: the dimensions that are massive at some token of some text, by block.
        tokens: share of tokens with one, by block.
    """

    ratio: Float[Tensor, " layers"]
    dims: tuple[tuple[int, ...], ...]
    tokens: Float[Tensor, " layers"]

    @property
    def found(self) -> bool:
        """Whether any block has some: then leave such tokens out, or set such dimensions to their mean."""
        return any(self.dims)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>resid_post.{i}</td><td>{self.ratio[i]:.1f}</td><td>{list(dims) or 'none'}</td>"
            f"<td>{self.tokens[i]:.1%}</td></tr>"
            for i, dims in enumerate(self.dims)
        )
        head = "<tr><th>site</th><th>largest / median</th><th>massive dimensions</th><th>tokens</th></tr>"
        return f"<table>{head}{rows}</table>"


def massive_activations(
    model: Model, texts: Sequence[Sequence[int]], threshold: float = _MASSIVE
) -> MassiveActivations:
    """Look for them in every block's output.

    Args:
        texts: token ids, each text in a pass of its own.
        threshold: of the ratio to the text's median.
    """
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    ratios, counts, n = torch.zeros(len(sites)), torch.zeros(len(sites)), 0
    dims: list[set[int]] = [set() for _ in sites]
    for text in texts:
        states, _ = read(model, [text], sites)
        n += len(text)
        for i, site in enumerate(sites):
            size = states[site][0].float().abs().cpu()
            over = size / size.median()
            ratios[i] += over.max() / len(texts)
            massive = over > threshold
            counts[i] += massive.any(1).sum()
            dims[i] |= set(massive.any(0).nonzero()[:, 0].tolist())
    return MassiveActivations(ratios, tuple(tuple(sorted(each)) for each in dims), counts / max(n, 1))


@dataclass(frozen=True)
class Rise:
    """The curve of five parameters.

    Attributes:
        amplitude, decay, rate, start, level: A, λ, γ, t0 and K.
        r2: share of the variance that it explains.
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
        """The step of its peak, ``(exp(W(1/λ)) − t0)/γ`` with Lambert's W; None where that is before the first."""
        at = (float(np.exp(lambertw(1 / self.decay).real)) - self.start) / self.rate
        return at if at >= 0 else None


def rise(t: ndarray, amplitude: float, decay: float, rate: float, start: float, level: float) -> ndarray:
    """``A·exp(−λx)·log x + K`` with ``x = γt + t0``."""
    x = rate * t + start
    return amplitude * np.exp(-decay * x) * np.log(x) + level


def fit_rise(steps: Sequence[float] | ndarray, values: Sequence[float] | ndarray) -> Rise:
    """Fit the curve by least squares, from several starts, with steps and values scaled to one.

    Raises:
        ProbeError: for fewer than :data:`LEAST` points, or values that are not finite.
    """
    t, y = np.asarray(steps, float), np.asarray(values, float)
    if len(t) < LEAST or len(t) != len(y):
        raise ProbeError(f"{len(t)} steps and {len(y)} values: give {LEAST} points at least, a value for each step")
    if not (np.isfinite(t).all() and np.isfinite(y).all()):
        raise ProbeError("a curve cannot be fitted to steps or values that are not finite")
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
    """Derivatives of the curve by its five parameters, ``[point, 5]``."""
    x = rate * t + start
    fall, rising = np.exp(-decay * x), np.log(x)
    by_x = amplitude * fall * (1 / x - decay * rising)
    return np.stack([fall * rising, -amplitude * x * fall * rising, by_x * t, by_x, np.ones_like(t)], 1)
