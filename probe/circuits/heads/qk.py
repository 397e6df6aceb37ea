"""Why a head attends: its score of a query and a key, divided among the earlier writers on both sides."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.masking_utils import eager_mask

from probe.circuits.edges.graph import Graph
from probe.circuits.heads.changed import Head
from probe.circuits.heads.written import output_weights
from probe.circuits.lenses.direct import FrozenNorm
from probe.errors import NotApplicable, ProbeError
from probe.hooks import Tokens, capture, exchange_attention
from probe.html import html_table
from probe.models import Model, Site, Sizes, check_frequencies, place

CONSTANT = "constant"
_NAME = "probe-qk"
"""Our attention in transformers' registry: it keeps queries and keys."""
_KEPT = "_probe_qk"
_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Relative tolerance for the sum of the contributions against the score, by the number format of the weights."""


@dataclass(frozen=True)
class QKAttribution:
    """The score of one head for one query and some keys, as a sum over pairs of writers.

    Attributes:
        head: the head, as ``(layer, head)``.
        query: index of the token that attends.
        keys: indices of the tokens that are attended to.
        writers: the writers before this block, by the names of :class:`~probe.circuits.Graph`, and ``constant`` for
            what biases add.
        parts: what each writer at the query (rows) with each writer at the key (columns) adds to the score,
            ``[keys, writers, writers]``. Scores are before any mask or soft cap; only their differences between keys
            matter to the softmax.
        score: the head's own score of each key, as the model computes it, ``[keys]``.
    """

    head: Head
    query: int
    keys: tuple[int, ...]
    writers: tuple[str, ...]
    parts: Float[Tensor, "keys writers writers"]
    score: Float[Tensor, " keys"]

    @property
    def by_query(self) -> Float[Tensor, "keys writers"]:
        """What each writer adds on the query side, summed over those on the key side."""
        return self.parts.sum(2)

    @property
    def by_key(self) -> Float[Tensor, "keys writers"]:
        """What each writer adds on the key side, summed over those on the query side."""
        return self.parts.sum(1)

    def against(self, key: int, other: int) -> Float[Tensor, "writers writers"]:
        """What each pair of writers adds to the score of one key minus that of another, which decides between them.

        Args:
            key, other: two of ``keys``.
        """
        return self.parts[self.keys.index(key)] - self.parts[self.keys.index(other)]

    def top(self, key: int, n: int = 10) -> list[tuple[str, str, float]]:
        """The pairs of writers that add most to the score of a key, by size: at the query, at the key, and how much.

        Args:
            key: one of ``keys``.
            n: the number of pairs.
        """
        parts = self.parts[self.keys.index(key)].flatten()
        order = parts.abs().argsort(descending=True)[:n].tolist()
        pairs = [divmod(at, len(self.writers)) for at in order]
        return [(self.writers[i], self.writers[j], float(parts[at])) for at, (i, j) in zip(order, pairs, strict=True)]

    def rows(self) -> list[dict[str, object]]:
        """One row for each key and writer: what it adds on the query side and on the key side."""
        query, key = self.by_query, self.by_key
        return [
            {"key": at, "writer": name, "at the query": float(query[i, j]), "at the key": float(key[i, j])}
            for i, at in enumerate(self.keys)
            for j, name in enumerate(self.writers)
        ]

    def __repr__(self) -> str:
        scores = ", ".join(f"{key}: {score:.2f}" for key, score in zip(self.keys, self.score.tolist(), strict=True))
        return f"QKAttribution(a{self.head[0]}.h{self.head[1]}, query {self.query}, scores of keys {scores})"

    def _repr_html_(self) -> str:
        rows = [(key, *pair[:2], f"{pair[2]:.3f}") for key in self.keys for pair in self.top(key, 6)]
        return html_table(("key", "writer at the query", "writer at the key", "adds"), rows, repr(self))


@torch.no_grad()
def qk_attribution(
    model: Model, ids: Int[Tensor, " pos"], head: Head, *, query: int = -1, keys: Sequence[int]
) -> QKAttribution:
    """Divide a head's attention score among what earlier writers wrote at the query and at the key.

    The scales of the norms before queries and keys are fixed to their values in this text; what is left is bilinear, so
    that the contributions add up to the score (Elhage et al., *A Mathematical Framework for Transformer Circuits*,
    2021). Rotary positions, norms of queries and keys, grouped keys, biases and the scale are the model's own: its
    attention module runs on each writer alone.

    Args:
        ids: token ids of a text, the prompt included.
        head: the head, as ``(layer, head)``.
        query: index of the token that attends.
        keys: indices of a few tokens that it may attend to.

    Raises:
        ProbeError: if there is no such head or token, or a key comes after the query.
        NotApplicable: if the contributions do not add up: a norm, a factor or a gate follows attention, or the block's
            attention reads the stream by a norm of an unknown kind, or has no query and key scores.
    """
    layer, which = head
    sizes, n = Sizes.of(model.hf.config), len(ids)
    query = query + n if query < 0 else query
    if not (0 <= layer < model.n_layers and 0 <= which < sizes.heads):
        raise ProbeError(f"{model.name} has no head a{layer}.h{which}; it has {model.n_layers} blocks of {sizes.heads}")
    if not keys or not all(0 <= key <= query for key in keys) or query >= n:
        raise ProbeError(
            f"query is {query} and keys are {list(keys)[:8]}; each key must be at or before the query, in {n} tokens"
        )
    model.check_ids([ids.tolist()])
    check_frequencies(model.hf, n)
    graph = Graph(model.n_layers, sizes.heads, sizes.kv_heads)
    names = (*graph.writers[: 1 + layer * (sizes.heads + 1)], CONSTANT)
    places = sorted({query, *keys})
    streams, asked = _writers(model, ids, layer, places)
    sides = {at: _queries_and_keys(model, layer, streams[:, i], asked[i]) for i, at in enumerate(places)}
    group = which // (sizes.heads // sides[query].key.shape[1])
    asks = sides[query].query[:, which]
    found = torch.stack([asks @ sides[key].key[:, group].T for key in keys]) * sides[query].scale
    # Row 0 is the whole state; the others add up to it.
    score, parts = found[:, 0, 0], found[:, 1:, 1:]
    if (parts.sum((1, 2)) - score).abs().max() > _CLOSE[model.dtype] * parts.abs().sum((1, 2)).max():
        raise NotApplicable(
            f"the parts of the scores of {model.name} do not add up: its queries or keys are not linear"
        )
    return QKAttribution((layer, which), query, tuple(keys), names, parts.cpu(), score.cpu())


@dataclass(frozen=True)
class _Asked:
    """How the attention of a block is called at one token: what it reads, and its other arguments."""

    state: Float[Tensor, " d_model"]
    norm: nn.Module | None
    stream: Float[Tensor, " d_model"]
    others: dict[str, Any]


@dataclass(frozen=True)
class _Sides:
    """Queries and keys of the whole state (first row), of each writer and of the constant (last row)."""

    query: Float[Tensor, "rows heads d_head"]
    key: Float[Tensor, "rows groups d_head"]
    scale: float


def _writers(
    model: Model, ids: Int[Tensor, " pos"], layer: int, places: list[int]
) -> tuple[Float[Tensor, "writers places d_model"], list[_Asked]]:
    """What each writer before a block adds at some tokens, and how the block's attention is called there."""
    before = range(layer)
    sites = [Site("resid_pre", 0), Site("resid_pre", layer)]
    sites += [Site(kind, at) for at in before for kind in ("z", "attn_out", "mlp_out")]
    hf = model.hf
    attention = hf.get_submodule(place(hf, Site("pattern", layer)).module)
    block = model.layers[layer]
    calls: list[tuple[tuple, dict[str, Any]]] = []
    outputs: dict[str, Tensor] = {}

    def called(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))

    def ran(name: str) -> Callable[..., None]:
        return lambda _, __, out: outputs.__setitem__(name, out) if isinstance(out, Tensor) and not calls else None

    hooks = [attention.register_forward_pre_hook(called, with_kwargs=True)]
    hooks += [module.register_forward_hook(ran(name)) for name, module in block.named_children()]
    try:
        # The pass ends at the queries, so that the attention has been called.
        with capture(model, [*sites, Site("q", layer)], tokens=Tokens(positions=places)) as acts:
            hf(ids.to(model.device)[None], use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    found = [acts["resid_pre.0"].float()]
    for at in before:
        z, out, mlp = (acts[f"{kind}.{at}"].float() for kind in ("z", "attn_out", "mlp_out"))
        weights, _ = output_weights(model, at, z, out)
        found += [*torch.einsum("phe,hed->hpd", z, weights), mlp]
    args, kwargs = calls[0]
    state = args[0] if args else kwargs["hidden_states"]
    stream = acts[f"resid_pre.{layer}"]
    norm = next((name for name, out in outputs.items() if out.shape == state.shape and torch.equal(out, state)), None)
    if norm is None and not torch.equal(state[0, places], stream):
        raise NotApplicable(f"what attention reads in block {layer} of {model.name} is not the output of a norm")
    return torch.stack(found), [
        _Asked(
            state[0, at],
            None if norm is None else block.get_submodule(norm),
            stream[i].float(),
            {name: _at(value, at, len(ids)) for name, value in kwargs.items() if name not in _DROPPED},
        )
        for i, at in enumerate(places)
    ]


_DROPPED = {"hidden_states", "attention_mask", "past_key_values", "cache_position", "use_cache", "output_attentions"}
"""Arguments of an attention that are not those of a single token."""


def _at(value: Any, at: int, n: int) -> Any:
    """The part of an argument that belongs to a token: rotary positions have one row for each."""
    if isinstance(value, tuple):
        return tuple(_at(each, at, n) for each in value)
    if isinstance(value, Tensor) and value.dim() >= 2 and value.shape[1] == n:
        return value[:, at : at + 1]
    return value


def _queries_and_keys(model: Model, layer: int, written: Float[Tensor, "writers d_model"], asked: _Asked) -> _Sides:
    """The queries and keys that a block's attention makes of each writer alone at one token."""
    stream, state = asked.stream[None], asked.state[None].float()
    rest = stream - written.sum(0)
    if asked.norm is None:
        rows, constant = written, rest
    else:
        frozen = FrozenNorm(asked.norm, stream, state)
        rows, constant = frozen(written[:, None])[:, 0], frozen(rest) + frozen.constant
    # The whole, nothing (which leaves the biases of queries and keys), each writer, and what is left.
    inputs = torch.cat([state, torch.zeros_like(state), rows, constant])
    hf = model.hf
    attention = hf.get_submodule(place(hf, Site("pattern", layer)).module)
    kept: list[tuple[Tensor, Tensor, float]] = []
    with _recorded(model, attention, kept), _fixed_norms(attention):
        attention(inputs[:, None].to(asked.state), attention_mask=None, **asked.others)
    queries, keys, scale = kept[0]
    sides = []
    for side in (queries[:, :, 0].float(), keys[:, :, 0].float()):
        whole, nothing, each, left = side[:1], side[1:2], side[2:-1], side[-1:]
        sides.append(torch.cat([whole, each - nothing, left]))  # the biases are part of the constant
    return _Sides(sides[0], sides[1], scale)


@contextmanager
def _recorded(model: Model, attention: nn.Module, kept: list[tuple[Tensor, Tensor, float]]) -> Iterator[None]:
    """Inside the block, a module's attention keeps its queries and keys, after norms and rotation, and its scale."""
    restore = exchange_attention(model.hf, _NAME, _keep, eager_mask)
    setattr(attention, _KEPT, kept)
    try:
        yield
    finally:
        delattr(attention, _KEPT)
        restore()


def _keep(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **__: Any
) -> tuple[Tensor, None]:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    getattr(module, _KEPT).append((query, key, scale))
    groups = query.shape[1] // key.shape[1]
    return value.repeat_interleave(groups, 1).transpose(1, 2).contiguous(), None


@contextmanager
def _fixed_norms(attention: nn.Module) -> Iterator[None]:
    """Inside the block, norms of queries and keys have the scales of the first row for all rows."""

    inside: list[nn.Module] = []

    def fixed(norm: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
        if inside:  # the fixed norm calls the norm itself
            return None
        inside.append(norm)
        before, after = (each.flatten(0, -2).float() for each in (args[0][:1], out[:1]))
        frozen = FrozenNorm(norm, before, after)
        inside.pop()
        rows = args[0].float().reshape(len(args[0]), -1, args[0].shape[-1])
        return (frozen(rows) + frozen.constant).reshape(out.shape).to(out)

    norms = [each for name, each in attention.named_children() if "norm" in name and hasattr(each, "weight")]
    hooks = [norm.register_forward_hook(fixed) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
