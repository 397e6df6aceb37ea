"""Adding the mean difference of two models to one of them, and measuring and reading what it then writes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits import start_tokens
from probe.config import nearest
from probe.diff.difference import PLACES, ActivationDifference
from probe.errors import ProbeError
from probe.hooks import Add, edit
from probe.html import html_table
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.statistics import Interval, mean_interval
from probe.taxonomy import Behaviour
from probe.traces import Traces, generate_traces

_SHOWN = 3
"""Number of problems whose texts are kept."""


@dataclass(frozen=True)
class Effect:
    """One measure of the texts that a model writes with a vector added.

    Attributes:
        strength: factor of the vector.
        measure: ``favoured`` for the share of tokens that the thinking model favours, or ``behaviour`` for the share of
            sentences that show the behaviour.
        plain: the mean over problems without a vector.
        steered: the same with the mean difference.
        random: the same with random vectors of the same norm.
        more_than_random: steered minus random, paired by problem.
    """

    strength: float
    measure: str
    plain: Interval
    steered: Interval
    random: Interval
    more_than_random: Interval


@dataclass(frozen=True)
class SteeredTexts:
    """What a model writes when the mean difference is added to it.

    Attributes:
        model: name of the model.
        place: where the difference was averaged, a key of :data:`PLACES`.
        effects: one for each strength and measure.
        texts: for the first problems, the question and the text with each vector: ``plain``, and for the largest
            strength ``steered`` and ``random``.
    """

    model: str
    place: str
    effects: tuple[Effect, ...]
    texts: tuple[Mapping[str, str], ...]

    def __repr__(self) -> str:
        strengths = ", ".join(sorted({f"{each.strength:g}" for each in self.effects}))
        return f"SteeredTexts({self.model}, {self.place}, strengths {strengths})"

    def _repr_html_(self) -> str:
        rows = [
            (f"× {each.strength:g}", each.measure, each.plain, each.steered, each.random, each.more_than_random)
            for each in self.effects
        ]
        head = ("strength", "measure", "plain", "steered", "random", "steered − random")
        kinds = ("question", "plain", "steered", "random")
        texts = html_table(kinds, [[text.get(kind, "") for kind in kinds] for text in self.texts])
        return html_table(head, rows, f"{self.model} with the difference of {self.place} added") + texts

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON."""
        sides = ("plain", "steered", "random", "more_than_random")
        return {
            "model": self.model,
            "place": self.place,
            "effects": [
                {"strength": each.strength, "measure": each.measure}
                | {side: getattr(each, side).to_dict() for side in sides}
                for each in self.effects
            ],
            "texts": [dict(each) for each in self.texts],
        }


def steer_with_difference(
    model: Model,
    found: ActivationDifference,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    *,
    place: str = "traces",
    ends: Traces | None = None,
    strengths: Sequence[float] = (1.0, 4.0),
    behaviour: Behaviour | None = None,
    max_new_tokens: int = 64,
    n_random: int = 3,
    seed: int = 0,
) -> SteeredTexts:
    """Add the mean difference to a model's states, let it write, and compare with random vectors of the same norm.

    The vector is added at every token. That of ``sentence ends`` is added only at tokens that end a sentence in
    ``ends``. It stays in the cache, so it acts on later tokens too.

    Args:
        model: the base, to see what the difference adds to it, or the thinking model.
        found: the difference.
        problem_set: grades the answers.
        problems: the problems; their traces must not be those of the difference.
        place: which difference is added, a key of :data:`PLACES`.
        ends: traces that show which tokens end a sentence, needed for ``sentence ends``.
        strengths: factors of the vector. A large one breaks the model, so read its texts.
        behaviour: its share of sentences is measured too; None for none.
        max_new_tokens: number of tokens of a text.
        n_random: number of random vectors.
        seed: seeds them.

    Raises:
        ProbeError: for an unknown place, one without a difference, or without the traces that it needs; without
            problems, strengths or random vectors.
    """
    for name, given in (("problems", len(problems)), ("strengths", len(strengths)), ("n_random", n_random)):
        if not given:
            raise ProbeError(f"{name} is empty: texts are written for one problem, strength and random vector or more")
    if place not in found.vectors:
        raise ProbeError(f"there is no difference at {place!r}; {nearest(place, tuple(found.vectors) or PLACES)}")
    if place == "sentence ends" and ends is None:
        raise ProbeError("the difference of sentence ends is added where sentences end: give traces as ends=")
    tokens = start_tokens(ends) if ends is not None and place == "sentence ends" else None
    vector = found.vectors[place]
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(len(vector), generator=generator) for _ in range(n_random)]
    noise = [each / each.norm() * vector.norm() for each in noise]

    def written(added: Tensor | None, strength: float = 1.0) -> Traces:
        changed: Callable[[], AbstractContextManager[Any]] = nullcontext
        if added is not None:
            operation = Add(added.to(model.device), strength, tokens=tokens)
            changed = lambda: edit(model, {f"resid_post.{found.layer}": operation})  # noqa: E731
        with changed():
            return generate_traces(model, problem_set, problems, max_new_tokens=max_new_tokens)

    def measured(texts: Traces) -> dict[str, Float[np.ndarray, " problems"]]:
        wanted = set(found.favoured_ids)
        known = {"favoured": [sum(t in wanted for t in each.tokens) / max(1, len(each.tokens)) for each in texts]}
        if behaviour is not None:
            known["behaviour"] = [sum(marks) / max(1, len(marks)) for marks in behaviour.marks(texts)]
        return {name: np.asarray(values, dtype=float) for name, values in known.items()}

    first = written(None)
    plain, effects, texts = measured(first), [], {"plain": first}
    for strength in strengths:
        texts["steered"] = written(vector, strength)
        others = [written(each, strength) for each in noise]
        texts["random"] = others[0]
        steered, random = measured(texts["steered"]), [measured(each) for each in others]
        for name, values in steered.items():
            rows = np.stack([each[name] for each in random])
            sides = (plain[name], values, rows, values - rows)
            effects.append(Effect(strength, name, *(mean_interval(each, seed=seed) for each in sides)))
    shown = tuple(
        {"question": problem.question} | {name: each[i].text for name, each in texts.items()}
        for i, problem in enumerate(problems[:_SHOWN])
    )
    return SteeredTexts(model.name, place, tuple(effects), shown)
