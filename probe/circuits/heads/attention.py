"""Attention patterns by token and by sentence, and the heads that concentrate attention on few sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.heads.changed import Head
from probe.errors import ProbeError
from probe.hooks import capture, watch_patterns
from probe.html import MapSource, trace_map_html
from probe.models import Model
from probe.traces import token_texts

NEAR = 4
"""Sentences nearer than this do not count towards a vertical score, because every head attends to its neighbours."""


@dataclass(frozen=True)
class Links:
    """For each token, the tokens that each head attends to most.

    Attributes:
        to: their numbers, the strongest first; where fewer tokens come before, the weight of the others is 0.
        weight: how much the head attends to each.
    """

    to: Int[Tensor, "layers heads query some"]
    weight: Float[Tensor, "layers heads query some"]

    def __repr__(self) -> str:
        n_layers, n_heads, n, some = self.to.shape
        return f"Links({n_layers} blocks × {n_heads} heads, {some} for each of {n} tokens)"


@dataclass(frozen=True)
class Attention:
    """The attention patterns of some blocks within one text.

    Attributes:
        names: the tokens or sentences that the rows and columns stand for.
        layers: the blocks, counted from 0.
        patterns: how much each query (row) attends to each key (column). By token each row sums to 1; by sentence each
            entry is a mean over pairs of tokens, and zero for later sentences.
        tokens: by sentence, the tokens of the text; None by token.
        spans: by sentence, the index in ``tokens`` of the first token of each and of the one after its last.
        links: the tokens that each token attends to most, if asked for.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    patterns: Float[Tensor, "layers heads query key"]
    tokens: tuple[str, ...] | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    links: Links | None = None

    def head(self, layer: int, head: int) -> Float[Tensor, "query key"]:
        """The pattern of one head.

        Args:
            layer: the block, counted from 0; one of ``layers``.
            head: the head in that block, counted from 0.
        """
        return self.patterns[self.layers.index(layer), head]

    def sources(self, heads: Sequence[Head] | None = None) -> list[MapSource]:
        """The heads as :func:`~probe.html.trace_map_html` shows them.

        Args:
            heads: the heads, as ``(layer, head)``; None for all, with those first that concentrate attention on
                few sentences.
        """
        found = []
        for layer, head in peaked_heads(self) if heads is None else heads:
            at = self.layers.index(layer)
            links = None if self.links is None else (self.links.to[at, head], self.links.weight[at, head])
            found.append(MapSource(f"a{layer}.h{head}", self.patterns[at, head], links))
        return found

    def __repr__(self) -> str:
        n_layers, n_heads, n, _ = self.patterns.shape
        return f"Attention({n_layers} blocks × {n_heads} heads, {n} × {n} positions)"

    def _repr_html_(self) -> str:
        if self.tokens is None or self.spans is None:
            return f"<p>{escape(repr(self))}; show it with <code>probe.reports.attention_patterns</code></p>"
        return trace_map_html(self.tokens, self.spans, self.sources(), repr(self))


@torch.no_grad()
def attention(model: Model, ids: Int[Tensor, " pos"], layers: Sequence[int] | None = None) -> Attention:
    """Compute the attention pattern of every head over one text, by token.

    The result holds heads × tokens² numbers for each block.

    Args:
        layers: blocks to read, counted from 0; None for all.
    """
    asked = tuple(range(model.n_layers) if layers is None else layers)
    with capture(model, [f"pattern.{layer}" for layer in asked]) as acts:
        model.hf(ids.to(model.device)[None], use_cache=False, logits_to_keep=1)
    found = torch.stack([acts[f"pattern.{layer}"][0].float().cpu() for layer in asked])
    return Attention(tuple(token_texts(ids.tolist(), model.decode, model.tokenizer)), asked, found)


