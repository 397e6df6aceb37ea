"""What each writer of the residual stream adds directly to a logit."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.circuits.edges.lens import EdgeLens, Ids
from probe.errors import NotApplicable
from probe.hooks import capture
from probe.models import place

_CLOSE = 1e-2
"""Relative tolerance for the linearised norm against the norm itself."""


@torch.no_grad()
def direct_attribution(
    lens: EdgeLens, ids: Ids, right: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Compute what each writer adds directly to the logit of ``right`` minus that of ``wrong``, at the last token.

    The scale of the last norm is fixed to its value for the whole stream, so that the contributions add up (Elhage et
    al., *A Mathematical Framework for Transformer Circuits*, 2021). Logits are taken before any soft cap.

    Args:
        right, wrong: the two tokens that are compared, for each text.

    Returns:
        One entry for each writer of the graph, under its name, and ``constant`` for what biases add; one value in
        logits for each text.

    Raises:
        ProbeError: if the model does not know one of the two tokens.
        NotApplicable: if the last norm is of an unknown kind, so that the contributions do not add up.
    """
    lens.model.check_ids([token] for side in (right, wrong) for token in side.tolist())
    hf = lens.model.hf
    norm: Any = hf.get_submodule(place(hf, "final_norm").module)
    unembed: Any = hf.get_submodule(place(hf, "logits").module)
    sites = ["final_norm", f"resid_post.{lens.graph.n_layers - 1}"]
    with capture(lens.model, sites) as acts:
        lens.model.hf(ids, use_cache=False, logits_to_keep=1)
    after, stream = (acts[site][:, -1].float() for site in sites)
    weight = unembed.weight.float()
    towards = weight[right] - weight[wrong]
    through = FrozenNorm(norm, stream, after)
    parts = through(lens.written(ids, (-1, None))[:, :, 0].float())
    found = torch.einsum("sbd,bd->sb", parts, towards)
    total = (after * towards).sum(-1)
    return dict(zip(lens.graph.writers, found, strict=True)) | {"constant": total - found.sum(0)}


class FrozenNorm:
    """A norm as a linear map, with its scale fixed to that of one state.

    Raises:
        NotApplicable: if the norm is not linear for a fixed scale.
    """

    def __init__(
        self, norm: Any, stream: Float[Tensor, "batch d_model"], after: Float[Tensor, "batch d_model"]
    ) -> None:
        self._centred = isinstance(norm, nn.LayerNorm)
        ones = torch.ones(1, stream.shape[-1], device=stream.device, dtype=next(norm.parameters()).dtype)
        # The module itself is called because some norms store their weight minus one; the scale absorbs any factor.
        weight = norm.weight.detach() if self._centred else norm(ones)[0]
        bias = norm.bias.detach() if self._centred else torch.zeros_like(weight)
        self._weight, self.constant = weight.float(), bias.float()
        plain = self._weight * self._middle(stream)
        self._scale = (plain * (after - self.constant)).sum(-1) / plain.square().sum(-1)
        if (self(stream) + self.constant - after).abs().max() > _CLOSE * after.abs().max():
            raise NotApplicable(
                f"a norm ({type(norm).__name__}) is not linear for a fixed scale, so contributions do not add up"
            )

    def __call__(self, states: Float[Tensor, "*axes batch d_model"]) -> Float[Tensor, "*axes batch d_model"]:
        return self._weight * self._middle(states) * self._scale[:, None]

    def back(self, towards: Float[Tensor, " d_model"]) -> Float[Tensor, "batch d_model"]:
        """The direction before the norm whose product with a state is that of ``towards`` with the state after it."""
        return self._middle(self._weight * towards) * self._scale[:, None]

    def _middle(self, states: Tensor) -> Tensor:
        return states - states.mean(-1, keepdim=True) if self._centred else states
