"""Packs the traces that a page shows into few bytes: every problem and arm, long traces cut in the middle."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from probe.reports.run.arms import in_order
from probe.reports.run.columns import page_tokens, to_columns

BUDGET = 1_800_000
"""Bytes of a page that its traces may take. With the plotting library, which takes 4.8 MB, a page stays under 7 MB."""
_LEAST = 400
"""The fewest bytes of an arm's answer; if not even these fit for all problems, the last problems are left out."""
_AROUND = 3
"""Tokens that are kept on either side of a steered stretch."""


def compact(shown: Iterable[Mapping[str, Any]], budget: int = BUDGET) -> list[dict[str, Any]]:
    """Take the problems of ``shown.json`` into ``budget`` bytes of JSON.

    Tokens are those of :func:`page_tokens`; a number in their place is how many were left out there. ``asked`` is
    whether the thinking model ran beside the arm. An arm without recorded tokens keeps its text, which is cut into
    ``text`` and ``end`` with ``left_out`` characters between them. ``correct`` is None if the answer could not be
    graded. Answers are cut to the largest length with which all fit; the beginning, the end and steered stretches stay.
    """
    problems = list(shown)
    frames, sizes = [], []
    for problem in problems:
        arms = problem.get("arms") or {}
        frame = {
            "id": problem.get("problem_id", ""),
            "question": problem.get("question", ""),
            "answer": problem.get("answer", ""),
            "arms": in_order(arms),
        }
        frames.append(frame)
        sizes.append([_size(_arm(name, arms[name])) for name in frame["arms"]])
    left = budget
    for kept, (frame, arms) in enumerate(zip(frames, sizes, strict=True)):
        left -= _size(frame) + sum(min(size, _LEAST) for size in arms)
        if left < 0:
            problems, frames, sizes = problems[:kept], frames[:kept], sizes[:kept]
            break
    most = _most([size for arms in sizes for size in arms], budget - sum(map(_size, frames)))
    found = []
    for problem, frame, lengths in zip(problems, frames, sizes, strict=True):
        arms = [_arm(name, problem["arms"][name]) for name in frame["arms"]]
        whole = zip(arms, lengths, strict=True)
        found.append(frame | {"arms": [arm if size <= most else _cut(arm, most) for arm, size in whole]})
    return found


def _size(value: Any) -> int:
    return len(json.dumps(value)) + 2


def _most(sizes: Sequence[int], budget: int) -> int:
    """The largest length with which all fit if longer ones are cut to it."""
    left = budget
    for i, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - i)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _arm(name: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    tokens, correct = arm.get("tokens"), arm.get("correct")
    if not tokens:
        return {"name": name, "correct": correct, "text": arm.get("text", "")}
    columns: Any = tokens if isinstance(tokens, Mapping) else to_columns(tokens)
    asked = columns["thinking"] is not None
    return {"name": name, "correct": correct, "asked": asked, "tokens": page_tokens(columns)}


def _cut(arm: dict[str, Any], most: int) -> dict[str, Any]:
    """An answer of at most about so many bytes."""
    room = most - _size(arm | ({"tokens": []} if "tokens" in arm else {"text": "", "left_out": 0, "end": ""}))
    if "tokens" not in arm:
        text = arm["text"]
        scale = len(text) / max(1, len(json.dumps(text)))  # characters that take several bytes
        half = max(1, int(room * scale) // 2)
        return arm | {"text": text[:half], "left_out": len(text) - 2 * half, "end": text[-half:]}
    texts: dict[str, int] = {}
    costs = [
        (texts.get(token) or texts.setdefault(token, _size(token))) if isinstance(token, str) else _size(token)
        for token in arm["tokens"]
    ]
    keep = _kept(costs, [isinstance(token, list) and bool(token[1]) for token in arm["tokens"]], room)
    tokens: list[Any] = []
    gap = 0
    for token, kept in zip(arm["tokens"], keep, strict=True):
        if kept:
            tokens += [gap, token] if gap else [token]
            gap = 0
        else:
            gap += 1
    return arm | {"tokens": [*tokens, gap] if gap else tokens}


def _kept(costs: Sequence[int], steered: Sequence[bool], room: int) -> list[bool]:
    """Which tokens stay: a third of the room for each end, and then steered stretches, evenly over the trace."""
    n = len(costs)
    keep = [False] * n
    for order in (range(n), range(n - 1, -1, -1)):
        third = room // 3
        for i in order:
            third -= costs[i]
            if third < 0:
                break
            keep[i] = True
    left = room - sum(cost for cost, kept in zip(costs, keep, strict=True) if kept)
    gap = _size(n)
    stretches: list[list[int]] = []
    for i in range(n):
        if not keep[i] and any(steered[max(0, i - _AROUND) : i + _AROUND + 1]):
            if stretches and stretches[-1][-1] == i - 1:
                stretches[-1].append(i)
            else:
                stretches.append([i])
    wanted = sum(gap + sum(costs[i] for i in stretch) for stretch in stretches)
    every = max(1, -(-wanted // max(1, left)))
    for stretch in (*stretches[every // 2 :: every], range(n)):
        left -= gap
        for i in stretch:
            if not keep[i]:
                left -= costs[i]
                if left < 0:
                    return keep
                keep[i] = True
    return keep
