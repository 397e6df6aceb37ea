"""How good a judge finds a taxonomy's names: consistency, completeness and independence.

These are the three scores of Venhoff et al. 2025 (arXiv 2510.07364), on validation sentences, with one prompt for each
decision. An answer that failed, or is neither the JSON nor the plain word or number asked for, is excluded and counted.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from probe.errors import ProbeError
from probe.statistics import mean_interval, share_interval
from probe.taxonomy.judge.judge import Judge, ask, without_thinking

#: Sentences of other behaviours for each of the behaviour's own in a consistency sample.
_OTHERS = 4

_ABOUT = "Below is a kind of step that occurs in a model's written reasoning"
_TOPIC = "Leave aside what is being reasoned about; look only at the job done in the reasoning."


@dataclass(frozen=True)
class JudgedBehaviour:
    """The judge's scores of one behaviour."""

    behaviour: int
    sentences: int
    """The number of its validation sentences."""
    consistency: float | None
    """F1 of the judge's decisions about which sentences belong to it."""
    completeness: float | None
    """How well its sentences fit it, from 0 to 1."""
    failed: int
    """The number of those decisions that could not be understood."""
    note: str = ""
    """A caveat about these numbers: too few sentences, or no answers."""


@dataclass(frozen=True)
class JudgedScores:
    """The three scores of a taxonomy, from 0 to 1; None if nothing was asked or no answer was understood."""

    consistency: float | None
    """The mean over behaviours of the F1 of yes/no decisions."""
    completeness: float | None
    """The mean fit of random sentences to their behaviour."""
    independence: float | None
    """The share of pairs of behaviours that the judge finds more different than alike."""
    intervals: dict[str, tuple[float, float] | None]
    """The 95 % interval of each score: over behaviours, over sentences, over pairs."""
    by_behaviour: tuple[JudgedBehaviour, ...]
    asked: int
    """The number of prompts."""
    failed: int
    """The number of prompts without an answer that could be understood; no score includes them."""
    judge: str
    """The name of the judge."""

    @property
    def score(self) -> float | None:
        """The mean of the three scores; None if one is missing."""
        three = [each for each in (self.consistency, self.completeness, self.independence) if each is not None]
        return fmean(three) if len(three) == 3 else None

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return {
            "name": self.judge,
            "score": self.score,
            "consistency": self.consistency,
            "completeness": self.completeness,
            "independence": self.independence,
            "intervals": {name: None if ci is None else list(ci) for name, ci in self.intervals.items()},
            "asked": self.asked,
            "failed": self.failed,
            "by_behaviour": [asdict(each) for each in self.by_behaviour],
        }


