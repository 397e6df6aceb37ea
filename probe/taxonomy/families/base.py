"""What all families have in common: the conventions of a scikit-learn estimator, and what they are fed.

A family reads normalised sentence vectors (centred, of length one, as :class:`probe.taxonomy.Normaliser` gives them), a
tensor or an array ``[sentence, d_model]``, and has exactly ``n_behaviours`` behaviours. What is computed is float32 on
the CPU. A behaviour that no sentence of the training data belongs to is possible only where the class says so.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClusterMixin
from torch import Tensor

from probe.errors import ProbeError

Vectors: TypeAlias = Any
"""A tensor or an array ``[sentence, d_model]``, or anything else that scikit-learn reads as one."""

F = TypeVar("F", bound="Family")


class VectorsError(ProbeError, ValueError):
    """Sentence vectors that no family can be fitted to; a ValueError too, which is what scikit-learn's tools expect."""


class Family(ClusterMixin, BaseEstimator, ABC):
    """A way of finding behaviours among sentence vectors.

    Args:
        n_behaviours: how many to find.
        random_state: the seed of whatever is drawn.

    Attributes:
        labels_: int64 ``[sentence]``, the behaviour of each training sentence: what :meth:`predict` says of it.
        directions_: float32 ``[n_behaviours, d_model]``, for each behaviour a direction of length one.
        n_features_in_: ``d_model``.
    """

    labels_: Int[np.ndarray, " sentence"]
    directions_: Float[Tensor, "behaviour d_model"]
    n_features_in_: int

    def __init__(self, n_behaviours: int = 8, *, random_state: int = 0) -> None:
        self.n_behaviours = n_behaviours
        self.random_state = random_state

    def fit(self: F, X: Vectors, y: object = None) -> F:  # noqa: ARG002
        """Find the behaviours of these sentences; ``y`` is there for scikit-learn and takes no part.

        Raises:
            ProbeError: if a vector is not finite, there are fewer distinct ones than behaviours, or a setting makes no
                sense.
        """
        if not isinstance(self.n_behaviours, int | np.integer) or self.n_behaviours < 1:
            raise VectorsError(f"n_behaviours is {self.n_behaviours!r}; give a whole number of at least 1")
        self._check_settings()
        x = self._read(X, first=True)
        check_distinct(x, self.n_behaviours)
        self._learn(x)
        self.labels_ = self._scores(x).argmax(1)
        return self

    def predict(self, X: Vectors) -> Int[np.ndarray, " sentence"]:
        """The behaviour of each sentence, ``[sentence]``: the one with the largest score."""
        return self.scores(X).argmax(1)

    def scores(self, X: Vectors) -> Float[np.ndarray, "sentence behaviour"]:
        """How near each sentence is to each behaviour, ``[sentence, n_behaviours]``; the unit is each family's own.

        Raises:
            ProbeError: if a vector is not finite, or not as long as those it was fitted to.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self._scores(self._read(X)).astype(np.float32, copy=False)

    def _check_settings(self) -> None:
        """Raise a ProbeError for a setting that makes no sense; the number of behaviours has been checked."""
        return

    @abstractmethod
    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        """Set :attr:`directions_` and whatever :meth:`_scores` needs."""

    def _scores(self, x: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "sentence behaviour"]:
        """By default the cosine with each direction, for vectors of length one."""
        return x @ self.directions_.numpy().T

    def _read(self, X: Vectors, first: bool = False) -> Float[np.ndarray, "sentence d_model"]:
        """The vectors as a finite float32 array of the width that the family was fitted to."""
        from sklearn.utils.validation import validate_data

        if isinstance(X, Tensor):
            X = X.detach().to("cpu", torch.float32).numpy()
        if np.iscomplexobj(X):
            raise VectorsError("Complex data not supported: sentence vectors must be real numbers")
        try:
            x: Any = validate_data(self, X, reset=first, dtype=np.float32, ensure_all_finite=False)
        except ValueError as error:
            raise VectorsError(" ".join(str(error).split())) from None
        broken = int((~np.isfinite(x)).any(1).sum())
        if broken:
            raise VectorsError(f"{broken} of {len(x)} sentence vectors hold NaN or infinite numbers; leave them out")
        return x


def check_distinct(x: Float[np.ndarray, "sentence d_model"], n_behaviours: int) -> None:
    """Refuse vectors of which fewer than ``n_behaviours`` differ.

    Raises:
        ProbeError: saying how many there are.
    """
    seen: set[bytes] = set()
    for row in x:
        seen.add(row.tobytes())
        if len(seen) >= n_behaviours:
            return
    raise VectorsError(
        f"only {len(seen)} of {len(x)} sentence vectors are distinct: too few for {n_behaviours} behaviours; "
        "give more sentences or ask for fewer behaviours"
    )


def subsample(n: int, most: int, seed: int) -> Int[np.ndarray, " row"]:
    """At most ``most`` of the numbers below ``n``, in ascending order.

    >>> subsample(3, 5, seed=0).tolist()
    [0, 1, 2]
    """
    chosen = np.random.default_rng(seed).permutation(n)[:most]
    return np.sort(chosen)


def unit(rows: Float[np.ndarray, "behaviour d_model"]) -> Float[Tensor, "behaviour d_model"]:
    """Rows scaled to length one, as a float32 tensor."""
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)
