"""Entropy neurons: those that move all logits alike, and so the model's confidence through the last norm's scale.

Stolfo et al. (2406.16254). Du et al. (2504.02904) find nearly the same ones before and after post-training.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import hypergeom
from torch import Tensor, nn

from probe.models import Model, Pair, place

_HEAVY = 0.25
"""Only this share of neurons is looked at: those that write most."""


@dataclass(frozen=True)
class EntropyNeurons:
    """Of the last block's MLP.

    Attributes:
        neurons: the chosen, the most even first.
        spread: log variance over the vocabulary of the cosine between what each neuron writes and the unembedding.
        norm: length of what each writes.
    """

    neurons: tuple[int, ...]
    spread: Float[Tensor, " d_mlp"]
    norm: Float[Tensor, " d_mlp"]


@dataclass(frozen=True)
class NeuronOverlap:
    """The same in two models.

    Attributes:
        shared: in both sets.
        iou: those over those in either.
        p: of as many shared by chance, hypergeometric.
    """

    base: EntropyNeurons
    thinking: EntropyNeurons
    shared: tuple[int, ...]
    iou: float
    p: float


@torch.no_grad()
def entropy_neurons(model: Model, n: int | None = None) -> EntropyNeurons:
    """The neurons of the last MLP that write much and move logits evenly.

    Args:
        n: how many; 1 % of them unless given, at least five.
    """
    writes = _written(model.hf.get_submodule(place(model.hf, f"mlp_post.{model.n_layers - 1}").module))
    readout: Any = model.hf.get_submodule(place(model.hf, "logits").module)
    unembed = readout.weight.float()
    norm = writes.norm(dim=1)
    cosines = nn.functional.normalize(writes, dim=1) @ nn.functional.normalize(unembed, dim=1).T
    spread = cosines.var(1).log()
    heavy = norm.topk(max(1, round(_HEAVY * len(norm)))).indices
    n = min(n or max(5, len(norm) // 100), len(heavy))
    chosen = heavy[spread[heavy].argsort()[:n]]
    return EntropyNeurons(tuple(chosen.tolist()), spread.cpu(), norm.cpu())


def entropy_overlap(pair: Pair, n: int | None = None) -> NeuronOverlap:
    """The entropy neurons of both models; the null takes as many of the heaviest neurons by chance."""
    base, thinking = entropy_neurons(pair.base, n), entropy_neurons(pair.thinking, n)
    shared = tuple(sorted({*base.neurons} & {*thinking.neurons}))
    either = {*base.neurons} | {*thinking.neurons}
    heavy = max(1, round(_HEAVY * len(base.norm)))
    p = float(hypergeom.sf(len(shared) - 1, heavy, len(base.neurons), len(thinking.neurons)))
    return NeuronOverlap(base, thinking, shared, len(shared) / len(either), p)


def _written(module: nn.Module) -> Float[Tensor, "d_mlp d_model"]:
    """What each neuron writes; GPT-2's Conv1D keeps its weight the other way round."""
    assert isinstance(module.weight, Tensor)
    weight = module.weight.detach().float()
    return weight.T if isinstance(module, nn.Linear) else weight
