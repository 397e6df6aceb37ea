"""The flip rate: how often adding a behaviour's vector changes the next sentence to that behaviour.

For the first version of the method this rate was about zero (Venhoff et al., 2510.07364v1).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from probe.hooks import Forced, Lane, Now, force, forced_pass, in_rows, likeliest, stream
from probe.html import html_table
from probe.models import Model, Pair
from probe.problems import Problem
from probe.statistics import share_interval
from probe.steering import Mechanism, random_like
from probe.taxonomy import Taxonomy
from probe.traces import Trace, first_sentence

_MAX_SENTENCE_TOKENS = 48


@dataclass(frozen=True)
class _Start:
    """The beginning of a sentence: the token ids before it, as each model reads them."""

    base: tuple[int, ...]
    thinking: tuple[int, ...]


@dataclass(frozen=True)
class FlipRate:
    """The flip rate of one behaviour, or of all together.

    Attributes:
        behaviour: the number of the behaviour; None for all together.
        n: the number of starts at which the unsteered base model writes a sentence of another behaviour.
        rate, ci: the share of those starts at which it writes a sentence of this behaviour when the vector is added,
            and its 95 % interval.
        random: the same share with a random vector of the same norm.
        unsteered: the share of *all* starts at which the unsteered base model writes a sentence of this behaviour.
    """

    behaviour: int | None
    n: int
    rate: float | None
    ci: tuple[float, float] | None
    random: float | None
    unsteered: float | None


@dataclass(frozen=True, repr=False)
class FlipRates:
    """The flip rates of all behaviours.

    Attributes:
        all: over all behaviours together.
        per_behaviour: for each behaviour.
        starts: the number of starts.
    """

    all: FlipRate
    per_behaviour: tuple[FlipRate, ...]
    starts: int

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``effects.json``."""
        whole = asdict(self.all)
        whole.pop("behaviour")
        return {**whole, "starts": self.starts, "per_behaviour": [asdict(each) for each in self.per_behaviour]}

    def __repr__(self) -> str:
        rate = "none" if self.all.rate is None else f"{self.all.rate:.0%}"
        return f"FlipRates({rate} over {len(self.per_behaviour)} behaviours, {self.starts} starts)"

    def _repr_html_(self) -> str:
        def share(value: float | None) -> str | None:
            return None if value is None else f"{value:.0%}"

        rows = [
            (
                "all" if each.behaviour is None else each.behaviour,
                each.n,
                *map(share, (each.rate, each.random, each.unsteered)),
                each.ci and "{:.2f} to {:.2f}".format(*each.ci),
            )
            for each in (self.all, *self.per_behaviour)
        ]
        return html_table(("behaviour", "n", "flips", "random", "unsteered", "95 %"), rows)


def _sentence_starts(
    pair: Pair, traces: Sequence[Trace], problems: Sequence[Problem], most: int, seed: int
) -> list[_Start]:
    """Find the starts of all sentences but the first of each trace, or a random sample of ``most`` of them."""
    pairs = list(zip(traces, problems, strict=True))
    places = [(i, sentence.token_start) for i, trace in enumerate(traces) for sentence in trace.sentences[1:]]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    starts = []
    for i, begin in (places[number] for number in order[:most].tolist()):
        trace, problem = pairs[i]
        base, thinking = (tuple(model.prompt_ids(problem.question)) for model in (pair.base, pair.thinking))
        starts.append(_Start(base + trace.tokens[:begin], thinking + trace.tokens[:begin]))
    return starts


