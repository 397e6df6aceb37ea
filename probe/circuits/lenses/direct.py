"""What can be read off the residual stream: the logit lens, and the direct contribution of each writer to a logit."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.circuits.edges.lens import EdgeLens, Ids
from probe.errors import NotApplicable
from probe.hooks import capture
from probe.html import html_table
from probe.models import Model, place
from probe.traces import token_name, token_texts

_CLOSE = 1e-2
"""Relative tolerance for the linearised norm against the norm itself."""
_MOST_LOGITS, _COPIES = 2**28, 4
"""The most bytes that logits take, and the number of float32 tensors of their size that are held at once."""


@dataclass(frozen=True)
class LogitLens:
    """The next token that a model would predict if each block were its last (nostalgebraist, 2020).

    Attributes:
        tokens: the tokens of the text.
        top: id of the likeliest next token after each block, ``[layers, pos]``.
        said: the same tokens as text.
        log_prob: their log-probability in nats.
        target: log-probability in nats of the token that follows in the text, ``[layers, pos - 1]``.
        entropy: entropy of the predicted distribution in nats.
    """

    tokens: tuple[str, ...]
    top: Int[Tensor, "layers pos"]
    said: tuple[tuple[str, ...], ...]
    log_prob: Float[Tensor, "layers pos"]
    target: Float[Tensor, "layers rest"]
    entropy: Float[Tensor, "layers pos"]

    def __repr__(self) -> str:
        return f"LogitLens({len(self.said)} blocks, {len(self.tokens)} tokens)"

    def _repr_html_(self) -> str:
        rows = [(f"block {i}", *self.said[i]) for i in reversed(range(len(self.said)))]
        return html_table(("", *self.tokens), rows)


@torch.no_grad()
def logit_lens(model: Model, ids: Int[Tensor, " pos"]) -> LogitLens:
    """Decode every block's output with the model's own last norm and unembedding."""
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    with capture(model, sites) as acts:
        model.hf(ids.to(model.device)[None])
    several = max(1, min(_MOST_LOGITS, model.budget // 4) // (_COPIES * 4 * model.n_embeddings))
    following = [*ids.tolist()[1:], 0]  # nothing follows the last token; its entry is dropped
    rows = []
    for site in sites:
        parts = []
        for some, after in zip(acts[site][0].split(several), torch.tensor(following).split(several), strict=True):
            log_p = model.unembed(some).float().log_softmax(-1)
            best = log_p.max(-1)
            target = log_p.gather(1, after.to(log_p.device)[:, None])[:, 0]
            spread = torch.distributions.Categorical(logits=log_p).entropy()
            parts.append((best.indices, best.values, target, spread))
        rows.append([torch.cat(part) for part in zip(*parts, strict=True)])
    top, log_prob, target, entropy = (torch.stack(part).cpu() for part in zip(*rows, strict=True))
    said = tuple(tuple(token_name(token, model.decode, model.tokenizer) for token in row) for row in top.tolist())
    tokens = tuple(token_texts(ids.tolist(), model.decode, model.tokenizer))
    return LogitLens(tokens, top, said, log_prob, target[:, :-1], entropy)


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
        hf(ids)
    after, stream = (acts[site][:, -1].float() for site in sites)
    weight = unembed.weight.float()
    towards = weight[right] - weight[wrong]
    through = _Frozen(norm, stream, after)
    parts = through(lens.written(ids, (-1, None))[:, :, 0].float())
    found = torch.einsum("sbd,bd->sb", parts, towards)
    total = (after * towards).sum(-1)
    if (through(stream) + through.constant - after).abs().max() > _CLOSE * after.abs().max():
        raise NotApplicable(
            f"the last norm of {lens.model.name} is not linear for a fixed scale, so contributions do not add up"
        )
    return dict(zip(lens.graph.writers, found, strict=True)) | {"constant": total - found.sum(0)}


class _Frozen:
    """A norm as a linear map, with its scale fixed to that of one state."""

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

    def __call__(self, states: Float[Tensor, "*axes batch d_model"]) -> Float[Tensor, "*axes batch d_model"]:
        return self._weight * self._middle(states) * self._scale[:, None]

    def _middle(self, states: Tensor) -> Tensor:
        return states - states.mean(-1, keepdim=True) if self._centred else states
