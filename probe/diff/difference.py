"""The mean difference between the states of two models, read as words and tested against nulls.

Minder et al. (*Narrow Finetuning Leaves Clearly Readable Traces in Activation Differences*, 2510.13900) average it over
the first few tokens of unrelated texts, decode it with the logit lens, and add it to the model. Here it is averaged
over traces and over the ends of sentences too, and what is read is compared with what other vectors say. It is read as
the change of the lens' probabilities when it is added to the base's mean state. The difference alone points mostly at
tokens that neither model ever writes, whose logits training moves freely.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations import batches, fitting_tokens, read
from probe.anchors import both_log_probs
from probe.circuits import JacobianLens
from probe.diff.unrelated import unrelated_texts
from probe.errors import NotApplicable
from probe.html import html_table
from probe.models import Model, Pair
from probe.problems import Problem
from probe.statistics import LEVEL, write_p
from probe.taxonomy import Behaviour
from probe.traces import Trace, token_name

#: The tokens over which the difference is averaged.
PLACES = {
    "unrelated": "the first tokens of texts on other topics",
    "traces": "all tokens of traces",
    "sentence ends": "the tokens of traces after which a sentence begins",
}
#: The vectors that the difference is compared with; all have its norm.
NULLS = {
    "random": "random directions",
    "halves": "differences between random halves of the texts, in one model",
}
_MOST = 128
"""The most traces that the difference is averaged over, and the most that it is compared with."""
_NOTHING = 1e-6
"""A difference below this share of the states' norm is rounding."""

Means = dict[str, Float[Tensor, "texts d_model"]]
"""The mean state of each text, for each place of :data:`PLACES`."""


@dataclass(frozen=True)
class Reading:
    """What the mean difference at one place says.

    Attributes:
        place: a key of :data:`PLACES`.
        texts: number of texts that were averaged.
        size: norm of the mean difference, as a share of the mean norm of the base's states.
        top: the tokens whose probability the difference raises most, the first one most; empty if there is none.
        agrees: correlation over the vocabulary of the change of the lens' probabilities with the mean change of the
            models' own probabilities along other traces (at the sentences' first tokens for ``sentence ends``); None
            if there is no difference.
        of_null: the 95 % quantile of the same correlation for each null of :data:`NULLS` that has vectors.
        vectors: number of different vectors of each null. A few texts have few halves.
        p: p-value of the correlation for each null, (k + 1) / (n + 1), where k of its n vectors reach it. So it is
            never below 1 / (n + 1).
        rank: rank of the token that most often begins the behaviour, 1 for the highest; None without a behaviour.
        rank_p: p-value of the rank for each null.
    """

    place: str
    texts: int
    size: float
    top: tuple[str, ...] = ()
    agrees: float | None = None
    of_null: Mapping[str, float] = field(default_factory=dict)
    vectors: Mapping[str, int] = field(default_factory=dict)
    p: Mapping[str, float] = field(default_factory=dict)
    rank: int | None = None
    rank_p: Mapping[str, float] = field(default_factory=dict)

    @property
    def least(self) -> float | None:
        """The p-value against the null that is harder to beat; None if there is no difference."""
        return max(self.p.values(), default=None)

    @property
    def floor(self) -> float | None:
        """The smallest value that :attr:`least` can have; None if there is no difference."""
        return max((1 / (1 + n) for n in self.vectors.values()), default=None)