def judge_scores(
    judge: Judge,
    titles: Sequence[str],
    descriptions: Sequence[str],
    texts: Sequence[str],
    behaviours: Sequence[int] | Int[Tensor, " sentence"],
    *,
    seed: int = 0,
    sample: int = 200,
    progress: bool = False,
) -> JudgedScores:
    """Score a taxonomy's titles and descriptions on validation sentences (Venhoff et al. 2025, arXiv 2510.07364).

    *Consistency*: does this sentence belong to this behaviour, yes or no? In every sample a fifth of the sentences do,
    because F1 depends on that share; a behaviour with few sentences gets a smaller sample. A judge that always says
    yes gets 1/3. *Completeness*: how well do random sentences fit their behaviour, from 0 to 10? *Independence*: how
    alike are two behaviours, from 0 to 10? The score is the share of pairs below 5. A behaviour without validation
    sentences is in none of the three.

    Args:
        judge: answers at most ``sample`` prompts for each behaviour, ``sample`` more, and one for each pair.
        titles: one for each behaviour.
        descriptions: one for each behaviour; "" where there is none.
        texts: validation sentences.
        behaviours: the behaviour that the taxonomy assigns to each sentence, from 0.
        seed: seeds the samples.
        sample: the number of sentences for each behaviour's consistency, and for completeness.
        progress: show a progress bar.

    Raises:
        ProbeError: if titles, descriptions, sentences and behaviours do not fit together, or ``sample`` is below 5.
    """
    assigned = np.asarray(behaviours.cpu() if isinstance(behaviours, Tensor) else behaviours, dtype=int)
    _check(titles, descriptions, texts, assigned, sample)
    rng = np.random.default_rng(seed)
    there = [b for b in range(len(titles)) if (assigned == b).any()]
    shown = [_shown(title, description) for title, description in zip(titles, descriptions, strict=True)]

    decisions = [(b, i) for b in there for i in _consistency_sample(assigned, b, sample, rng)]
    rated: list[int] = rng.choice(len(texts), min(sample, len(texts)), replace=False).tolist()
    pairs = list(combinations(there, 2))
    prompts = [_decision_prompt(shown[b], texts[i]) for b, i in decisions]
    prompts += [_fit_prompt(shown[assigned[i]], texts[i]) for i in rated]
    prompts += [_pair_prompt(shown[a], shown[b]) for a, b in pairs]
    answers = ask(judge, prompts, name="judged scores", progress=progress)

    said = [parse_yes_no(answer) for answer in answers[: len(decisions)]]
    ratings = [parse_rating(answer) for answer in answers[len(decisions) :]]
    fits, likeness = ratings[: len(rated)], ratings[len(rated) :]
    rows = []
    for b in range(len(titles)):
        own = [(bool(assigned[i] == b), yes) for (of, i), yes in zip(decisions, said, strict=True) if of == b]
        fit = [rating for i, rating in zip(rated, fits, strict=True) if assigned[i] == b and rating is not None]
        f1 = _f1(own)
        size = int((assigned == b).sum())
        note = _note(size, len(assigned) - size, own, f1, sample // (1 + _OTHERS))
        failed = sum(yes is None for _, yes in own)
        rows.append(JudgedBehaviour(b, size, f1, fmean(fit) / 10 if fit else None, failed, note))

    f1s = [row.consistency for row in rows if row.consistency is not None]
    fitting = [rating / 10 for rating in fits if rating is not None]
    different = [rating < 5 for rating in likeness if rating is not None]
    return JudgedScores(
        consistency=fmean(f1s) if f1s else None,
        completeness=fmean(fitting) if fitting else None,
        independence=fmean(different) if different else None,
        intervals={
            "consistency": mean_interval(np.asarray(f1s), seed=seed).ci,
            "completeness": mean_interval(np.asarray(fitting), seed=seed).ci,
            "independence": share_interval(different).ci,
        },
        by_behaviour=tuple(rows),
        asked=len(prompts),
        failed=sum(each is None for each in [*said, *ratings]),
        judge=judge.name,
    )


def parse_yes_no(answer: str | None) -> bool | None:
    """Parse an answer that is the word yes or no alone, or ``{"answer": "yes"}``; None for anything else.

    >>> [parse_yes_no(said) for said in ("Yes.", '{"answer": "no"}', "yes and no", "No doubt it is", None)]
    [True, False, None, None, None]
    """
    value = _plain_or_json(answer)
    if isinstance(value, bool):
        return value
    word = value.strip(" \n\"'*`.!").lower() if isinstance(value, str) else None
    return {"yes": True, "no": False}.get(word) if word else None


def parse_rating(answer: str | None) -> float | None:
    """Parse a number from 0 to 10 that stands alone, as ``7/10`` or as ``{"answer": 7}``; None for anything else.

    >>> [parse_rating(said) for said in ("7", "**8/10**", '{"answer": 2.5}', "11", "7 or 8", "true")]
    [7.0, 8.0, 2.5, None, None, None]
    """
    value = _plain_or_json(answer)
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?", value.strip(" \n\"'*`").removesuffix("."))
        value = float(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        return None
    return float(value)


def _plain_or_json(answer: str | None) -> Any:
    """The value of "answer" in the JSON object in the text; the text itself if it has none."""
    text = without_thinking(answer)
    found = re.search(r"\{.*\}", text, re.DOTALL) if text else None
    if found is None:
        return text
    try:
        return json.loads(found[0]).get("answer")
    except ValueError:
        return None


def _check(
    titles: Sequence[str], descriptions: Sequence[str], texts: Sequence[str], assigned: np.ndarray, sample: int
) -> None:
    if len(titles) != len(descriptions):
        raise ProbeError(
            f"{len(titles)} titles but {len(descriptions)} descriptions; give one of each for each behaviour"
        )
    if len(texts) != len(assigned):
        raise ProbeError(f"{len(texts)} sentences but {len(assigned)} behaviours; give one behaviour for each sentence")
    if not len(texts):
        raise ProbeError("there are no validation sentences to judge; give some")
    if assigned.min() < 0 or assigned.max() >= len(titles):
        wrong = assigned.min() if assigned.min() < 0 else assigned.max()
        raise ProbeError(f"a sentence has behaviour {wrong}, but only 0 to {len(titles) - 1} have a title; add one")
    if sample < 5:
        raise ProbeError(f"sample is {sample}; it must be at least 5, because a fifth of the sentences are members")


def _consistency_sample(assigned: np.ndarray, behaviour: int, sample: int, rng: np.random.Generator) -> list[int]:
    """A sample of sentences, one in five of which has this behaviour."""
    members, others = np.flatnonzero(assigned == behaviour), np.flatnonzero(assigned != behaviour)
    n = min(sample // (1 + _OTHERS), len(members), len(others) // _OTHERS)
    return [*rng.choice(members, n, replace=False).tolist(), *rng.choice(others, _OTHERS * n, replace=False).tolist()]


def _f1(decisions: Sequence[tuple[bool, bool | None]]) -> float | None:
    """F1 of pairs (member, judged a member), weighted to four others for each member.

    Without the weights, decisions that failed would change the share of members and so F1. None if no decision on
    members, or none on others, is left.
    """
    members = [yes for member, yes in decisions if member and yes is not None]
    others = [yes for member, yes in decisions if not member and yes is not None]
    if not members or not others:
        return None
    hits = fmean(members)
    return 2 * hits / (1 + hits + _OTHERS * fmean(others))


def _note(size: int, others: int, own: Sequence[tuple[bool, bool | None]], f1: float | None, wanted: int) -> str:
    members = sum(member for member, _ in own)
    if not size:
        return "no validation sentences"
    if not own:
        return f"only {others} sentences of other behaviours for contrast"
    if f1 is None:
        return "no answer about its sentences, or none about others, could be understood"
    return f"judged on only {members} of its sentences instead of {wanted}" if members < wanted else ""


def _shown(title: str, description: str) -> str:
    return f"{title}\n{description}".strip()


def _decision_prompt(shown: str, text: str) -> str:
    return (
        f"{_ABOUT}, and one sentence of such reasoning. {_TOPIC}\n\nKind of step: {shown}\n\n"
        f"Sentence: {text.strip()}\n\nIs this sentence a step of that kind? Answer with one word, yes or no."
    )


def _fit_prompt(shown: str, text: str) -> str:
    return (
        f"{_ABOUT}, and one sentence that was sorted there. {_TOPIC}\n\nKind of step: {shown}\n\n"
        f"Sentence: {text.strip()}\n\nHow well does the kind describe what the sentence does, "
        "from 0 (not at all) to 10 (perfectly)? Answer with the number alone."
    )


def _pair_prompt(a: str, b: str) -> str:
    return (
        f"Below are two kinds of step that occur in a model's written reasoning. {_TOPIC}\n\nFirst kind: {a}\n\n"
        f"Second kind: {b}\n\nHow alike are the jobs they do, from 0 (quite different) to 10 (the same)? "
        "Answer with the number alone."
    )
