"""Packs the traces that a page shows into few bytes: every problem and arm, long traces cut in the middle."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from probe.cycles import end_cycle
from probe.html import fair_share
from probe.reports.run.arms import in_order
from probe.reports.run.columns import Columns, page_sizes, page_tokens, to_columns

BUDGET = 1_800_000
"""Bytes of a page that its traces may take. With the plotting library, which takes 4.8 MB, a page stays under 7 MB."""
_LEAST = 400
"""The minimum number of bytes of an arm's text. If these do not fit for all problems, the last ones are left out."""
_QUESTION, _ANSWER = 6000, 200
"""The maximum number of characters of a question, and of an answer."""
_LOOP = 48
"""The smallest number of tokens of a loop, and the number of tokens at its end that are shown."""
_AROUND = 3
"""Tokens that are kept on either side of a steered one."""
_STRETCH = 40
"""The most tokens of a stretch; where an arm is steered for longer, parts of it are kept."""


def compact(shown: Iterable[Mapping[str, Any]], budget: int = BUDGET) -> list[dict[str, Any]]:
    """Take the problems of ``shown.json`` into ``budget`` bytes of a page.

    Tokens are those of :func:`page_tokens`. A number among them says how many tokens were left out there; ``steered``
    is then the number of steered tokens of the whole answer. ``asked`` says whether the thinking model ran beside the
    arm. An arm without recorded tokens keeps its text; if it is cut, ``left_out`` characters are missing between
    ``text`` and ``end``. ``thinking`` is the number of tokens, or of characters of the text, up to the end of the
    thinking. For a loop at the end, ``loop`` holds the length of its cycle in tokens or characters and the number of
    repetitions; the first two repetitions and the end of the last one are shown. ``correct`` is None if the answer
    could not be graded. Answers are cut to the largest length with which all fit; the beginning, the end and steered
    stretches are kept.
    """
    problems = [_Problem(problem) for problem in shown]
    left = budget
    for kept, problem in enumerate(problems):
        left -= problem.frame_size + sum(min(arm.size, _LEAST) for arm in problem.arms)
        if left < 0 and kept:  # at least one problem is shown
            problems = problems[:kept]
            break
    room = budget - sum(problem.frame_size for problem in problems)
    most = max(_LEAST, fair_share([arm.size for problem in problems for arm in problem.arms], room))
    return [problem.frame | {"arms": [arm.cut(most) for arm in problem.arms]} for problem in problems]


def is_cut(arm: Mapping[str, Any]) -> bool:
    """Whether a part of an arm of :func:`compact` was left out."""
    return "left_out" in arm or any(isinstance(token, int) for token in arm.get("tokens", ()))


def _size(value: Any) -> int:
    """The bytes of a value in a page, with the comma after it; an apostrophe or ``<`` takes six."""
    from jinja2.utils import htmlsafe_json_dumps

    return len(htmlsafe_json_dumps(value)) + 2


# Most tokens occur in many arms. 1 and 1.0 are equal and have other lengths.
_size_once = lru_cache(maxsize=100_000, typed=True)(_size)


