"""Content projection: activations without the directions in which the questions differ.

After *Reliable control points* (arXiv 2604.02113), the leading singular directions of the centred mean of each question
are projected out. These means also differ because questions have different sentences, so the control projects out as
many directions of means over sentences that are assigned to the questions at random.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def without_content(
    x: Float[Tensor, "sentence d_model"], question: Sequence[int], directions: int
) -> Float[Tensor, "sentence d_model"]:
    """Project out the first ``directions`` directions in which the means of the questions differ.

    Args:
        x: raw activations.
        question: the number of each sentence's question, from 0.
        directions: how many directions.

    Returns:
        Activations with the same overall mean; ``x`` itself if there is only one question.
    """
    groups = torch.tensor(question, dtype=torch.long)
    means = _means(x, groups)
    basis = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[: min(directions, len(means) - 1)]
    return x - (x - x.mean(0)) @ basis.T @ basis


def shuffled(question: Sequence[int], seed: int) -> list[int]:
    """Assign the same questions to the sentences at random.

    Args:
        question: the number of each sentence's question.
        seed: seeds the permutation.
    """
    order = torch.randperm(len(question), generator=torch.Generator().manual_seed(seed))
    return [question[i] for i in order.tolist()]


def _means(x: Float[Tensor, "sentence d_model"], groups: Int[Tensor, " sentence"]) -> Float[Tensor, "group d_model"]:
    n = int(groups.max()) + 1
    sums = torch.zeros(n, x.shape[1], dtype=x.dtype).index_add_(0, groups, x)
    return sums / torch.bincount(groups, minlength=n).clamp(min=1)[:, None]
