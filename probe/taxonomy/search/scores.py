"""Scores of a set of behaviours that need no judge.

A score that needs a fitted predictor (a linear probe, centres, a classifier on words) fits it on training sentences
and is measured on validation sentences.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations import in_chunks
from probe.taxonomy.labels import mask

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SentenceType = Callable[[str], str | None]

#: The most sentences that a silhouette is computed on, and the vocabulary of the classifier on words.
_SILHOUETTE, _WORDS = 2000, 1000


def stability(directions: Sequence[Float[Tensor, "behaviour d_model"]]) -> float | None:
    """The mean cosine of directions matched one to one (Hungarian algorithm) over all pairs of seeds.

    Args:
        directions: the unit directions of each seed.

    Returns:
        The mean; None for one seed.
    """
    from scipy.optimize import linear_sum_assignment

    means = []
    for a, b in combinations(directions, 2):
        cosines = (a @ b.T).numpy()
        means.append(cosines[linear_sum_assignment(cosines, maximize=True)].mean())
    return float(np.mean(means)) if means else None


def agreement(assigned: Sequence[np.ndarray]) -> float | None:
    """The mean adjusted mutual information of assignments over all pairs of seeds.

    Args:
        assigned: for each seed, the behaviour of each sentence.

    Returns:
        The mean; None for one seed.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    scores = [adjusted_mutual_info_score(a, b) for a, b in combinations(assigned, 2)]
    return float(np.mean(scores)) if scores else None


class AssignmentScores:
    """Scores of any assignments of one set of sentences; what all assignments share is computed once.

    Args:
        x: normalised training sentences.
        x_validation: normalised validation sentences, of other problems.
        texts, texts_validation: their texts.
        sentence_type: gives the true type of a sentence, where it is known.
    """

    def __init__(
        self,
        x: Float[Tensor, "sentence d_model"],
        x_validation: Float[Tensor, "validation d_model"],
        texts: Sequence[str],
        texts_validation: Sequence[str],
        sentence_type: SentenceType | None = None,
    ) -> None:
        self.x, self.x_validation = x, x_validation
        self.texts, self.texts_validation = texts, texts_validation
        self.types = None if sentence_type is None else [sentence_type(text) for text in texts_validation]

    def silhouette(self, validation: np.ndarray) -> float | None:
        """The mean silhouette by cosine distance on at most 2,000 sentences; None if only one behaviour occurs."""
        from sklearn.metrics import silhouette_score

        sample, distances = self._distances
        groups = validation[sample]
        if not 1 < len(np.unique(groups)) < len(groups):
            return None
        return float(silhouette_score(distances, groups, metric="precomputed"))

    def decodability(self, train: np.ndarray, validation: np.ndarray, size: int) -> list[float | None]:
        """F1 of each behaviour when a linear probe (ridge regression) predicts it from a sentence's activation."""
        sums, counts = self.sums(train, size)
        weights, bias = self._probe(sums.double().numpy(), counts.numpy())
        return _f1(validation, (self.x_validation @ torch.from_numpy(weights).float()).numpy() + bias, size)

    def centroid_f1(self, train: np.ndarray, validation: np.ndarray, size: int) -> list[float | None]:
        """F1 of each behaviour when the nearest mean by cosine predicts it."""
        sums, counts = self.sums(train, size)
        cosine = self.x_validation @ torch.nn.functional.normalize(sums, dim=1).T
        cosine[:, counts == 0] = -torch.inf
        return _f1(validation, cosine.numpy(), size)

    def text_f1(self, train: np.ndarray, validation: np.ndarray, size: int) -> list[float | None]:
        """F1 of each behaviour when a classifier (ridge regression on 1- to 3-grams) predicts it from the text.

        This is consistency without a judge: do the sentences of a behaviour share something that can be learned from
        some and recognised in others? Numbers are masked.
        """
        from scipy.sparse import csr_array

        words, words_validation, probe = self._words
        counts = np.bincount(train, minlength=size)
        owner = csr_array((np.ones(len(train)), (train, np.arange(len(train)))), shape=(size, len(train)))
        sums: Any = owner @ words
        weights, bias = probe(sums.toarray(), counts)
        return _f1(validation, words_validation @ weights + bias, size)

    def sums(
        self, train: Int[np.ndarray, " sentence"], size: int
    ) -> tuple[Float[Tensor, "behaviour d_model"], Int[Tensor, " behaviour"]]:
        """The sum of the training sentences of each behaviour, and their number."""
        labels = torch.as_tensor(train)
        sums = torch.zeros(size, self.x.shape[1]).index_add_(0, labels, self.x)
        return sums, torch.bincount(labels, minlength=size)

    def ami(self, validation: np.ndarray) -> float | None:
        """Adjusted mutual information with the true types over sentences that have one; None if none has."""
        from sklearn.metrics import adjusted_mutual_info_score

        typed = [i for i, kind in enumerate(self.types or ()) if kind is not None]
        if not typed or self.types is None:
            return None
        return float(adjusted_mutual_info_score([self.types[i] for i in typed], validation[typed]))

    def type_f1(self, validation: np.ndarray) -> dict[str, float] | None:
        """For each true type, the F1 of the union of the behaviours in which it is the most frequent type."""
        if self.types is None or not any(self.types):
            return None
        types = np.array([kind or "" for kind in self.types])
        major = {b: _most_common(types[validation == b]) for b in np.unique(validation)}
        named = np.array([major[b] for b in validation])
        found = {}
        for kind in sorted(set(types) - {""}):
            both, either = ((named == kind) & (types == kind)).sum(), (named == kind).sum() + (types == kind).sum()
            found[str(kind)] = float(2 * both / either)
        return found

    @cached_property
    def _distances(self) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.x_validation)
        sample = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:_SILHOUETTE]
        z = self.x_validation[sample]
        distances = (1 - z @ z.T).clamp_(0, 2).fill_diagonal_(0)
        return sample.numpy(), distances.numpy()

    @cached_property
    def _probe(self) -> "LinearProbe":
        mean = self.x.mean(0, dtype=torch.float64)
        products = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for chunk in in_chunks(self.x):
            centred = chunk - mean.float()
            products += centred.T @ centred
        return LinearProbe(products.numpy(), mean.numpy(), len(self.x))

    @cached_property
    def _words(self) -> "tuple[csr_array, csr_array, LinearProbe]":
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import CountVectorizer

        pattern = r"</?\w+>|#|[^\W\d_]+|[^\w\s]"
        vectorizer = CountVectorizer(
            ngram_range=(1, 3), binary=True, max_features=_WORDS, token_pattern=pattern, preprocessor=_lower
        )
        seen = [mask(text) or "#" for text in self.texts]
        vectorizer.fit(seen)
        words, words_validation = (
            csr_array(vectorizer.transform([mask(text) for text in texts]), dtype=np.float64)
            for texts in (self.texts, self.texts_validation)
        )
        mean = words.mean(0)
        products = (words.T @ words).toarray() - len(self.texts) * np.outer(mean, mean)
        return words, words_validation, LinearProbe(products, mean, len(self.texts))


