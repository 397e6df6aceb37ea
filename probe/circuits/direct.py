"""What the residual stream says by itself: the logit lens, and what each head and MLP adds to a logit directly."""

from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.circuits.lens import EdgeLens, Ids
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model, place

_CLOSE = 1e-2
"""Of a logit difference: what the parts may miss of the whole before they are refused."""


@dataclass(frozen=True)
class LogitLens:
    """What a model would say after each block, were it the last (nostalgebraist, 2020).

    Attributes:
        tokens: the text.
        top: the likeliest next token after each block, ``[layers, pos]``.
        said: the same as text.
        log_prob: its log-probability in nats.
        target: log-probability of the token that the text goes on with, ``[layers, pos - 1]``.
        entropy: of the whole distribution, in nats.
    """

    tokens: tuple[str, ...]
    top: Int[Tensor, "layers pos"]
    said: tuple[tuple[str, ...], ...]
    log_prob: Float[Tensor, "layers pos"]
    target: Float[Tensor, "layers rest"]
    entropy: Float[Tensor, "layers pos"]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(token)}</th>" for token in self.tokens)
        rows = "".join(
            f"<tr><th>block {i}</th>" + "".join(f"<td>{escape(word)}</td>" for word in self.said[i]) + "</tr>"
            for i in reversed(range(len(self.said)))
        )
        return f"<table><tr><th></th>{head}</tr>{rows}</table>"


@torch.no_grad()
def logit_lens(model: Model, ids: Int[Tensor, " pos"]) -> LogitLens:
    """Read every block's output by the model's own last norm and unembedding, for one text."""
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    with capture(model, sites) as acts:
        model.hf(ids.to(model.device)[None])
    rows = []
    for site in sites:
        log_p = model.unembed(acts[site][0]).float().log_softmax(-1)
        best = log_p.max(-1)
        target = log_p[:-1].gather(1, ids.to(log_p.device)[1:, None])[:, 0]
        spread = torch.distributions.Categorical(logits=log_p).entropy()
        rows.append((best.indices, best.values, target, spread))
    top, log_prob, target, entropy = (torch.stack(part).cpu() for part in zip(*rows, strict=True))
    said = tuple(tuple(model.decode([token]) for token in row) for row in top.tolist())
    return LogitLens(tuple(model.decode([token]) for token in ids.tolist()), top, said, log_prob, target, entropy)


@torch.no_grad()
def direct_attribution(
    lens: EdgeLens, ids: Ids, right: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"]
) -> dict[str, Float[Tensor, " batch"]]:
    """How much each writer adds by itself to the logit of ``right`` over that of ``wrong``, at the last token.

    The last norm is taken at the scale that it has for the whole stream, so that the parts add up (Elhage et al., *A
    Mathematical Framework for Transformer Circuits*, 2021); logits are taken before any soft cap.

    Returns:
        By the names of the graph's writers; ``constant`` is what comes from biases.

    Raises:
        ProbeError: if the parts do not add up to the logit difference: a norm of a kind that is not known.
    """
    hf = lens.model.hf
    norm: Any = hf.get_submodule(place(hf, "final_norm").module)
    unembed: Any = hf.get_submodule(place(hf, "logits").module)
    sites = ["final_norm", f"resid_post.{lens.graph.n_layers - 1}"]
    with capture(lens.model, sites) as acts:
        hf(ids)
    after, stream = (acts[site][:, -1].float() for site in sites)
    weight = unembed.weight.float()
    towards = weight[right] - weight[wrong]
    through = _Frozen(norm, stream, after)
    parts = through(lens.written(ids, (-1, None))[:, :, 0].float())
    found = torch.einsum("sbd,bd->sb", parts, towards)
    told = (after * towards).sum(-1)
    if (through(stream) + through.constant - after).abs().max() > _CLOSE * after.abs().max():
        raise ProbeError(f"the last norm of {lens.model.name} is of a kind whose scale cannot be held")
    return dict(zip(lens.graph.writers, found, strict=True)) | {"constant": told - found.sum(0)}


class _Frozen:
    """A norm as the linear map that it is for one state: its weights over that state's own scale."""

    def __init__(
        self, norm: Any, stream: Float[Tensor, "batch d_model"], after: Float[Tensor, "batch d_model"]
    ) -> None:
        self._centred = isinstance(norm, nn.LayerNorm)
        ones = torch.ones(1, stream.shape[-1], device=stream.device, dtype=next(norm.parameters()).dtype)
        # Up to a factor, which the scale takes up: whether a weight is one plus what is stored is the module's affair.
        weight = norm.weight.detach() if self._centred else norm(ones)[0]
        bias = norm.bias.detach() if self._centred else torch.zeros_like(weight)
        self._weight, self.constant = weight.float(), bias.float()
        plain = self._weight * self._middle(stream)
        self._scale = (plain * (after - self.constant)).sum(-1) / plain.square().sum(-1)

    def __call__(self, states: Float[Tensor, "*axes batch d_model"]) -> Float[Tensor, "*axes batch d_model"]:
        return self._weight * self._middle(states) * self._scale[:, None]

    def _middle(self, states: Tensor) -> Tensor:
        return states - states.mean(-1, keepdim=True) if self._centred else states
