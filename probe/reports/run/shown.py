"""The traces that a page shows, in few bytes."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from probe.reports.run.arms import in_order

#: Bytes of a page that its traces may take. The plotting library takes 4.8 MB; a page stays under 7 MB.
BUDGET = 1_800_000


def compact(shown: Iterable[Mapping[str, Any]], budget: int = BUDGET) -> list[dict[str, Any]]:
    """The problems of ``shown.json`` that fit into ``budget`` bytes of JSON, the first ones first.

    A token that was not steered and that both models agree on becomes its text alone; any other becomes
    ``[text, steered, behaviour, strength, base, thinking]``. ``asked`` says whether the thinking model was run beside
    the arm at all. An arm without a record of its tokens keeps its text. ``correct`` stays None where the answer could
    not be graded.
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
