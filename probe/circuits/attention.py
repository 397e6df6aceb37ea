"""What heads look at: patterns by token and by sentence, and the heads that narrow attention to few sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.heads import Head
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model

_NEAR = 4
"""Sentences as near as this are left out of a sentence's vertical score: every head looks at its neighbours."""


@dataclass(frozen=True)
class Attention:
    """Attention within one text.

    Attributes:
        names: what the rows and columns are: tokens, or sentences.
        layers: which blocks.
        patterns: how much each query (row) looks at each key (column). By token the rows sum to 1; by sentence they are
            means over the pairs of tokens, and zero for sentences that come later.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    patterns: Float[Tensor, "layers heads query key"]

    def head(self, layer: int, head: int) -> Float[Tensor, "query key"]:
        """One head's pattern."""
        return self.patterns[self.layers.index(layer), head]

    def _repr_html_(self) -> str:
        n = self.patterns.shape
        return (
            f"<p>attention of {n[0]} × {n[1]} heads over {n[2]} places; see it with "
            "<code>probe.reports.attention_patterns</code></p>"
        )


@torch.no_grad()
def attention(model: Model, ids: Int[Tensor, " pos"], layers: Sequence[int] | None = None) -> Attention:
    """Every head's pattern over one text, by token; it takes heads × tokens² numbers a block."""
    asked = tuple(range(model.n_layers) if layers is None else layers)
    with capture(model, [f"pattern.{layer}" for layer in asked]) as acts:
        model.hf(ids.to(model.device)[None])
    found = torch.stack([acts[f"pattern.{layer}"][0].float().cpu() for layer in asked])
    return Attention(tuple(model.decode([token]) for token in ids.tolist()), asked, found)


@torch.no_grad()
def sentence_attention(
    model: Model,
    ids: Int[Tensor, " pos"],
    spans: Sequence[tuple[int, int]],
    layers: Sequence[int] | None = None,
) -> Attention:
    """The mean attention of each sentence's tokens to each earlier one's, block by block.

    Args:
        spans: of each sentence its first token and the one after its last, counted in ``ids``.

    Raises:
        ProbeError: if a sentence has no tokens in the text.
    """
    for start, end in spans:
        if not 0 <= start < end <= len(ids):
            raise ProbeError(f"there is no sentence at tokens {start} to {end} of a text of {len(ids)}")
    asked = tuple(range(model.n_layers) if layers is None else layers)
    member = torch.zeros(len(spans), len(ids))
    for i, (start, end) in enumerate(spans):
        member[i, start:end] = 1 / (end - start)
    rows = []
    for layer in asked:
        with capture(model, f"pattern.{layer}") as acts:
            model.hf(ids.to(model.device)[None])
        rows.append(torch.einsum("sq,hqk,tk->hst", member, acts[f"pattern.{layer}"][0].float().cpu(), member))
    names = tuple(model.decode(ids[start:end].tolist()).strip() for start, end in spans)
    return Attention(names, asked, torch.stack(rows))


@dataclass(frozen=True)
class Receivers:
    """How much each head narrows what later sentences look at to few earlier ones.

    Attributes:
        kurtosis: of the vertical scores of a text's sentences, the mean over texts; the higher, the narrower.
        vertical: of each text, how much its later sentences look at each sentence, ``[layers, heads, sentences]``; NaN
            where none is late enough.
    """

    kurtosis: Float[Tensor, "layers heads"]
    vertical: tuple[Float[Tensor, "layers heads sentences"], ...]
    layers: tuple[int, ...]

    def strongest(self, n: int = 20) -> list[Head]:
        """The receiver heads: those of the highest kurtosis."""
        n_heads = self.kurtosis.shape[1]
        order = self.kurtosis.flatten().nan_to_num(-torch.inf).argsort(descending=True)[:n].tolist()
        return [(self.layers[at // n_heads], at % n_heads) for at in order]


def receiver_heads(attentions: Sequence[Attention], near: int = _NEAR) -> Receivers:
    """Find receiver heads by the attention between sentences (Bogdan et al., *Thought Anchors*, 2506.19143).

    Args:
        attentions: by sentence, of several texts.
        near: sentences nearer than this to the one that looks do not count.

    Raises:
        ProbeError: if no text is long enough for three sentences to have later ones.
    """
    vertical, peaked = [], []
    for each in attentions:
        n = len(each.names)
        far = torch.ones(n, n).tril(-near).bool()
        summed = (each.patterns * far).sum(2) / far.sum(0)
        vertical.append(summed)
        known = far.any(0)
        if known.sum() >= 3:
            peaked.append(_kurtosis(summed[..., known].double()))
    if not peaked:
        raise ProbeError(f"no text has three sentences that are looked at from {near} sentences on: give longer ones")
    return Receivers(torch.stack(peaked).mean(0).float(), tuple(vertical), attentions[0].layers)


def _kurtosis(values: Float[Tensor, "*axes sentences"]) -> Float[Tensor, "*axes"]:
    """Excess kurtosis as scipy has it; that of values all alike, which has none, is the least there is."""
    apart = values - values.mean(-1, keepdim=True)
    spread = apart.square().mean(-1)
    return torch.where(spread > 1e-18, apart.pow(4).mean(-1) / spread.square() - 3, -2.0)