class _Problem:
    """A problem, and its arms in order."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        arms = problem.get("arms") or {}
        question, answer = problem.get("question", ""), problem.get("answer") or "not known"
        self.frame = {
            "id": problem.get("problem_id", ""),
            "question": _short(question, _QUESTION),
            "answer": _short(answer, _ANSWER),
        }
        self.arms = [_arm(name, arms[name]) for name in in_order(arms)]
        self.frame_size = _size(self.frame) + _size({"arms": []}) + sum(_size(arm.head) for arm in self.arms)


def _arm(name: str, arm: Mapping[str, Any]) -> "_Tokens | _Text":
    tokens: Any = arm.get("tokens")
    head = {"name": name, "correct": arm.get("correct")}
    head |= {key: arm[key] for key in ("truncated", "samples") if arm.get(key) is not None}
    if "answer" in arm:
        head["answer"] = None if arm["answer"] is None else _short(arm["answer"], _ANSWER)
    if not tokens:
        return _Text(head, arm.get("text") or "", arm.get("think_end"))
    # Earlier versions wrote one object for each token.
    return _Tokens(head, to_columns(tokens) if isinstance(tokens, list) else tokens, arm.get("think_end"))


class _Tokens:
    """An arm with recorded tokens."""

    def __init__(self, head: dict[str, Any], columns: Columns, think_end: int | None) -> None:
        self.columns = columns
        self.head = head | {"asked": columns["thinking"] is not None, "steered": len(columns["steered"]["at"])}
        emitted = columns["emitted"]
        if think_end:
            ends = accumulate(len(columns["texts"][number]) for number in emitted)
            self.head["thinking"] = sum(end <= think_end for end in ends)
        self.fits = np.ones(len(emitted), dtype=bool)
        loop = end_cycle(emitted, _LOOP)
        if loop:
            self.head["loop"] = [loop[1], (len(emitted) - loop[0]) // loop[1]]
            self.fits[loop[0] + 2 * loop[1] : len(emitted) - _LOOP] = False
        self.sizes = np.where(self.fits, page_sizes(columns, _size_once), 0)
        self.head["tokens"] = []
        self.size = int(self.sizes.sum()) + (0 if self.fits.all() else _size_once(len(emitted)))

    def cut(self, most: int) -> dict[str, Any]:
        """The arm, with its tokens cut to at most ``most`` bytes."""
        keep = self.fits
        if self.size > most:
            steered = np.zeros(len(self.fits), dtype=bool)
            steered[self.columns["steered"]["at"]] = True
            keep = keep & _kept(self.sizes, steered & keep, most)
        places = np.flatnonzero(keep).tolist()
        tokens: list[Any] = []
        for (before, i), token in zip(pairwise([-1, *places]), page_tokens(self.columns, places), strict=True):
            tokens += [token] if i == before + 1 else [i - before - 1, token]
        after = len(keep) - 1 - (places[-1] if places else -1)
        return self.head | {"tokens": [*tokens, after] if after else tokens}


class _Text:
    """An arm without recorded tokens."""

    def __init__(self, head: dict[str, Any], text: str, think_end: int | None) -> None:
        self.text, self.think_end = text, think_end
        self.head = head | {"text": ""}
        self.size = _size(text)
        if think_end:
            self.head["thinking"] = think_end
        # Without tokens, a loop must have as many characters as its minimum number of tokens usually has.
        loop = end_cycle(text, 4 * _LOOP)
        self.shown = (len(text), 0)
        if loop:
            self.head["loop"] = [loop[1], (len(text) - loop[0]) // loop[1]]
            self.shown = min(loop[0] + 2 * loop[1], len(text)), 4 * _LOOP

    def cut(self, most: int) -> dict[str, Any]:
        """The arm, with its text cut to at most ``most`` bytes."""
        text, (first, last) = self.text, self.shown
        if first + last >= len(text):
            first, last = len(text), 0
        if self.size > most:
            size = {character: _size_once(character) - _size("") for character in set(text)}
            sizes = np.array([size[character] for character in text], dtype=int)
            beginning, end = _ends(sizes, (most - _size({"left_out": len(text), "end": ""})) // 2)
            first, last = min(first, int(beginning.sum())), int(end.sum()) if not last else min(last, int(end.sum()))
        if first + last >= len(text):
            return self.head | {"text": text}
        end = len(text) - last
        return self.head | {"text": text[:first], "left_out": end - first, "end": text[end:]}


def _short(text: Any, most: int) -> Any:
    return f"{text[:most]}…" if isinstance(text, str) and len(text) > most else text


def _ends(sizes: Int[np.ndarray, " n"], room: int) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """What fits into ``room`` at the beginning, and at the end."""
    return np.cumsum(sizes) <= room, np.cumsum(sizes[::-1])[::-1] <= room


def _kept(sizes: Int[np.ndarray, " n"], steered: Bool[np.ndarray, " n"], room: int) -> Bool[np.ndarray, " n"]:
    """Which tokens stay: a third of the room for each end, and then steered stretches, evenly over the trace."""
    beginning, end = _ends(sizes, room // 3)
    keep = beginning | end
    gap = _size(len(sizes))
    left = room - int(sizes[keep].sum()) - gap
    near = steered.copy()
    for by in range(1, _AROUND + 1):
        near[by:] |= steered[:-by]
        near[:-by] |= steered[by:]
    stretches = _stretches(np.flatnonzero(near & ~keep))
    wanted = sum(gap + int(sizes[stretch].sum()) for stretch in stretches)
    every = max(1, -(-wanted // max(1, left)))
    for stretch in stretches[every // 2 :: every]:
        size = gap + int(sizes[stretch].sum())
        if size <= left:
            keep[stretch] = True
            left -= size
    # What room is left makes the beginning longer.
    return keep | (np.cumsum(np.where(keep, 0, sizes)) <= left)


def _stretches(places: Int[np.ndarray, " places"]) -> list[Int[np.ndarray, " tokens"]]:
    """Cut increasing places into stretches without gaps, none longer than ``_STRETCH``."""
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    return [run[i : i + _STRETCH] for run in runs for i in range(0, len(run), _STRETCH)]
