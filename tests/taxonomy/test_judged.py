import json
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score

from probe.errors import ProbeError
from probe.taxonomy.judge.judge import ScriptedJudge
from probe.taxonomy.judge.scores import judge_scores, parse_rating, parse_yes_no

TITLES = ["Alpha", "Beta", "Gamma", "Delta"]
DESCRIPTIONS = ["adds", "", "plans", "restates"]
N = 400


def sentences(seed: int = 0) -> tuple[list[str], torch.Tensor]:
    """Sentences that name their behaviour."""
    kinds = torch.randint(len(TITLES), (N,), generator=torch.Generator().manual_seed(seed))
    return [f" {TITLES[kind]} does {i}." for i, kind in enumerate(kinds.tolist())], kinds


def question(prompt: str) -> tuple[str, str, str]:
    """What a prompt asks ("yes", "fit" or "pair"), of which title, about which sentence or other title."""
    if "Second kind" in prompt:
        return "pair", *re.findall(r"(?:First|Second) kind: (\w+)", prompt)
    title, sentence = re.search(r"Kind of step: (\w+)", prompt), re.search(r"Sentence: (\w+)", prompt)
    assert title is not None and sentence is not None
    return ("fit" if "How well" in prompt else "yes"), title[1], sentence[1]


def perfect(prompt: str) -> str:
    kind, title, other = question(prompt)
    if kind == "yes":
        return "yes" if title == other else "no"
    return str(10 * (title == other))


def scores(answer, **options):
    texts, behaviours = sentences()
    return judge_scores(ScriptedJudge(answer), TITLES, DESCRIPTIONS, texts, behaviours, **options)


def test_a_perfect_judge_finds_a_perfect_taxonomy():
    found = scores(perfect, sample=50)
    assert (found.consistency, found.completeness, found.independence, found.score) == (1, 1, 1, 1)
    assert found.asked == 4 * 50 + 50 + 6 and found.failed == 0
    assert found.judge == "scripted"
    assert found.intervals["consistency"] == (1, 1)
    wilson = stats.binomtest(6, 6).proportion_ci(method="wilson")
    assert found.intervals["independence"] == pytest.approx((wilson.low, wilson.high))
    assert all(row.consistency == 1 and row.completeness == 1 and not row.note for row in found.by_behaviour)


@pytest.mark.parametrize(
    ("word", "number", "expected"),
    [("yes", "0", (1 / 3, 0, 1)), ("no", "10", (0, 1, 0)), ("yes", "5", (1 / 3, 0.5, 0))],
)
def test_a_judge_that_always_says_the_same(word, number, expected):
    found = scores(lambda prompt: word if question(prompt)[0] == "yes" else number)
    assert (found.consistency, found.completeness, found.independence) == pytest.approx(expected)
    assert found.score == pytest.approx(sum(expected) / 3)


def test_consistency_is_the_f1_of_scikit_learn_over_a_fifth_of_members():
    by_title: dict[str, list[tuple[bool, bool]]] = {title: [] for title in TITLES}

    def careless(prompt: str) -> str:
        kind, title, other = question(prompt)
        if kind != "yes":
            return "3"
        says = (title == other) != (hash_of(prompt) < (0.3 if title == "Beta" else 0.1))
        by_title[title].append((title == other, says))
        return "Yes." if says else "no"

    found = scores(careless, sample=100)
    expected = [f1_score(*zip(*by_title[title], strict=True)) for title in TITLES]
    assert [row.consistency for row in found.by_behaviour] == pytest.approx(expected)
    assert all(sum(member for member, _ in made) == 20 and len(made) == 100 for made in by_title.values())
    assert found.consistency == pytest.approx(sum(expected) / 4)
    low, high = found.intervals["consistency"]
    independent = stats.bootstrap((expected,), np.mean, method="percentile", rng=1).confidence_interval
    assert (low, high) == pytest.approx((independent.low, independent.high), abs=0.01)
    assert found.completeness == pytest.approx(0.3) and found.independence == 1


def hash_of(text: str) -> float:
    """A number from 0 to 1 that hangs on the text alone."""
    from hashlib import sha256

    return int(sha256(text.encode()).hexdigest()[:8], 16) / 16**8


@pytest.mark.parametrize("nonsense", [None, "", "As a language model I cannot.", "yes and no", "{}", "[7]", "11"])
def test_nonsense_scores_nothing_and_is_counted(nonsense):
    found = scores(lambda _: nonsense, sample=20)
    assert found.failed == found.asked == 4 * 20 + 20 + 6
    assert (found.consistency, found.completeness, found.independence, found.score) == (None, None, None, None)
    assert set(found.intervals.values()) == {None}
    assert all("could be understood" in row.note and row.failed == 20 for row in found.by_behaviour)
    json.dumps(found.to_dict(), allow_nan=False)


