"""Packs the traces that a page shows into few bytes: every problem and arm, long traces cut in the middle."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from probe.reports.run.arms import in_order
from probe.reports.run.columns import Columns, page_sizes, page_tokens, to_columns

BUDGET = 1_800_000
"""Bytes of a page that its traces may take. With the plotting library, which takes 4.8 MB, a page stays under 7 MB."""
_LEAST = 400
"""The fewest bytes of an arm's answer; if not even these fit for all problems, the last problems are left out."""
_AROUND = 3
"""Tokens that are kept on either side of a steered one."""
_STRETCH = 40
"""The most tokens of a stretch; where an arm is steered for longer, parts of it are kept."""


def compact(shown: Iterable[Mapping[str, Any]], budget: int = BUDGET) -> list[dict[str, Any]]:
    """Take the problems of ``shown.json`` into ``budget`` bytes of a page.

    Tokens are those of :func:`page_tokens`; a number in their place is how many were left out there, and then
    ``steered`` is how many of all tokens were steered. ``asked`` is whether the thinking model ran beside the arm. An
    arm without recorded tokens keeps its text, which is cut into ``text`` and ``end`` with ``left_out`` characters
    between them. ``correct`` is None if the answer could not be graded. Answers are cut to the largest length with
    which all fit; the beginning, the end and steered stretches stay.
    """
    problems = list(shown)
    frames, sizes = [], []
    for problem in problems:
        arms = problem.get("arms") or {}
        frame = {
            "id": problem.get("problem_id", ""),
            "question": problem.get("question", ""),
            "answer": problem.get("answer") or "not known",
            "arms": in_order(arms),
        }
        frames.append(frame)
        sizes.append([_size_of_arm(name, arms[name]) for name in frame["arms"]])
    left = budget
    for kept, (frame, lengths) in enumerate(zip(frames, sizes, strict=True)):
        left -= _size(frame) + sum(min(size, _LEAST) for size in lengths)
        if left < 0:
            problems, frames, sizes = problems[:kept], frames[:kept], sizes[:kept]
            break
    most = _most([size for lengths in sizes for size in lengths], budget - sum(map(_size, frames)))
    found = []
    for problem, frame, lengths in zip(problems, frames, sizes, strict=True):
        arms = ((name, problem["arms"][name], size) for name, size in zip(frame["arms"], lengths, strict=True))
        found.append(
            frame | {"arms": [_whole(name, arm) if size <= most else _cut(name, arm, most) for name, arm, size in arms]}
        )
    return found


def _size(value: Any) -> int:
    """The bytes of a value in a page, with the comma after it; an apostrophe or ``<`` takes six."""
    from jinja2.utils import htmlsafe_json_dumps

    return len(htmlsafe_json_dumps(value)) + 2


# Most tokens occur in many arms. 1 and 1.0 are equal and have other lengths.
_size_once = lru_cache(maxsize=100_000, typed=True)(_size)


def _most(sizes: Sequence[int], budget: int) -> int:
    """The largest length with which all fit if longer ones are cut to it."""
    left = budget
    for i, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - i)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _columns(arm: Mapping[str, Any]) -> Columns | None:
    tokens: Any = arm.get("tokens")
    # Earlier versions wrote an object for each token.
    return to_columns(tokens) if tokens and isinstance(tokens, list) else tokens or None


def _empty(name: str, arm: Mapping[str, Any], columns: Columns | None) -> dict[str, Any]:
    """An arm without its answer."""
    head = {"name": name, "correct": arm.get("correct")}
    return head | ({"asked": columns["thinking"] is not None, "tokens": []} if columns else {"text": ""})


def _whole(name: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    columns = _columns(arm)
    return _empty(name, arm, columns) | (
        {"tokens": page_tokens(columns)} if columns else {"text": arm.get("text") or ""}
    )


def _size_of_arm(name: str, arm: Mapping[str, Any]) -> int:
    columns = _columns(arm)
    if columns:
        return _size(_empty(name, arm, columns)) + int(page_sizes(columns, _size_once).sum())
    return _size(_whole(name, arm))


def _cut(name: str, arm: Mapping[str, Any], most: int) -> dict[str, Any]:
    """An arm whose answer is cut to at most so many bytes."""
    columns = _columns(arm)
    empty = _empty(name, arm, columns)
    if columns is None:
        text = arm.get("text") or ""
        size = {character: _size_once(character) - _size("") for character in set(text)}
        sizes = np.array([size[character] for character in text], dtype=int)
        beginning, end = _ends(sizes, (most - _size(empty | {"left_out": len(text), "end": ""})) // 2)
        n_end = int(end.sum())
        text, end = text[: int(beginning.sum())], text[len(text) - n_end :]
        return empty | {"text": text, "left_out": len(sizes) - len(text) - n_end, "end": end}
    empty["steered"] = len(columns["steered"]["at"])
    steered = np.zeros(len(columns["emitted"]), dtype=bool)
    steered[columns["steered"]["at"]] = True
    keep = np.flatnonzero(_kept(page_sizes(columns, _size_once), steered, most - _size(empty))).tolist()
    tokens: list[Any] = []
    for (before, i), token in zip(pairwise([-1, *keep]), page_tokens(columns, keep), strict=True):
        tokens += [token] if i == before + 1 else [i - before - 1, token]
    after = len(steered) - 1 - (keep[-1] if keep else -1)
    return empty | {"tokens": [*tokens, after] if after else tokens}


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
