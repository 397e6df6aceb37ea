"""Entropy neurons, which move all logits equally and so set the model's confidence through the last norm's scale.

Stolfo et al. (2406.16254). Du et al. (2504.02904) find nearly the same ones before and after post-training.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import hypergeom
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from probe.models import Model, Pair, place, weight_of
from probe.statistics import LEVEL, write_p

_ROWS = 8192
"""The largest number of rows of a weight that are held in float64 at once."""
_HEAVY = 0.25
"""Share of neurons that are candidates: those that write the longest vectors."""


@dataclass(frozen=True)
class EntropyNeurons:
    """The entropy neurons of the last block's MLP.

    Attributes:
        neurons: their indices, the lowest spread first.
        spread: for each neuron, the log variance over the vocabulary of the cosine of its output vector with the
            unembedding.
        norm: norm of each neuron's output vector.
    """

    neurons: tuple[int, ...]
    spread: Float[Tensor, " d_mlp"]
    norm: Float[Tensor, " d_mlp"]

    def __repr__(self) -> str:
        return f"EntropyNeurons({len(self.neurons)} of {len(self.norm)})"


@dataclass(frozen=True)
class NeuronOverlap:
    """The entropy neurons of two models, and their overlap.

    Attributes:
        base: those of the base.
        thinking: those of the thinking model.
        shared: indices of the neurons in both sets.
        iou: number of neurons in both sets over the number in either.
        p: hypergeometric p value: the probability that random sets of this size share at least as many neurons.
    """

    base: EntropyNeurons
    thinking: EntropyNeurons
    shared: tuple[int, ...]
    iou: float
    p: float

    def __repr__(self) -> str:
        return f"NeuronOverlap({len(self.shared)} of {len(self.base.neurons)} shared, {write_p(self.p)})"

    @property
    def decides(self) -> bool:
        """Whether an overlap of all neurons would be significant; it is not if almost all candidates are chosen."""
        n = min(len(self.base.neurons), len(self.thinking.neurons))
        return overlap_p(n, self.base, self.thinking) < 1 - LEVEL


@torch.no_grad()
def entropy_neurons(model: Model, n: int | None = None) -> EntropyNeurons:
    """Find the neurons of the last MLP that write long vectors and move all logits equally (Stolfo et al., 2406.16254).

    Args:
        n: number of neurons; None for 1 %, but at least five.

    Raises:
        NotApplicable: if the model has no such site.
    """
    writes = _written(model.hf.get_submodule(place(model.hf, f"mlp_post.{model.n_layers - 1}").module)).to(model.device)
    readout = weight_of(model.hf.get_submodule(place(model.hf, "logits").module)).to(model.device)
    norm = writes.norm(dim=1)
    # The variance of w·u over the rows u is wᵀCw with their covariance C, so that no table of neurons by vocabulary is
    # needed.
    covariance = _covariance(readout, max(1, min(_ROWS, model.budget // 4 // (3 * 8 * readout.shape[1]))))
    unit = nn.functional.normalize(writes, dim=1)
    spread = torch.cat([((some.to(covariance) @ covariance) * some).sum(1) for some in unit.split(_ROWS)])
    spread = spread.clamp(min=torch.finfo(torch.float32).tiny).log().float()
    heavy = norm.topk(max(1, round(_HEAVY * len(norm)))).indices
    n = min(n or max(5, len(norm) // 100), len(heavy))
    chosen = heavy[spread[heavy].argsort()[:n]]
    return EntropyNeurons(tuple(chosen.tolist()), spread.cpu(), norm.cpu())


def entropy_overlap(pair: Pair, n: int | None = None) -> NeuronOverlap:
    """Compare the entropy neurons of both models; the null chooses equally many of the candidates at random.

    Args:
        n: number of neurons in each model; None for 1 %, but at least five.
    """
    base, thinking = entropy_neurons(pair.base, n), entropy_neurons(pair.thinking, n)
    shared = tuple(sorted({*base.neurons} & {*thinking.neurons}))
    either = {*base.neurons} | {*thinking.neurons}
    return NeuronOverlap(base, thinking, shared, len(shared) / len(either), overlap_p(len(shared), base, thinking))


def overlap_p(shared: int, base: EntropyNeurons, thinking: EntropyNeurons) -> float:
    """Compute the probability that random candidates, as many in each model, share at least so many neurons."""
    heavy = max(1, round(_HEAVY * len(base.norm)))
    return float(hypergeom.sf(shared - 1, heavy, len(base.neurons), len(thinking.neurons)))


def _covariance(weight: Float[Tensor, "vocab d_model"], rows: int) -> Float[Tensor, "d_model d_model"]:
    """The covariance of the rows of a weight, each scaled to length 1, in float64; some rows are read at a time."""
    total = torch.zeros(weight.shape[1], dtype=_exact(weight), device=weight.device)
    for some in weight.split(rows):
        total += nn.functional.normalize(some.float(), dim=1).sum(0, dtype=total.dtype)
    mean, square = total / len(weight), torch.zeros(len(total), len(total), dtype=total.dtype, device=total.device)
    for some in weight.split(rows):
        apart = nn.functional.normalize(some.float(), dim=1).to(total.dtype) - mean
        square.addmm_(apart.T, apart)
    return square / max(1, len(weight) - 1)


def _exact(tensor: Tensor) -> torch.dtype:
    """Float64, or float32 on a device that has no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _written(module: nn.Module) -> Float[Tensor, "d_mlp d_model"]:
    """The output vector of each neuron; GPT-2's Conv1D stores its weight transposed."""
    weight = weight_of(module).float()
    return weight if isinstance(getattr(module, "base_layer", module), Conv1D) else weight.T
