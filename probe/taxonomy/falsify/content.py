"""Content projection: activations without the directions in which the questions differ.

After *Reliable control points* (arXiv 2604.02113), the leading singular directions of the centred mean of each question
are projected out. These means also differ because questions have different sentences, so the control projects out as
many directions of means over sentences that are assigned to the questions at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import Rows, in_chunks

_QUESTIONS = 4096
"""The maximum number of questions whose means give the directions; of more, random ones."""


@dataclass(frozen=True)
class Content:
    """The directions in which questions differ. Calling it projects them out of raw activations."""

    mean: Float[Tensor, " d_model"]
    """The mean of all activations, which stays what it is."""
    directions: Float[Tensor, "direction d_model"]
    """Orthogonal, of length one; none if there is only one question."""

    @classmethod
    def of(cls, x: Float[Tensor, "sentence d_model"] | Rows, question: Sequence[int], directions: int) -> "Content":
        """Find the first ``directions`` directions in which the means of the questions differ.

        Args:
            x: raw activations, which are read chunk by chunk.
            question: the number of each sentence's question, from 0.
            directions: how many directions.
        """
        groups = torch.tensor(question, dtype=torch.long)
        n = int(groups.max()) + 1
        some = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:_QUESTIONS].sort().values
        place = torch.full((n,), -1).index_copy_(0, some, torch.arange(len(some)))
        sums, total, done = torch.zeros(len(some), x.shape[1]), torch.zeros(x.shape[1], dtype=torch.float64), 0
        for chunk in in_chunks(x):
            at = place[groups[done : done + len(chunk)]]
            done += len(chunk)
            chunk = chunk.float()
            total += chunk.sum(0)
            sums.index_add_(0, at[at >= 0], chunk if len(some) == n else chunk[at >= 0])
        means = sums / torch.bincount(groups, minlength=n)[some].clamp(min=1)[:, None]
        basis = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[: min(directions, len(means) - 1)]
        return cls((total / len(x)).float(), basis)

    def __call__(self, x: Float[Tensor, "sentence d_model"]) -> Float[Tensor, "sentence d_model"]:
        """Activations with the same mean, without the directions."""
        return x - (x - self.mean) @ self.directions.T @ self.directions


def shuffled(question: Sequence[int], seed: int) -> list[int]:
    """Assign the same questions to the sentences at random.

    Args:
        question: the number of each sentence's question.
        seed: seeds the permutation.
    """
    order = torch.randperm(len(question), generator=torch.Generator().manual_seed(seed))
    return [question[i] for i in order.tolist()]
