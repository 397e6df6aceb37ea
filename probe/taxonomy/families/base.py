"""The base class of all families, which follows the conventions of a scikit-learn estimator.

A family reads normalised sentence vectors (centred and of length one, by :class:`probe.taxonomy.Normaliser`), a tensor
or an array ``[sentence, d_model]``, and finds exactly ``n_behaviours`` behaviours. It computes in float32 on the CPU. A
behaviour without training sentences is possible only where the class says so.
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
"""A tensor or an array ``[sentence, d_model]``, or anything else that scikit-learn accepts as one."""

F = TypeVar("F", bound="Family")


class VectorsError(ProbeError, ValueError):
    """Sentence vectors or settings that cannot be used; also a ValueError, which scikit-learn's tools expect."""


class Family(ClusterMixin, BaseEstimator, ABC):
    """A way of finding behaviours among sentence vectors.

    Args:
        n_behaviours: the number of behaviours to find.
        random_state: seeds all random choices.

    Attributes:
        labels_: int64 ``[sentence]``, the behaviour of each training sentence, as :meth:`predict` gives it.
        directions_: float32 ``[n_behaviours, d_model]``, a unit direction for each behaviour.
        n_features_in_: ``d_model``.
    """

    labels_: Int[np.ndarray, " sentence"]
    directions_: Float[Tensor, "behaviour d_model"]
    n_features_in_: int

    def __init__(self, n_behaviours: int = 8, *, random_state: int = 0) -> None:
        self.n_behaviours = n_behaviours
        self.random_state = random_state

    def fit(self: F, X: Vectors, y: object = None) -> F:  # noqa: ARG002
        """Find the behaviours of these sentences.

        Args:
            X: ``[sentence, d_model]``.
            y: ignored; scikit-learn passes it.

        Raises:
            ProbeError: if a vector is not finite, there are fewer distinct vectors than behaviours, or a setting is
                invalid.
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
        """Assign each sentence the behaviour with the largest score, ``[sentence]``."""
        return self.scores(X).argmax(1)

    def scores(self, X: Vectors) -> Float[np.ndarray, "sentence behaviour"]:
        """Score each sentence for each behaviour, ``[sentence, n_behaviours]``; the unit depends on the family.

        Raises:
            ProbeError: if a vector is not finite, or its width is not that of the training data.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self._scores(self._read(X)).astype(np.float32, copy=False)

    def _check_settings(self) -> None:
        """Raise a ProbeError for an invalid setting other than ``n_behaviours``."""
        return

    @abstractmethod
    def _learn(self, x: Float[np.ndarray, "sentence d_model"]) -> None:
        """Set :attr:`directions_` and whatever :meth:`_scores` needs."""

    def _scores(self, x: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "sentence behaviour"]:
        """By default, the cosine with each direction."""
        return x @ self.directions_.numpy().T

    def _read(self, X: Vectors, first: bool = False) -> Float[np.ndarray, "sentence d_model"]:
        """The vectors as a finite float32 array of the fitted width."""
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
    """Refuse vectors of which fewer than ``n_behaviours`` are distinct.

    Raises:
        ProbeError: if there are too few distinct vectors.
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
    """Choose at most ``most`` random numbers below ``n``, in ascending order.

    >>> subsample(3, 5, seed=0).tolist()
    [0, 1, 2]
    """
    chosen = np.random.default_rng(seed).permutation(n)[:most]
    return np.sort(chosen)


def unit(rows: Float[np.ndarray, "behaviour d_model"]) -> Float[Tensor, "behaviour d_model"]:
    """Scale rows to length one, as a float32 tensor."""
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)
