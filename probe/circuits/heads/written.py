"""What each attention head adds to the residual stream, from the model's own output projection."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.errors import NotApplicable
from probe.models import Model, Site, place

_CLOSE = 2e-2
"""Relative tolerance for the sum of the heads against what attention adds, which bfloat16 rounds."""


def output_weights(
    model: Model, layer: int, z: Float[Tensor, "places heads d_head"], out: Float[Tensor, "places d_model"]
) -> tuple[Float[Tensor, "heads d_head d_model"], Float[Tensor, " d_model"]]:
    """The output projection of a block's heads and its bias, in float32, where the heads add up to the attention.

    Args:
        model: the model.
        layer: the block, counted from 0.
        z: what the projection reads at some tokens.
        out: what attention adds to the stream at the same tokens.

    Raises:
        NotApplicable: if the heads and the bias do not add up to it.
    """
    module: Any = model.hf.get_submodule(place(model.hf, Site("z", layer)).module)
    weight = module.weight.detach().float()
    weight = weight if type(module).__name__ == "Conv1D" else weight.T  # GPT-2 stores it transposed
    weights = weight.reshape(z.shape[1], z.shape[2], -1).to(z.device)
    own = getattr(module, "bias", None)
    bias = torch.zeros(weights.shape[-1], device=z.device) if own is None else own.detach().float().to(z.device)
    if (torch.einsum("phe,hed->pd", z, weights) + bias - out).abs().max() > _CLOSE * out.abs().max():
        raise NotApplicable(
            f"the heads of {model.name} do not add up to what attention adds to the stream in block {layer}, because a "
            "norm, a factor or a gate follows them"
        )
    return weights, bias
