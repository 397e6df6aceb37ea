"""What ``results.json`` of ``probe anchors`` says about each sentence and token."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from probe.anchors import Anchors, Continuations, ForcedAnswers, PivotalTokens, Resilience


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def sentence_rows(found: Anchors) -> Iterator[dict[str, Any]]:
    """The importance of each sentence but the last."""
    for i, (effect, shift) in enumerate(zip(found.effects, found.shifts, strict=True)):
        yield {
            "accuracy": _number(found.accuracy[i + 1]),
            "importance": effect.to_dict(),
            "shift": shift.divergence.to_dict(),
            "p": shift.p,
            "q": _number(found.q[i]),
            "others": found.others[i],
            "back": _number(found.back[i]),
            "gone": found.gone[i].divergence.to_dict(),
        }


def counted(found: Sequence[Continuations], failed: int = 0) -> dict[str, int]:
    """Count the rollouts in place of all sentences, and those that did not come to an end.

    Args:
        found: the rollouts in place of each sentence.
        failed: how many could not be read.
    """
    told = {"rollouts": sum(map(len, found)) + failed, "rollouts failed": failed}
    told["rollouts without an answer"] = sum(answer is None for each in found for answer in each.answers)
    if all(each.cut or not len(each) for each in found):  # else it is not known
        told["rollouts stopped by the limit on tokens"] = sum(sum(each.cut) for each in found)
    return told


def counted_chains(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the chains of all sentences, and those that did not come to an end.

    Args:
        rows: from :func:`resilience_rows`.
    """
    return {
        "chains": sum(len(row["rounds"]) for row in rows),
        "chains given up as too long": sum(row.get("given_up", 0) for row in rows),
        "chains stopped by the limit on tokens": sum(row.get("truncated", 0) for row in rows),
    }


def resilience_rows(found: Resilience) -> list[dict[str, Any]]:
    """The resilience of each sentence."""
    return [
        {
            "rounds": list(rounds),
            **mean.to_dict(),
            "remains": remains,
            "limit": found.limit,
            "given_up": given_up,
            "truncated": sum(final.cut),
        }
        for rounds, mean, remains, given_up, final in zip(
            found.rounds, found.mean, found.remains, found.given_up, found.final, strict=True
        )
    ]


def forced_row(found: ForcedAnswers) -> dict[str, Any]:
    """The curve of forced answers."""
    return {
        "after": list(found.after),
        "accuracy": list(map(_number, found.accuracy)),
        "agreement": list(map(_number, found.agreement)),
        "answers": list(found.answers),
        "settled": found.settled(),
    }


def pivotal_rows(found: PivotalTokens) -> dict[str, Any]:
    """The pivotal tokens, and the places that were tried."""
    return {
        "against": found.against,
        "places": [place for place, _ in found.curve],
        "chance": [_number(share) for _, share in found.curve],
        "tokens": [
            {"place": each.place, "token": each.token, "before": each.before, "after": each.after}
            for each in found.tokens
        ],
    }