@dataclass(frozen=True)
class ActivationDifference:
    """The mean difference of the thinking model's states and the base's, and what it says.

    Attributes:
        layer: the layer of ``resid_post``, counted from 0.
        topics: where the unrelated texts come from.
        favoured: the tokens whose mean probability the thinking model raises most where sentences begin, along other
            traces.
        favoured_ids: their ids.
        word: the token that most often begins the behaviour; None without a behaviour.
        readings: one for each place that the texts have.
        vectors: the mean difference at each place.
    """

    layer: int
    topics: str
    favoured: tuple[str, ...]
    favoured_ids: tuple[int, ...]
    word: str | None
    readings: tuple[Reading, ...]
    vectors: Mapping[str, Float[Tensor, " d_model"]] = field(repr=False)

    @property
    def readable(self) -> tuple[Reading, ...]:
        """The readings whose words the nulls do not explain, corrected for the number of places."""
        return tuple(each for each in self.readings if each.least is not None and each.least < self.level)

    @property
    def level(self) -> float:
        """The p-value below which a place is readable."""
        return (1 - LEVEL) / max(1, len(self.readings))

    @property
    def clearest(self) -> str | None:
        """The place whose words the nulls explain least; None if there is no difference."""
        known = [each for each in self.readings if each.least is not None]
        return min(known, key=lambda each: (each.least or 0.0, -(each.agrees or 0.0))).place if known else None

    def __repr__(self) -> str:
        readable = f"{len(self.readable)} of {len(self.readings)}"
        return f"ActivationDifference(resid_post.{self.layer}, readable at {readable} places)"

    def _repr_html_(self) -> str:
        rows = [
            (
                each.place,
                f"{each.size:.1%}",
                "".join(each.top) and " · ".join(map(repr, each.top[:10])),
                "–" if each.agrees is None else f"{each.agrees:.2f}",
                *(
                    f"{each.of_null[name]:.2f}, {write_p(each.p[name])}" if name in each.of_null else "–"
                    for name in NULLS
                ),
            )
            for each in self.readings
        ]
        head = ("place", "size", "tokens raised most", "agrees", *NULLS.values())
        return html_table(head, rows, f"thinking minus base at resid_post.{self.layer}, read by a lens")

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON, without the vectors."""
        return {
            "layer": self.layer,
            "topics": self.topics,
            "favoured": list(self.favoured),
            "word": self.word,
            "readings": [
                {name: getattr(each, name) for name in ("place", "texts", "size", "agrees", "rank")}
                | {"top": list(each.top)}
                | {name: dict(getattr(each, name)) for name in ("of_null", "vectors", "p", "rank_p")}
                for each in self.readings
            ],
        }


def activation_difference(
    pair: Pair,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    layer: int | None = None,
    behaviour: Behaviour | None = None,
    unrelated: Sequence[str] | None = None,
    lens: JacobianLens | None = None,
    first: int = 4,
    k: int = 20,
    n_random: int = 500,
    seed: int = 0,
) -> ActivationDifference:
    """Read the mean difference of the two models' states by a lens, and test what it says.

    Both models read the same token ids. The difference is averaged over the first half of the traces, and compared with
    the change of the models' probabilities along the second half, so that nothing is tested where it was found.

    Args:
        traces: traces of the thinking model.
        problems: the problem of each trace.
        layer: layer of ``resid_post``, counted from 0; None for the middle layer.
        behaviour: its most frequent first token is looked for; None for none.
        unrelated: texts on other topics; None for bundled sentences, or the questions of the problems if the tokenizer
            does not know their words.
        lens: carries states to the output of the last block first; None for the logit lens. Either is read by the
            thinking model's own last norm and unembedding.
        first: number of tokens of an unrelated text, after its first one, which is often an attention sink.
        k: number of tokens that are read, at most a tenth of the vocabulary.
        n_random: the largest number of vectors of each null.
        seed: seeds the nulls.

    Raises:
        NotApplicable: if the models differ in width, or there are fewer than four traces.
    """
    base, thinking = pair.base, pair.thinking
    if base.d_model != thinking.d_model:
        raise NotApplicable(f"{base.name} and {thinking.name} differ in width, so their states have no difference")
    if len(traces) < 4:
        raise NotApplicable(f"{len(traces)} traces: a mean difference needs at least 4, and half of them test it")
    layer = middle_layer(pair) if layer is None else layer
    if lens is not None:
        lens.check(thinking)
    half = len(traces) // 2
    vocab = min(base.n_embeddings, thinking.n_embeddings)
    k = min(k, max(1, vocab // 10))
    everywhere, at_ends = probability_rise(pair, traces[half : half + _MOST], problems[half : half + _MOST])
    rises = {"unrelated": everywhere, "traces": everywhere, "sentence ends": at_ends}
    word = None if behaviour is None else _first_token(traces[:half], behaviour)
    topics, texts = unrelated_texts(thinking, problems, unrelated)
    where: list[dict[str, Sequence[int]]] = [{"unrelated": range(1, min(1 + first, len(ids)))} for ids in texts]
    for trace in traces[: min(half, _MOST)]:
        prompt = thinking.encode_prompt(trace.prompt)
        texts.append([*prompt, *trace.tokens])
        ends = sorted({len(prompt) + each.token_start - 1 for each in trace.sentences if each.token_start})
        where.append({"traces": range(len(prompt), len(prompt) + len(trace.tokens)), "sentence ends": ends})
    means = [_means(model, texts, where, f"resid_post.{layer}") for model in (base, thinking)]
    read_off = _Read(thinking, layer, lens, vocab, k, word)
    readings, vectors = [], {}
    for place in PLACES:
        if place in means[0]:
            sides = (means[0][place], means[1][place])
            vectors[place] = (sides[1] - sides[0]).mean(0)
            readings.append(_reading(place, *sides, rises[place], read_off, n_random, seed))

    favoured = [token for token in at_ends.topk(k).indices.tolist() if at_ends[token] > 0]
    return ActivationDifference(
        layer,
        topics,
        _said(thinking, favoured),
        tuple(favoured),
        None if word is None else _said(thinking, [word])[0],
        tuple(readings),
        vectors,
    )


def middle_layer(pair: Pair) -> int:
    """The middle of the layers that both models have, counted from 0."""
    return (min(pair.base.n_layers, pair.thinking.n_layers) - 1) // 2


@torch.no_grad()
def probability_rise(
    pair: Pair, traces: Sequence[Trace], problems: Sequence[Problem]
) -> tuple[Float[Tensor, " vocab"], Float[Tensor, " vocab"]]:
    """How much the thinking model raises each token's mean probability along some traces.

    Args:
        traces: texts that both models read, each after its own prompt.
        problems: the problem of each trace.

    Returns:
        The mean of p(thinking) − p(base) for each token that both models have, over all places of the traces, and over
        those where a sentence begins; on the CPU.

    Raises:
        NotApplicable: if the traces have no tokens.
    """
    sums, counts = [torch.zeros(()), torch.zeros(())], [0, 0]
    for trace, problem in zip(traces, problems, strict=True):
        starts = torch.tensor([each.token_start for each in trace.sentences], dtype=torch.long)
        done = 0
        for before, after, tokens in both_log_probs(pair.base, pair.thinking, problem, trace) if trace.tokens else ():
            change = after.exp() - before.exp()
            here = starts[(starts >= done) & (starts < done + len(tokens))] - done
            for i, some in enumerate((change, change[here.to(change.device)])):
                sums[i] = sums[i] + some.sum(0, dtype=torch.float64).cpu()
                counts[i] += len(some)
            done += len(tokens)
    if not counts[0]:
        raise NotApplicable("the traces have no tokens to compare the two models at")
    everywhere, at_starts = (total / max(1, n) for total, n in zip(sums, counts, strict=True))
    return everywhere.float(), at_starts.float()


def _first_token(traces: Sequence[Trace], behaviour: Behaviour) -> int | None:
    """The token that most often begins a sentence of the behaviour."""
    counts: Counter[int] = Counter()
    for trace, marks in zip(traces, behaviour.marks(traces), strict=True):
        starts = (each.token_start for each, shows in zip(trace.sentences, marks, strict=True) if shows)
        counts.update(trace.tokens[start] for start in starts if start < len(trace.tokens))
    return min(counts, key=lambda token: (-counts[token], token), default=None)


@torch.no_grad()
def _means(
    model: Model, texts: Sequence[Sequence[int]], where: Sequence[Mapping[str, Sequence[int]]], site: str
) -> Means:
    """The mean state of each text at each of its places; only the states of some texts are held at a time."""
    found: dict[str, dict[int, Tensor]] = {}
    lengths = [len(text) for text in texts]
    for batch in batches(lengths, fitting_tokens(model, lengths)):
        states, _ = read(model, [texts[i] for i in batch], [site])
        for row, i in enumerate(batch):
            for place, positions in where[i].items():
                if len(positions):
                    at = torch.tensor(list(positions), device=states[site].device)
                    found.setdefault(place, {})[i] = states[site][row, at].float().mean(0).cpu()
    return {place: torch.stack([each[i] for i in sorted(each)]) for place, each in found.items()}


@dataclass(frozen=True)
class _Read:
    """Reads vectors by a lens."""

    model: Model
    layer: int
    lens: JacobianLens | None
    vocab: int
    k: int
    word: int | None

    @torch.no_grad()
    def __call__(
        self, vectors: Float[Tensor, "rows d_model"], state: Float[Tensor, " d_model"], rise: Float[Tensor, " vocab"]
    ) -> tuple[Int[Tensor, "rows k"], Float[Tensor, " rows"], Int[Tensor, " rows"]]:
        """The tokens that each vector raises most, its agreement with the rise, and the rank of the word."""
        several = max(1, self.model.budget // 4 // (4 * 4 * self.vocab))
        before = self._probabilities(state[None])
        wanted = torch.nn.functional.normalize(rise - rise.mean(), dim=0).to(before.device)
        tops, agrees, ranks = [], [], []
        for some in vectors.split(several):
            change = self._probabilities(state + some) - before
            tops.append(change.topk(self.k).indices.cpu())
            centred = change - change.mean(1, keepdim=True)
            agrees.append((centred @ wanted / centred.norm(dim=1).clamp(min=1e-12)).cpu())
            ranks.append(1 + (change > change[:, [self.word or 0]]).sum(1).cpu())
        return torch.cat(tops), torch.cat(agrees), torch.cat(ranks)

    def _probabilities(self, states: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        given = states.to(self.model.device, self.model.dtype)
        logits = self.model.unembed(given, lens=self.lens, layer=self.layer)
        return logits[:, : self.vocab].float().softmax(-1)


def _reading(
    place: str,
    base: Float[Tensor, "texts d_model"],
    thinking: Float[Tensor, "texts d_model"],
    rise: Float[Tensor, " vocab"],
    read_off: _Read,
    n_random: int,
    seed: int,
) -> Reading:
    """Read one mean difference, and the null vectors beside it."""
    vector, typical = (thinking - base).mean(0), base.norm(dim=1).mean()
    size = float(vector.norm() / typical.clamp(min=_NOTHING))
    if not size > _NOTHING or not float(rise.abs().max()) > 0:
        return Reading(place, len(base), size)
    state = base.mean(0)
    top, agrees, rank = read_off(vector[None], state, rise)
    generator = torch.Generator().manual_seed(seed)
    nulls = {"random": torch.randn(n_random, base.shape[1], generator=generator)}
    signs = torch.stack([_halves(len(base), generator) for _ in range(n_random)])
    # Every second one in each model; the states of one model at different texts differ along its usual directions.
    some = (part.unique(dim=0) @ states for part, states in ((signs[::2], base), (signs[1::2], thinking)))
    nulls["halves"] = torch.cat([*some])
    of_null, vectors, p, rank_p = {}, {}, {}, {}
    for name, made in nulls.items():
        made = made[made.norm(dim=1) > _NOTHING]
        vectors[name], reach, rank_reach = len(made), 0, 0
        if len(made):
            _, others, ranks = read_off(made / made.norm(dim=1, keepdim=True) * vector.norm(), state, rise)
            of_null[name] = float(others.quantile(LEVEL))
            reach, rank_reach = int((others >= agrees).sum()), int((ranks <= rank).sum())
        p[name], rank_p[name] = ((1 + k) / (1 + len(made)) for k in (reach, rank_reach))
    known = read_off.word is not None
    return Reading(
        place,
        len(base),
        size,
        _said(read_off.model, top[0].tolist()),
        float(agrees),
        of_null,
        vectors,
        p,
        int(rank) if known else None,
        rank_p if known else {},
    )


def _said(model: Model, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(token_name(i, model.decode, model.tokenizer) for i in ids)


def _halves(n: int, generator: torch.Generator) -> Float[Tensor, " texts"]:
    """Weights that take the mean of one random half of the texts minus the mean of the other."""
    order = torch.randperm(n, generator=generator)
    weights = torch.zeros(n)
    half = n // 2
    weights[order[:half]], weights[order[half : 2 * half]] = 1.0 / max(1, half), -1.0 / max(1, half)
    return weights
