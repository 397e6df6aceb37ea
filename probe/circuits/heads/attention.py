"""Attention patterns by token and by sentence, and the heads that concentrate attention on few sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.heads.changed import Head
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model
from probe.traces import token_texts

_NEAR = 4
"""Sentences nearer than this do not count towards a vertical score, because every head attends to its neighbours."""


@dataclass(frozen=True)
class Attention:
    """The attention patterns of some blocks within one text.

    Attributes:
        names: the tokens or sentences that the rows and columns stand for.
        layers: the blocks, counted from 0.
        patterns: how much each query (row) attends to each key (column). By token each row sums to 1; by sentence each
            entry is a mean over pairs of tokens, and zero for later sentences.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    patterns: Float[Tensor, "layers heads query key"]

    def head(self, layer: int, head: int) -> Float[Tensor, "query key"]:
        """The pattern of one head.

        Args:
            layer: the block, counted from 0; one of ``layers``.
            head: the head in that block, counted from 0.
        """
        return self.patterns[self.layers.index(layer), head]

    def __repr__(self) -> str:
        n_layers, n_heads, n, _ = self.patterns.shape
        return f"Attention({n_layers} blocks × {n_heads} heads, {n} × {n} positions)"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}; show it with <code>probe.reports.attention_patterns</code></p>"


@torch.no_grad()
def attention(model: Model, ids: Int[Tensor, " pos"], layers: Sequence[int] | None = None) -> Attention:
    """Compute the attention pattern of every head over one text, by token.

    The result holds heads × tokens² numbers for each block.

    Args:
        layers: blocks to read, counted from 0; None for all.
    """
    asked = tuple(range(model.n_layers) if layers is None else layers)
    with capture(model, [f"pattern.{layer}" for layer in asked]) as acts:
        model.hf(ids.to(model.device)[None])
    found = torch.stack([acts[f"pattern.{layer}"][0].float().cpu() for layer in asked])
    return Attention(tuple(token_texts(ids.tolist(), model.decode, model.tokenizer)), asked, found)


@torch.no_grad()
def sentence_attention(
    model: Model,
    ids: Int[Tensor, " pos"],
    spans: Sequence[tuple[int, int]],
    layers: Sequence[int] | None = None,
) -> Attention:
    """Compute the mean attention between the tokens of each two sentences, one block at a time.

    Args:
        spans: for each sentence, the index in ``ids`` of its first token and of the one after its last.
        layers: blocks to read, counted from 0; None for all.

    Raises:
        ProbeError: if a span is empty or lies outside the text.
    """
    for start, end in spans:
        if not 0 <= start < end <= len(ids):
            raise ProbeError(f"tokens {start} to {end} are not a sentence of a text of {len(ids)} tokens")
    asked = tuple(range(model.n_layers) if layers is None else layers)
    member = torch.zeros(len(spans), len(ids))
    for i, (start, end) in enumerate(spans):
        member[i, start:end] = 1 / (end - start)
    rows = []
    for layer in asked:
        with capture(model, f"pattern.{layer}") as acts:
            model.hf(ids.to(model.device)[None])
        rows.append(torch.einsum("sq,hqk,tk->hst", member, acts[f"pattern.{layer}"][0].float().cpu(), member))
    said = token_texts(ids.tolist(), model.decode, model.tokenizer)
    names = tuple("".join(said[start:end]).strip() for start, end in spans)
    return Attention(names, asked, torch.stack(rows))


@dataclass(frozen=True)
class Receivers:
    """How strongly each head concentrates the attention of later sentences on a few earlier ones.

    Attributes:
        kurtosis: kurtosis over sentences of the vertical scores, averaged over texts; higher is more concentrated.
        vertical: for each text, the mean attention that each sentence gets from later sentences,
            ``[layers, heads, sentences]``; NaN where no later sentence is far enough away.
        layers: the blocks, counted from 0.
    """

    kurtosis: Float[Tensor, "layers heads"]
    vertical: tuple[Float[Tensor, "layers heads sentences"], ...]
    layers: tuple[int, ...]

    def strongest(self, n: int = 20) -> list[Head]:
        """The ``n`` heads with the highest kurtosis, which are the receiver heads, as ``(layer, head)``."""
        n_heads = self.kurtosis.shape[1]
        order = self.kurtosis.flatten().nan_to_num(-torch.inf).argsort(descending=True)[:n].tolist()
        return [(self.layers[at // n_heads], at % n_heads) for at in order]

    def __repr__(self) -> str:
        best = ", ".join(f"a{layer}.h{head}" for layer, head in self.strongest(3))
        return f"Receivers({len(self.vertical)} texts, strongest heads: {best})"


def receiver_heads(attentions: Sequence[Attention], near: int = _NEAR) -> Receivers:
    """Find receiver heads from the attention between sentences (Bogdan et al., *Thought Anchors*, 2506.19143).

    Args:
        attentions: attention by sentence, one for each text.
        near: attention from sentences nearer than this does not count.

    Raises:
        ProbeError: if no text is long enough to have three sentences with later ones that far away.
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
        raise ProbeError(
            f"no text has three sentences that are {near} or more sentences before another: use longer texts"
        )
    return Receivers(torch.stack(peaked).mean(0).float(), tuple(vertical), attentions[0].layers)


def _kurtosis(values: Float[Tensor, "*axes sentences"]) -> Float[Tensor, "*axes"]:
    """Excess kurtosis as scipy defines it; equal values, which have none, get the lowest possible, -2."""
    apart = values - values.mean(-1, keepdim=True)
    spread = apart.square().mean(-1)
    return torch.where(spread > 1e-18, apart.pow(4).mean(-1) / spread.square() - 3, -2.0)