def test_failures_leave_the_scores_of_the_rest_as_they_are():
    """Failures on one side only would raise or lower an F1 that is taken over what is left."""

    def says_yes_and_fails(prompt: str) -> str | None:
        kind, title, other = question(prompt)
        if kind != "yes":
            return None if kind == "pair" and "Alpha" in (title, other) else "4"
        return None if title != other and hash_of(prompt) < 0.8 else "yes"

    found = scores(says_yes_and_fails)
    assert found.consistency == pytest.approx(1 / 3)
    assert found.independence == 1 and found.score is not None
    assert found.failed == 3 + sum(row.failed for row in found.by_behaviour)
    one_sided = scores(lambda prompt: "yes" if question(prompt)[1] == question(prompt)[2] else None)
    assert one_sided.consistency is None  # nothing is known about the others


def test_a_pair_that_cannot_be_judged_is_not_independent():
    found = scores(lambda prompt: None if question(prompt)[0] == "pair" else "10")
    assert found.independence is None and found.completeness == 1 and found.score is None


def test_empty_and_small_behaviours_are_left_out_or_said():
    texts = [" Alpha."] * 30 + [" Beta."] * 2 + [" Gamma."] * 20
    behaviours = [0] * 30 + [1] * 2 + [2] * 20
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return perfect(prompt)

    found = judge_scores(ScriptedJudge(answer), TITLES, DESCRIPTIONS, texts, behaviours, sample=40)
    alpha, beta, gamma, delta = found.by_behaviour
    # 22 others allow five members of Alpha at four to one.
    assert alpha.note == "judged on only 5 of its sentences instead of 8" and alpha.consistency == 1
    assert beta.note == "judged on only 2 of its sentences instead of 8" and gamma.note == ""
    assert (delta.sentences, delta.consistency, delta.completeness) == (0, None, None)
    assert delta.note == "no validation sentences"
    assert not any("Delta" in prompt for prompt in asked)
    assert sum("Second kind" in prompt for prompt in asked) == 3
    assert found.consistency == found.independence == 1


def test_a_single_behaviour_has_no_contrast():
    found = judge_scores(ScriptedJudge(perfect), ["Alpha"], [""], [" Alpha."] * 9, [0] * 9)
    assert found.consistency is None and found.independence is None and found.completeness == 1
    assert found.by_behaviour[0].note == "only 0 sentences of other behaviours for contrast"


def test_the_seed_decides_what_is_asked():
    asked: dict[int, list[str]] = {}
    for seed in (0, 0, 1):
        asked[seed] = []
        scores(lambda prompt, to=asked[seed]: to.append(prompt) or "7", seed=seed, sample=20)
    first = list(asked[0])
    scores(lambda prompt: first.remove(prompt) or "7", seed=0, sample=20)
    assert not first and asked[0] != asked[1]


def test_the_result_is_plain_and_whole():
    found = scores(perfect, sample=20).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["name"] == "scripted" and found["score"] == 1 and len(found["by_behaviour"]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titles": TITLES[:3]}, "3 titles but 4 descriptions"),
        ({"titles": TITLES[:1], "descriptions": [""]}, "behaviour 1, but only 0 to 0 have a title"),
        ({"behaviours": [0]}, "2 sentences but 1 behaviours"),
        ({"behaviours": [0, -1]}, "behaviour -1"),
        ({"texts": [], "behaviours": []}, "no validation sentences"),
        ({"sample": 4}, "sample is 4; it must be at least 5"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_asked(change, message):
    def never(prompt: str) -> str:
        raise AssertionError(prompt)

    given = {"titles": TITLES, "descriptions": DESCRIPTIONS, "texts": [" a", " b"], "behaviours": [0, 1], **change}
    with pytest.raises(ProbeError, match=message):
        judge_scores(ScriptedJudge(never), **given)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("yes", True),
        (" No.\n", False),
        ("**YES**", True),
        ('{"answer": true}', True),
        ('```json\n{"answer": "No"}\n```', False),
        ("<think>no, no</think>yes", True),
        ('{"answer": "yes"} {"answer": "no"}', None),
        ('{"match": true}', None),
        ('{"answer": 1}', None),
        ("yes, because it checks", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_yes_and_no(answer, value):
    assert parse_yes_no(answer) is value


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("0", 0),
        ("10.", 10),
        ("7.5", 7.5),
        ("6 / 10", 6),
        ('Here: {"answer": "9"}', 9),
        ("<think>2</think> 3", 3),
        ("-1", None),
        ("10.5", None),
        ("nan", None),
        ('{"answer": NaN}', None),
        ('{"answer": true}', None),
        ('{"answer": null}', None),
        ("ten", None),
        ("between 3 and 4", None),
    ],
)
def test_ratings(answer, value):
    assert parse_rating(answer) == value