@torch.no_grad()
def sentence_attention(
    model: Model,
    ids: Int[Tensor, " pos"],
    spans: Sequence[tuple[int, int]],
    layers: Sequence[int] | None = None,
    *,
    n_links: int = 0,
) -> Attention:
    """Compute the mean attention between the tokens of each two sentences.

    One pass reads all blocks. Patterns are computed a few queries at a time, within the model's budget, so that a text
    may have thousands of tokens; what is kept grows with heads × sentences², and heads × tokens × ``n_links``.

    Args:
        spans: for each sentence, the index in ``ids`` of its first token and of the one after its last.
        layers: blocks to read, counted from 0; None for all.
        n_links: the number of tokens that are kept for each token and head, those that it attends to most; 0 for none.

    Raises:
        ProbeError: if a span is empty or lies outside the text.
    """
    for start, end in spans:
        if not 0 <= start < end <= len(ids):
            raise ProbeError(f"tokens {start} to {end} are not a sentence of a text of {len(ids)} tokens")
    asked = tuple(range(model.n_layers) if layers is None else layers)
    pooled = _Pooled(spans, len(ids), n_links)
    with watch_patterns(model, asked, pooled.add):
        model.hf(ids.to(model.device)[None], use_cache=False, logits_to_keep=1)
    said = tuple(token_texts(ids.tolist(), model.decode, model.tokenizer))
    names = tuple("".join(said[start:end]).strip() for start, end in spans)
    patterns = torch.stack([pooled.means[layer] for layer in asked])
    return Attention(names, asked, patterns, said, tuple(spans), pooled.links(asked) if n_links else None)


class _Pooled:
    """The patterns of one text, pooled as they are computed."""

    def __init__(self, spans: Sequence[tuple[int, int]], n_tokens: int, n_links: int) -> None:
        self._edges = torch.tensor(list(spans)).reshape(-1, 2)
        self._sizes = (self._edges[:, 1] - self._edges[:, 0]).float()
        self._member = torch.zeros(len(spans), n_tokens)
        for i, (start, end) in enumerate(spans):
            self._member[i, start:end] = 1 / (end - start)
        self._n_links = min(n_links, n_tokens)
        self.means: dict[int, Tensor] = {}
        self._links: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def add(self, layer: int, start: int, some: Float[Tensor, "heads queries keys"]) -> None:
        """Pool the patterns of some queries of a block."""
        some = some.float()
        if self._n_links:
            weight, to = some.topk(min(self._n_links, some.shape[-1]), -1)
            missing = (0, self._n_links - weight.shape[-1])
            pad = torch.nn.functional.pad
            self._links.setdefault(layer, []).append((pad(to, missing).int().cpu(), pad(weight, missing).cpu()))
        # Differences of running sums pool the keys in one step for all sentences; later keys get nothing.
        summed = torch.nn.functional.pad(some.cumsum(-1), (1, 0))
        edges = self._edges.clamp(max=some.shape[-1]).to(some.device)
        by_key = (summed[..., edges[:, 1]] - summed[..., edges[:, 0]]) / self._sizes.to(some.device)
        found = (self._member[:, start : start + some.shape[1]].to(some.device) @ by_key).cpu()
        self.means[layer] = self.means[layer] + found if layer in self.means else found

    def links(self, layers: Sequence[int]) -> Links:
        """What each token attends to most, for all blocks."""
        to, weight = (
            torch.stack([torch.cat([part[i] for part in self._links[layer]], 1) for layer in layers]) for i in (0, 1)
        )
        return Links(to, weight)


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


def receiver_heads(attentions: Sequence[Attention], near: int = NEAR) -> Receivers:
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


def peaked_heads(attention: Attention) -> list[Head]:
    """All heads of an attention by sentence, those first that concentrate it on few sentences.

    In a text that is too short to tell, the heads stay in their order.
    """
    n_heads = attention.patterns.shape[1]
    if len(attention.names) < NEAR + 3:
        return [(layer, head) for layer in attention.layers for head in range(n_heads)]
    return receiver_heads([attention]).strongest(len(attention.layers) * n_heads)


def _kurtosis(values: Float[Tensor, "*axes sentences"]) -> Float[Tensor, "*axes"]:
    """Excess kurtosis as scipy defines it; equal values, which have none, get the lowest possible, -2."""
    apart = values - values.mean(-1, keepdim=True)
    spread = apart.square().mean(-1)
    return torch.where(spread > 1e-18, apart.pow(4).mean(-1) / spread.square() - 3, -2.0)
