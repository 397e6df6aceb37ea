"""Where sentences of a behaviour begin, and with which tokens, against other sentences of the same traces."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.errors import NotApplicable
from probe.models import Model, place
from probe.problems import Problem
from probe.taxonomy import Behaviour
from probe.traces import Trace


@dataclass(frozen=True)
class StartText:
    """A trace as a model reads it.

    Attributes:
        ids: token ids, the prompt included.
        places: indices in ``ids`` of the first token of each sentence.
        shows: whether each of these sentences shows the behaviour.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    shows: tuple[bool, ...]


@dataclass(frozen=True)
class Starts:
    """The starts of a behaviour's sentences, and the tokens that begin these more often than others.

    Attributes:
        name: the name of the behaviour.
        more: for each token that begins sentences, its share of the behaviour's sentences minus its share of the
            others, counted on the traces of every second problem.
        measured: the other traces, those that have sentences of both sorts.
    """

    name: str
    more: dict[int, float]
    measured: tuple[StartText, ...]

    def tokens(self, n: int = 8) -> list[int]:
        """The tokens that begin the behaviour's sentences more often than others, the clearest first."""
        return sorted((token for token in self.more if self.more[token] > 0), key=lambda token: -self.more[token])[:n]

    def towards(self, model: Model) -> Float[Tensor, " d_model"]:
        """The direction of the unembedding from the tokens that begin other sentences to those of the behaviour."""
        unembed: Any = model.hf.get_submodule(place(model.hf, "logits").module)
        tokens = list(self.more)
        weights = torch.tensor([self.more[token] for token in tokens], device=model.device)
        rows = unembed.weight.detach()[tokens].to(model.device).float()
        return (weights[:, None] * rows).sum(0) / weights.clamp_min(0).sum()


def sentence_starts(model: Model, traces: Sequence[Trace], problems: Sequence[Problem], behaviour: Behaviour) -> Starts:
    """Find where sentences begin, and count their first tokens on the traces of every second problem.

    The first sentence of a trace is left out, because nothing of the trace comes before it.

    Args:
        model: the model that reads, with its own prompt before each trace.
        traces: traces with sentences.
        problems: the problem of each trace.
        behaviour: any behaviour.

    Raises:
        NotApplicable: if no trace of either half has sentences of both sorts, or they begin alike.
    """
    texts, halves = [], []
    numbers: dict[str, int] = {}
    for trace, problem, shown in zip(traces, problems, behaviour.marks(traces), strict=True):
        prompt = model.prompt_ids(problem.question)
        there = [
            (len(prompt) + sentence.token_start, bool(shows))
            for sentence, shows in zip(trace.sentences, shown, strict=True)
            if 0 < sentence.token_start < len(trace.tokens)
        ]
        ids = (*prompt, *trace.tokens)
        texts.append(StartText(ids, tuple(at for at, _ in there), tuple(shows for _, shows in there)))
        halves.append(numbers.setdefault(problem.id, len(numbers)) % 2)
    model.check_ids([list(text.ids) for text in texts])
    counted: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for text in itertools.compress(texts, [half == 0 for half in halves]):
        for at, shows in zip(text.places, text.shows, strict=True):
            counted[shows][text.ids[at]] += 1
    other, own = counted
    rest = itertools.compress(texts, halves)
    measured = tuple(text for text in rest if any(text.shows) and not all(text.shows))
    if not own or not other or not measured:
        raise NotApplicable(
            f"too few traces have both sentences that show {behaviour.name!r} and others; give more traces"
        )
    more = {
        token: own[token] / own.total() - other[token] / other.total() for token in sorted(own.keys() | other.keys())
    }
    if not max(more.values()) > 0:
        raise NotApplicable(f"sentences that show {behaviour.name!r} begin with the same tokens as others")
    return Starts(behaviour.name, more, measured)
