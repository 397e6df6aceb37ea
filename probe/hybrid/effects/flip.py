"""Flip rate: is the next sentence of the behaviour whose vector was added, where it would have been of another?

The first version of the method found about none of its vectors to do that (Venhoff et al., 2510.07364v1).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from probe.hooks import Lane, Now, force, forced_pass, stream
from probe.models import Model, Pair
from probe.problems import Problem
from probe.statistics import share_interval
from probe.steering import Mechanism, random_like
from probe.taxonomy import Taxonomy
from probe.traces import Trace, first_sentence

#: A sentence that is longer is cut there.
_LONGEST = 48


@dataclass(frozen=True)
class Start:
    """Where a sentence begins: the text before it, as both models read it."""

    base: tuple[int, ...]
    thinking: tuple[int, ...]


@dataclass(frozen=True)
class FlipRate:
    """One behaviour, or all together.

    Attributes:
        n: starts at which the unsteered base model writes a sentence of another behaviour.
        rate, ci: the share of them at which it writes one of this behaviour when its vector is added; 95 % interval.
        random: the same with a random vector of the same norm.
        unsteered: the share of *all* starts at which the base model writes one by itself.
    """

    behaviour: int | None
    n: int
    rate: float | None
    ci: tuple[float, float] | None
    random: float | None
    unsteered: float | None


@dataclass(frozen=True)
class FlipRates:
    """The flip rate of every behaviour, and over all of them."""

    all: FlipRate
    per_behaviour: tuple[FlipRate, ...]
    starts: int

    def to_dict(self) -> dict[str, Any]:
        """For ``results.json``."""
        whole = asdict(self.all)
        whole.pop("behaviour")
        return {**whole, "starts": self.starts, "per_behaviour": [asdict(each) for each in self.per_behaviour]}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'all' if each.behaviour is None else each.behaviour}</td><td>{each.n}</td>"
            + "".join(f"<td>{'' if v is None else f'{v:.0%}'}</td>" for v in (each.rate, each.random, each.unsteered))
            + f"<td>{escape(str(each.ci and tuple(round(bound, 2) for bound in each.ci)))}</td></tr>"
            for each in (self.all, *self.per_behaviour)
        )
        head = "<tr><th>behaviour</th><th>n</th><th>flips</th><th>random</th><th>unsteered</th><th>95 %</th></tr>"
        return f"<table>{head}{rows}</table>"


def sentence_starts(
    pair: Pair, traces: Sequence[Trace], problems: Sequence[Problem], most: int, seed: int
) -> list[Start]:
    """Where sentences of some texts begin, but for the first of each; drawn, if there are more than ``most``."""
    starts = []
    for trace, problem in zip(traces, problems, strict=True):
        base, thinking = (tuple(model.prompt_ids(problem.question)) for model in (pair.base, pair.thinking))
        starts += [
            Start(base + trace.tokens[: sentence.token_start], thinking + trace.tokens[: sentence.token_start])
            for sentence in trace.sentences[1:]
        ]
    order = torch.randperm(len(starts), generator=torch.Generator().manual_seed(seed))
    return [starts[i] for i in order[:most].tolist()]


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
    """Add each behaviour's vector where a sentence begins, let the base model go on alone, and see what it wrote.

    Which behaviour a sentence shows the taxonomy says, from the mean state of the thinking model over it, as it was
    fitted. The vector is added at one token, the one that the sentence's first token is predicted from, as strongly as
    the mechanism says itself.

    Args:
        mechanism: one vector for each behaviour of the taxonomy.
        traces, problems: whose texts are gone on with, each model with its own prompt before them.
        behaviours: which are tried; None for all. One at which the two models hardly ever disagree has a vector that
            was hardly ever trained, and should be left out.
        starts: how many.
        seed: draws the starts and the random vectors.
    """
    found = sentence_starts(pair, traces, problems, starts, seed)
    plain = _written(pair, found, None, None, batch_size)
    before = sentence_behaviours(pair.thinking, taxonomy, found, plain)
    random = random_like(mechanism, seed)
    rates, pooled = [], []
    for k in range(taxonomy.n_behaviours) if behaviours is None else behaviours:
        some = [start for start, shown in zip(found, before, strict=True) if shown != k]
        hits = []
        for added in (mechanism, random):
            texts = _written(pair, some, added, k, batch_size)
            hits.append([each == k for each in sentence_behaviours(pair.thinking, taxonomy, some, texts)])
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
    pair: Pair, starts: Sequence[Start], mechanism: Mechanism | None, behaviour: int | None, batch_size: int
) -> list[list[int]]:
    """The sentence that the base model writes at each start; the first token with a vector added, the rest alone."""
    base = pair.base
    layer = None if mechanism is None else mechanism.layer
    read = () if layer is None else (layer,)

    def choose(now: Now) -> tuple[Tensor]:
        tokens = now.steps[0].logits.argmax(-1)
        first = [at for at, count in enumerate(now.fetch(now.counts)) if count == 0]
        if mechanism is not None and layer is not None and first:
            rows = torch.tensor(first, device=tokens.device)
            resid = now.steps[0].resid[layer][rows]
            kind = torch.full_like(rows, behaviour or 0)
            shift = mechanism.shift(resid, mechanism.strength(resid, kind), kind).to(resid.dtype)
            tokens[rows] = now.runners[0].rerun(resid + shift, rows, persistent=mechanism.persistent).argmax(-1)
        return (tokens,)

    lane = Lane(base, [start.base for start in starts], read, layer)
    out: list[list[int]] = [[] for _ in starts]
    for item, (tokens,), _ in stream(
        [lane], choose, ends=set(base.eos_ids), max_new_tokens=_LONGEST, slots=min(batch_size, max(1, len(starts)))
    ):
        out[item] = [*first_sentence(base, tokens)]
    return out


@torch.no_grad()
def sentence_behaviours(
    model: Model, taxonomy: Taxonomy, starts: Sequence[Start], texts: Sequence[Sequence[int]]
) -> list[int | None]:
    """The behaviour of each sentence; None where nothing was written."""
    shown: list[int | None] = [None] * len(texts)
    some = [i for i, text in enumerate(texts) if text]
    site = taxonomy.site
    for at in range(0, len(some), 64):
        part = some[at : at + 64]
        forced = force(model, [starts[i].thinking for i in part], [texts[i] for i in part])
        states = forced_pass(model, forced, site, logits=False).at_tokens(site).float()
        states = states * forced.emitted[..., None]
        means = states.sum(1) / forced.emitted.sum(1, keepdim=True)
        for i, behaviour in zip(part, taxonomy.behaviour(means).tolist(), strict=True):
            shown[i] = behaviour
    return shown