class LinearProbe:
    """Ridge regression of behaviours, each 1 or 0, on the features of the same sentences, with a bias.

    What does not depend on the behaviours is computed once. The penalty is 1.

    Args:
        products: the products of the centred features with each other, summed over sentences.
        mean: the mean features.
        n: the number of sentences.
    """

    def __init__(
        self, products: Float[np.ndarray, "feature feature"], mean: Float[np.ndarray, " feature"], n: int
    ) -> None:
        from scipy.linalg import cho_factor

        self.mean, self.n = mean, n
        products[np.diag_indices_from(products)] += 1.0
        self._factor = cho_factor(products, lower=True, overwrite_a=True)

    def __call__(
        self, sums: Float[np.ndarray, "behaviour feature"], counts: Int[np.ndarray, " behaviour"]
    ) -> tuple[Float[np.ndarray, "feature behaviour"], Float[np.ndarray, " behaviour"]]:
        """Fit the probe.

        Args:
            sums: the sum of the features of each behaviour's sentences.
            counts: the number of those sentences.

        Returns:
            Weights and biases; the prediction is the behaviour with the largest ``features @ weights + bias``.
        """
        from scipy.linalg import cho_solve

        weights = cho_solve(self._factor, (sums - counts[:, None] * self.mean).T)
        return weights, counts / self.n - self.mean @ weights


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _lower(text: str) -> str:
    return text.lower()


def _most_common(types: np.ndarray) -> str:
    names, counts = np.unique(types[types != ""], return_counts=True)
    return str(names[counts.argmax()]) if len(names) else ""


def _f1(truth: np.ndarray, scores: Float[np.ndarray, "sentence behaviour"], size: int) -> list[float | None]:
    """F1 of each behaviour when the largest score predicts it; None for one that neither occurs nor is predicted."""
    predicted = scores.argmax(1)
    both = np.bincount(truth[truth == predicted], minlength=size)
    either = np.bincount(truth, minlength=size) + np.bincount(predicted, minlength=size)
    return [float(2 * b / e) if e else None for b, e in zip(both, either, strict=True)]
