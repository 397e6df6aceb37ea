"""Reading blocks' outputs as next tokens, through the logit lens or a Jacobian lens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.lenses.jacobian import JacobianLens
from probe.errors import ProbeError
from probe.hooks import Tokens, capture
from probe.html import html_table
from probe.models import Model, check_frequencies, fitting
from probe.traces import token_name, token_texts

LOGIT, JACOBIAN = "logit lens", "Jacobian lens"
_MOST_LOGITS, _COPIES = 2**28, 4
"""The most bytes that logits take, and the number of float32 tensors of their size that are held at once."""


@dataclass(frozen=True)
class LensReading:
    """The next token that each block's output predicts, as a lens reads it.

    Attributes:
        tokens: the tokens of the text.
        top: id of the likeliest next token after each block, ``[layers, pos]``.
        said: the same tokens as text.
        log_prob: their log-probability in nats.
        target: log-probability in nats of the token that follows in the text, ``[layers, pos - 1]``.
        entropy: entropy of the predicted distribution in nats.
        layers: the blocks, counted from 0; the last one gives the model's own prediction.
        lens: ``logit lens`` or ``Jacobian lens``.
    """

    tokens: tuple[str, ...]
    top: Int[Tensor, "layers pos"]
    said: tuple[tuple[str, ...], ...]
    log_prob: Float[Tensor, "layers pos"]
    target: Float[Tensor, "layers rest"]
    entropy: Float[Tensor, "layers pos"]
    layers: tuple[int, ...]
    lens: str = LOGIT

    def __repr__(self) -> str:
        return f"LensReading({self.lens}: {len(self.layers)} blocks, {len(self.tokens)} tokens)"

    def _repr_html_(self) -> str:
        rows = [(f"block {self.layers[i]}", *self.said[i]) for i in reversed(range(len(self.said)))]
        return html_table(("", *self.tokens), rows, self.lens[0].upper() + self.lens[1:])


@torch.no_grad()
def logit_lens(model: Model, ids: Int[Tensor, " pos"], lens: JacobianLens | None = None) -> LensReading:
    """Decode every block's output with the model's own last norm and unembedding.

    Args:
        ids: token ids of a text, the prompt included.
        lens: a Jacobian lens that carries each block's output to the last block first, read at the blocks that it has;
            None for the logit lens (nostalgebraist, 2020).

    Raises:
        ProbeError: if the lens was fitted on another model.
    """
    if not len(ids):
        raise ProbeError("the text has no tokens: give at least one")
    layers = lens_layers(model, lens)
    following = torch.tensor([*ids.tolist()[1:], 0])  # nothing follows the last token; its entry is dropped
    rows: dict[int, list[tuple[Tensor, ...]]] = {layer: [] for layer in layers}
    at_once = model.budget // 4 // (len(ids) * model.d_model * model.dtype.itemsize)
    for some in fitting(layers, lambda _: 1, at_once):  # a pass for as many blocks as fit
        for layer, places, log_p in decoded(model, states_at(model, ids, range(len(ids)), some), lens):
            best = log_p.max(-1)
            target = log_p.gather(1, following[places].to(log_p.device)[:, None])[:, 0]
            spread = torch.distributions.Categorical(logits=log_p).entropy()
            rows[layer].append((best.indices, best.values, target, spread))
    parts = [[torch.cat(part) for part in zip(*rows[layer], strict=True)] for layer in layers]
    top, log_prob, target, entropy = (torch.stack(part).cpu() for part in zip(*parts, strict=True))
    said = tuple(tuple(token_name(token, model.decode, model.tokenizer) for token in row) for row in top.tolist())
    tokens = tuple(token_texts(ids.tolist(), model.decode, model.tokenizer))
    name = LOGIT if lens is None else JACOBIAN
    return LensReading(tokens, top, said, log_prob, target[:, :-1], entropy, layers, name)


def lens_layers(model: Model, lens: JacobianLens | None) -> tuple[int, ...]:
    """The blocks that a lens reads, counted from 0: all, or those of a Jacobian lens and the last.

    Raises:
        ProbeError: if the lens was fitted on another model.
    """
    if lens is None:
        return tuple(range(model.n_layers))
    lens.check(model)
    return (*lens.layers, model.n_layers - 1)


@torch.no_grad()
def states_at(
    model: Model, ids: Int[Tensor, " pos"], positions: Sequence[int], layers: Sequence[int]
) -> dict[int, Float[Tensor, "some d_model"]]:
    """The outputs of some blocks at some tokens of a text; only these are kept.

    Args:
        ids: token ids of a text, the prompt included.
        positions: the tokens that are read, in ascending order.
        layers: the blocks, counted from 0.

    Raises:
        ProbeError: if a token lies outside the text.
    """
    model.check_ids([ids.tolist()])
    check_frequencies(model.hf, len(ids))
    some = list(positions)
    if not some or some != sorted(set(some)) or not 0 <= some[0] <= some[-1] < len(ids):
        raise ProbeError(f"positions are {some[:8]}; they must be ascending and below {len(ids)}")
    with capture(model, [f"resid_post.{layer}" for layer in layers], tokens=Tokens(positions=some)) as acts:
        model.hf(ids.to(model.device)[None], use_cache=False, logits_to_keep=1)
    return {layer: acts[f"resid_post.{layer}"] for layer in layers}


@torch.no_grad()
def decoded(
    model: Model, states: Mapping[int, Float[Tensor, "places d_model"]], lens: JacobianLens | None = None
) -> Iterator[tuple[int, slice, Float[Tensor, "some vocab"]]]:
    """Read states through a lens, in chunks whose logits fit into memory.

    Args:
        states: the outputs of some blocks, as :func:`states_at` returns them.
        lens: as in :func:`logit_lens`; its model is not checked here.

    Yields:
        The block, the range of places, and the log-probabilities in nats of every next token there.
    """
    several = max(1, min(_MOST_LOGITS, model.budget // 4) // (_COPIES * 4 * model.n_embeddings))
    for layer, each in states.items():
        for first in range(0, len(each), several):
            part = slice(first, min(first + several, len(each)))
            yield layer, part, model.unembed(each[part], lens=lens, layer=layer).float().log_softmax(-1)


@dataclass(frozen=True)
class Readable:
    """How readable some next tokens are in each block's output.

    Attributes:
        log_prob: their log-probability in nats, ``[layers, places]``.
        rank: how many tokens are likelier, ``[layers, places]``; 0 is the likeliest.
        layers: the blocks, counted from 0.
    """

    log_prob: Float[Tensor, "layers places"]
    rank: Int[Tensor, "layers places"]
    layers: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Readable({len(self.layers)} blocks, {self.rank.shape[1]} places)"


def readable(
    model: Model,
    ids: Int[Tensor, " pos"],
    wanted: Sequence[tuple[int, int]],
    lens: JacobianLens | None = None,
) -> Readable:
    """Measure how readable given tokens are at given places of a text, block by block.

    Args:
        ids: token ids of a text, the prompt included.
        wanted: for each place, the index in ``ids`` of the token that is read, and the id of the token that is looked
            for; a place may occur several times.
        lens: as in :func:`logit_lens`.

    Raises:
        ProbeError: if the lens was fitted on another model, or a place lies outside the text.
    """
    layers = lens_layers(model, lens)
    model.check_ids([[token] for _, token in wanted])
    places = sorted({at for at, _ in wanted})
    row = torch.tensor([places.index(at) for at, _ in wanted])
    tokens = torch.tensor([token for _, token in wanted])
    shape = (len(layers), len(wanted))
    log_prob, rank = torch.zeros(shape), torch.zeros(shape, dtype=torch.long)
    for layer, part, log_p in decoded(model, states_at(model, ids, places, layers), lens):
        here = ((row >= part.start) & (row < part.stop)).nonzero()[:, 0]
        which, token = (row[here] - part.start).to(log_p.device), tokens[here].to(log_p.device)
        for one, at in enumerate(here.tolist()):  # one row of the vocabulary at a time
            values = log_p[which[one]]
            value = values[token[one]]
            log_prob[layers.index(layer), at] = value.cpu()
            rank[layers.index(layer), at] = int((values > value).sum())
    return Readable(log_prob, rank, layers)
