"""Packs the traces that a page shows into few bytes."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from probe.reports.run.arms import in_order

BUDGET = 1_800_000
"""Bytes of a page that its traces may take. With the plotting library, which takes 4.8 MB, a page stays under 7 MB."""


def compact(shown: Iterable[Mapping[str, Any]], budget: int = BUDGET) -> list[dict[str, Any]]:
    """Take the first problems of ``shown.json`` that fit into ``budget`` bytes of JSON.

    An unsteered token on which both models agree becomes its text alone; any other token becomes
    ``[text, steered, behaviour, strength, base, thinking]``. ``asked`` is whether the thinking model ran beside the
    arm. An arm without recorded tokens keeps its text. ``correct`` is None if the answer could not be graded.
    """
    problems, size = [], 0
    for problem in shown:
        arms = problem.get("arms") or {}
        small = {
            "id": problem.get("problem_id", ""),
            "question": problem.get("question", ""),
            "answer": problem.get("answer", ""),
            "arms": [{"name": name, **_arm(arms[name])} for name in in_order(arms)],
        }
        size += len(json.dumps(small))
        if size > budget:
            break
        problems.append(small)
    return problems


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    tokens = arm.get("tokens")
    correct = arm.get("correct")
    if not tokens:
        return {"correct": correct, "text": arm.get("text", "")}
    asked = any(token.get("thinking") is not None for token in tokens)
    return {"correct": correct, "asked": asked, "tokens": [_token(token, asked) for token in tokens]}


def _token(token: Mapping[str, Any], asked: bool) -> str | list[Any]:
    text, steered = token["text"], bool(token.get("steered"))
    base, thinking = token.get("base"), token.get("thinking")
    if not steered and base == text and (thinking == text or not asked):
        return text
    return [text, int(steered), token.get("behaviour"), token.get("strength"), base, thinking]
