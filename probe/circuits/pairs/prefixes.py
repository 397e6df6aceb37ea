"""Pairs of prefixes of traces: one is followed by a sentence of a behaviour, the other by another sentence.

Prefixes rarely have equally many tokens. So each prefix of the behaviour is matched with one that is near in length and
in its place in the trace, and the longer of the two is cut on the left.
"""

import re
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.circuits.pairs.pairs import FIRST, Pairs, Row, grouped, shortened
from probe.errors import NotApplicable, ProbeError
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Trace

_MOST_CUT = 0.5
"""The largest share of the longer prefix that is cut, beyond the limit of the context."""
_ANY, _CUT, _PLACE, _PROBLEM = 0.25, 10.0, 0.5, 0.1
"""How far apart two prefixes are: if the longer one is cut at all, for the share of it that is cut, for the difference
of their places in their traces (0 for the beginning, 1 for the end), and for another problem. A cut weighs most, since
it begins at the question and takes away what the model knew."""
_TOGETHER = 4
"""Prefixes of one length that follow each other, so that their pairs fit into one pass."""


def behaviour_pairs(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    behaviour: "Behaviour | str | re.Pattern[str]",
    *,
    problem_set: ProblemSet | None = None,
    n_pairs: int = 64,
    context: int | None = 512,
    seed: int = 0,
) -> Pairs:
    """Make pairs of prefixes of traces: the clean one is followed by a sentence of a behaviour, the corrupt one is not.

    A pair has two different next tokens. Its prefixes are near in length and in their place in the trace, and of one
    problem where such a pair exists. Their texts differ in other ways too, so what is common to all pairs is what makes
    the model begin the behaviour. The longer prefix, and one that is longer than ``context``, loses tokens after its
    first four, which stay as attention sinks.

    The pairs form two halves, see :meth:`Pairs.split`, which share no problem if at least two problems have the
    behaviour. Only the place of each prefix is held, so there may be any number of traces.

    Args:
        model: reads the prefixes, with its own prompt before them.
        traces: the model's own traces.
        problems: the problem of each trace.
        behaviour: the behaviour, or its name as :func:`~probe.find_behaviour` reads it.
        problem_set: the problem set whose sentence types a name may mean.
        n_pairs: the largest number of pairs.
        context: the largest number of tokens of a prefix, prompt included; None for no limit.
        seed: seeds the choice of halves and pairs.

    Raises:
        ProbeError: if nothing has that name, or the context is too short.
        NotApplicable: if no pair exists; the message says what was found.
    """
    if context is not None and context < 2 * FIRST:
        raise ProbeError(f"context is {context}; give at least {2 * FIRST} tokens")
    if len(problems) != len(traces):
        raise ProbeError(f"{len(traces)} traces and {len(problems)} problems: give the problem of each trace")
    wanted = behaviour if isinstance(behaviour, Behaviour) else find_behaviour(behaviour, problem_set=problem_set)
    ends = _ends(model, traces, problems, wanted, context)
    random = np.random.default_rng(seed)
    second, apart = _halves(ends, random)
    chosen: list[tuple[int, int, bool]] = []
    dropped: Counter[str] = Counter()
    for half, n in ((False, n_pairs - n_pairs // 2), (True, n_pairs // 2)) if apart else ((False, n_pairs),):
        found, lost = _matched(ends, second == half if apart else np.ones(len(ends), bool), n, random)
        chosen += [(a, b, half) for a, b in found]
        dropped.update(lost)
    showing = int(ends.shows.sum())
    about: dict[str, Any] = {
        "behaviour": wanted.name,
        "prefixes before it": showing,
        "other prefixes": len(ends) - showing,
        **ends.left_out,
        **dropped,
        "pairs": len(chosen),
        "of one problem": sum(bool(ends.problem[a] == ends.problem[b]) for a, b, _ in chosen),
        "cut on the left": sum(bool(ends.cut(a, b) < max(ends.length[a], ends.length[b])) for a, b, _ in chosen),
        "halves of other problems": apart,
        "context": context,
    }
    if not chosen:
        raise NotApplicable(_none(wanted.name, about, len(traces)))
    return _read(model, traces, problems, ends, chosen, about, apart=apart)


@dataclass(frozen=True)
class _Ends:
    """Where prefixes end, one entry of each array for each prefix.

    Attributes:
        trace: the index of its trace.
        start: its number of tokens of the trace; the sentence begins there.
        length: its number of tokens with the prompt.
        place: its place in the trace, from 0 to 1.
        problem: the number of its problem.
        after: the next token.
        shows: whether the sentence after it shows the behaviour.
        left_out: the sentences that have no prefix, by reason.
        context: the largest number of tokens of a prefix that is read.
    """

    trace: np.ndarray
    start: np.ndarray
    length: np.ndarray
    place: np.ndarray
    problem: np.ndarray
    after: np.ndarray
    shows: np.ndarray
    left_out: dict[str, int]
    context: int

    def __len__(self) -> int:
        return len(self.trace)

    def cut(self, one: Any, other: Any) -> Any:
        """The number of tokens that two prefixes have when they are read."""
        return np.minimum(np.minimum(self.length[one], self.length[other]), self.context)


def _ends(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], behaviour: Behaviour, context: int | None
) -> _Ends:
    """Go over the traces once, one at a time, and note where their sentences begin."""
    columns = [array(kind) for kind in "iiifiib"]
    prompts: dict[str, int] = {}
    numbers: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    marks = behaviour.marks(traces)
    for i, (rollout, problem, marked) in enumerate(zip(traces, problems, marks, strict=True)):
        if problem.question not in prompts:
            prompts[problem.question] = len(model.prompt_ids(problem.question))
        before, numbered = prompts[problem.question], numbers.setdefault(problem.id, len(numbers))
        for sentence, shows in zip(rollout.sentences, marked, strict=True):
            start = sentence.token_start
            if not start:
                left_out["first sentences, which no text precedes"] += 1
            elif start >= len(rollout.tokens):
                left_out["sentences inside a token"] += 1
            else:
                row = (
                    i, start, before + start, start / len(rollout.tokens), numbered, rollout.tokens[start], shows,
                )  # fmt: skip
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
    trace, start, length, place, number, after, shown = (np.array(column) for column in columns)
    most = context or np.iinfo(np.int32).max
    return _Ends(trace, start, length, place, number, after, shown.astype(bool), dict(left_out), most)


def _halves(ends: _Ends, random: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Divide the problems into two halves, each with half of the problems that have the behaviour.

    Returns:
        Whether each prefix is of the second half, and whether there are two halves at all.
    """
    n = int(ends.problem.max(initial=-1)) + 1
    having = np.unique(ends.problem[ends.shows])
    others = np.setdiff1d(np.arange(n), having)
    second = np.zeros(n, bool)
    for some in (having, others):
        second[random.permutation(some)[1::2]] = True
    return second[ends.problem], len(having) > 1


def _matched(
    ends: _Ends, inside: np.ndarray, n: int, random: np.random.Generator
) -> tuple[list[tuple[int, int]], Counter[str]]:
    """Match prefixes of the behaviour, one problem after the other, each with the nearest other prefix that is left.

    Returns:
        The pairs, and the number of prefixes of the behaviour for which there is none, by reason.
    """
    showing = _in_turn(ends, random.permutation(np.flatnonzero(inside & ends.shows)))
    others = random.permutation(np.flatnonzero(inside & ~ends.shows))
    free = np.ones(len(others), bool)
    length, found, dropped = np.minimum(ends.length[others], ends.context), [], Counter[str]()
    for a in showing:
        if len(found) == n:
            break
        own = min(ends.length[a], ends.context)
        cut = np.abs(length - own) / np.maximum(length, own)
        fits = free & (cut <= _MOST_CUT)
        differs = fits & (ends.after[others] != ends.after[a])
        if not differs.any():
            dropped["no prefix of similar length was left" if not fits.any() else "same next token as all others"] += 1
            continue
        far = _ANY * (cut > 0) + _CUT * cut + _PLACE * np.abs(ends.place[others] - ends.place[a])
        far += _PROBLEM * (ends.problem[others] != ends.problem[a])
        at = int(np.where(differs, far, np.inf).argmin())
        free[at] = False
        found.append((a, int(others[at])))
    return found, dropped


def _in_turn(ends: _Ends, some: np.ndarray) -> list[int]:
    """Order prefixes so that problems take turns, and then bring a few of one length together."""
    met: Counter[int] = Counter()
    turns = []
    for problem in ends.problem[some].tolist():
        turns.append(met[problem])
        met[problem] += 1
    waiting: dict[int, deque[int]] = defaultdict(deque)
    order = some[np.argsort(turns, kind="stable")].tolist()
    lengths = {a: int(min(ends.length[a], ends.context)) for a in order}
    for a in order:
        waiting[lengths[a]].append(a)
    found: dict[int, None] = {}
    for a in order:
        if a not in found:
            same = waiting[lengths[a]]
            found |= dict.fromkeys(same.popleft() for _ in range(min(_TOGETHER, len(same))))
    return list(found)


def _read(
    model: Model,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    ends: _Ends,
    chosen: Sequence[tuple[int, int, bool]],
    about: dict[str, Any],
    *,
    apart: bool,
) -> Pairs:
    """Read the tokens of the chosen prefixes."""

    def prefix(end: int, length: int) -> list[int]:
        i, start = int(ends.trace[end]), int(ends.start[end])
        return shortened([*model.prompt_ids(problems[i].question), *traces[i].tokens[:start]], length)

    rows: dict[int, list[Row]] = defaultdict(list)
    second: dict[int, list[bool]] = defaultdict(list)
    for a, b, half in sorted(chosen, key=lambda each: int(ends.cut(each[0], each[1]))):
        length = int(ends.cut(a, b))
        rows[length].append((prefix(a, length), prefix(b, length), int(ends.after[a]), int(ends.after[b])))
        second[length].append(half)
    return grouped(model, rows, second if apart else None, about)


def _none(name: str, about: dict[str, Any], n: int) -> str:
    """Say why there is no pair, and what to do."""
    there, others = about["prefixes before it"], about["other prefixes"]
    if not there:
        found, do = f"no sentence after the first of a trace shows {name!r}", "give more traces, or another behaviour"
    elif not others:
        found, do = f"every sentence after the first of a trace shows {name!r}", "name another behaviour"
    else:
        found = (
            f"{there} prefixes precede a sentence that shows {name!r} and {others} another one, but no two of similar "
            "length differ in the next token"
        )
        do = "give more traces, or a smaller context"
    return f"no pairs of prefixes in {n} traces: {found}; {do}"