def flip_rates(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    mechanism: Mechanism,
    behaviours: Sequence[int] | None = None,
    starts: int = 100,
    seed: int = 0,
    batch_size: int = 128,
) -> FlipRates:
    """Add each behaviour's vector where a sentence begins, let the base model finish it, and classify the sentence.

    The vector is added only at the token that predicts the sentence's first token, with the mechanism's own strength.
    The taxonomy classifies the sentence by the thinking model's mean state over it, as in fitting.

    Args:
        pair: both models; each reads a text after its own prompt.
        taxonomy: classifies the sentences.
        traces, problems: traces whose sentences are replaced, and their problems in the same order.
        mechanism: one vector for each behaviour of the taxonomy.
        behaviours: the behaviours to try; None tries all. Leave out a behaviour at which the models hardly ever
            disagree, because its vector was hardly ever trained.
        starts: the maximum number of starts, a random sample.
        seed: seeds the sample and the random vectors.
        batch_size: the number of sentences that are decoded at the same time.
    """
    found = _sentence_starts(pair, traces, problems, starts, seed)
    plain = _written(pair, found, None, None, batch_size)
    before = _sentence_behaviours(pair.thinking, taxonomy, found, plain)
    random = random_like(mechanism, seed)
    rates, pooled = [], []
    for k in range(taxonomy.n_behaviours) if behaviours is None else behaviours:
        some = [start for start, shown in zip(found, before, strict=True) if shown != k]
        hits = []
        for added in (mechanism, random):
            texts = _written(pair, some, added, k, batch_size)
            hits.append([each == k for each in _sentence_behaviours(pair.thinking, taxonomy, some, texts)])
        own = [shown == k for shown in before]
        rates.append(_rate(k, hits[0], hits[1], own))
        pooled.append((hits[0], hits[1], own))
    together = [[value for each in pooled for value in each[column]] for column in range(3)]
    return FlipRates(_rate(None, together[0], together[1], together[2]), tuple(rates), len(found))


def _rate(behaviour: int | None, flipped: list[bool], random: list[bool], own: list[bool]) -> FlipRate:
    n, flips = len(flipped), share_interval(flipped)
    return FlipRate(
        behaviour,
        n,
        flips.value,
        flips.ci,
        sum(random) / n if n else None,
        sum(own) / len(own) if own else None,
    )


def _written(
    pair: Pair, starts: Sequence[_Start], mechanism: Mechanism | None, behaviour: int | None, batch_size: int
) -> list[list[int]]:
    """Decode the base model's sentence at each start; only its first token is steered."""
    base = pair.base
    layer = None if mechanism is None else mechanism.layer
    read = () if layer is None else (layer,)

    def choose(now: Now) -> tuple[Tensor]:
        tokens = likeliest(now.steps[0].logits)
        first = [at for at, count in enumerate(now.fetch(now.counts)) if count == 0]
        if mechanism is not None and layer is not None and first:
            rows = torch.tensor(first, device=tokens.device)
            resid = now.steps[0].resid[layer][rows]
            kind = torch.full_like(rows, behaviour or 0)
            shift = mechanism.shift(resid, mechanism.strength(resid, kind), kind).to(resid.dtype)
            tokens[rows] = likeliest(now.runners[0].rerun(resid + shift, rows, persistent=mechanism.persistent))
        return (tokens,)

    lane = Lane(base, [start.base for start in starts], read, layer)
    out: list[list[int]] = [[] for _ in starts]
    slots = min(batch_size, max(1, len(starts)))
    for item, (tokens,), _ in stream(
        [lane], choose, ends=set(base.eos_ids), max_new_tokens=_MAX_SENTENCE_TOKENS, slots=slots
    ):
        out[item] = [*first_sentence(base, tokens)]
    return out


@torch.no_grad()
def _sentence_behaviours(
    model: Model, taxonomy: Taxonomy, starts: Sequence[_Start], texts: Sequence[Sequence[int]]
) -> list[int | None]:
    """Classify each sentence; None where nothing was written."""
    shown: list[int | None] = [None] * len(texts)
    some = [i for i, text in enumerate(texts) if text]
    site = taxonomy.site

    def mean(rows: Forced) -> tuple[Tensor, ...]:
        states = forced_pass(model, rows, site, logits=False).at_tokens(site).float() * rows.emitted[..., None]
        return (states.sum(1) / rows.emitted.sum(1, keepdim=True),)

    for at in range(0, len(some), 64):
        part = some[at : at + 64]
        forced = force(model, [starts[i].thinking for i in part], [texts[i] for i in part])
        (means,) = in_rows(model, forced, mean, what="reading sentences")
        for i, behaviour in zip(part, taxonomy.behaviour(means).tolist(), strict=True):
            shown[i] = behaviour
    return shown
