"""A sentence states a result only where there is one: every number that a headline needs may be missing, nil or odd."""

import math
import re

import pytest
from hypothesis import given, settings, strategies as st

from probe.diff import PairDiff, TokenShift, TokenTrace, agreement, shared_heads
from probe.diff.heads import HeadShift
from probe.hybrid import gap_recovered
from probe.reports.adapter.rows import verification_rows
from probe.reports.circuits.page import circuit_headline
from probe.reports.diff.page import agreement_rows, diff_headline
from probe.reports.discovery.page import discovery_headline
from probe.reports.html.numbers import interval, number, p_value, percent, plural
from probe.reports.run.arms import FAMILIES, RANDOM_CONTROLS
from probe.reports.run.headline import headline
from probe.statistics import paired_permutation, write_p

quick = settings(max_examples=60, deadline=None, derandomize=True)
ODD = re.compile(
    r"nan|inf\b|None|–%|−%|at most −|\b0 of 0\b|p = 0\.0+\b(?!\d)|\b1 (?:problems|seeds|texts|parts differ)\b|\[, "
)

shares = st.none() | st.sampled_from([0.0, 1.0, -0.28, math.nan]) | st.floats(-2, 2)
cis = st.none() | st.tuples(st.floats(-2, 0), st.floats(0, 2)).map(list) | st.just([0.0, 0.0]) | st.just([None, None])
gaps = st.fixed_dictionaries({"value": shares.filter(lambda v: v is None or v == v), "ci": cis})
counts = st.sampled_from([None, 0, 1, 2, 300])
arms = st.fixed_dictionaries({"accuracy": st.none() | st.floats(0, 1), "ci": cis, "n": counts})
tests = st.fixed_dictionaries(
    {"difference": st.none() | st.floats(-1, 1), "ci": cis},
    optional={"p": st.none() | st.floats(0, 1), "p_holm": st.none() | st.sampled_from([0.0, 1e-9, 0.03, 1.0])},
)
ARMS = ["base", "thinking", "hybrid", "single-vector", *RANDOM_CONTROLS, *FAMILIES["baseline"]]


@quick
@given(
    st.dictionaries(st.sampled_from(ARMS), arms),
    st.dictionaries(st.sampled_from(ARMS[2:]), gaps),
    st.dictionaries(st.sampled_from(ARMS[3:]), tests),
    st.lists(st.fixed_dictionaries({"accuracy": st.none() | st.floats(0, 1), "gap_recovered": gaps}), max_size=3),
    counts,
)
def test_a_run_of_anything_claims_nothing_it_lacks(arms, gaps, tests, seeds, n):
    results = {
        "arms": arms,
        "gap_recovered": gaps,
        "tests": {"reference": "hybrid", "arms": tests},
        "seeds": {"values": list(range(len(seeds))), "hybrid": seeds, "mean": 0.5 if len(seeds) > 1 else None},
        "problems": {"name": "story", "split": "test", "n": n},
    }
    sentence, supporting = headline(results)
    for said in (sentence, *supporting):
        assert not ODD.search(said), said
    if "Steering the base model recovers" in sentence:
        assert gaps["hybrid"]["value"] is not None
        baselines = [name for name in FAMILIES["baseline"] if arms.get(name, {}).get("accuracy") is not None]
        assert any(name in sentence for name in baselines) or "no baseline was run" in sentence
        for name in baselines:
            test = tests.get(name, {})
            p = test.get("p_holm", test.get("p"))
            if p is not None and p < 0.05 and (test["difference"] or 0) > 0:
                assert "significantly better than the hybrid" in sentence and name in sentence


def baseline(contents, name, accuracy, difference, p):
    results = contents["results"]
    results["arms"][name] = {"accuracy": accuracy, "ci": [accuracy - 0.03, accuracy + 0.03], "n": 300}
    results["gap_recovered"][name] = {"value": (accuracy - 0.213) / 0.724, "ci": None}
    tests = results.setdefault("tests", {"reference": "hybrid", "arms": {}})["arms"]
    tests[name] = {"difference": difference, "ci": [difference - 0.03, difference + 0.03], "p": p, "p_holm": p}
    return results


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [
        (0.1, 1e-6, "the only baseline that was run, lora, recovers 95% and is significantly better than the hybrid"),
        (0.1, 0.2, "is not distinguishable from the hybrid"),
        (-0.1, 1e-6, "is significantly worse than the hybrid"),
    ],
)
def test_the_best_baseline_is_beside_the_hybrid(contents, difference, p, said):
    sentence, supporting = headline(baseline(contents, "lora", 0.9, difference, p))
    assert said in sentence
    (line,) = [line for line in supporting if "minus hybrid" in line]
    assert "300 problems" in line and ("p < 0.001" in line) == (p < 0.001)


def test_every_better_baseline_is_named(contents):
    baseline(contents, "lora", 0.95, 0.15, 0.001)
    baseline(contents, "few-shot", 0.3, -0.5, 0.001)
    sentence, supporting = headline(baseline(contents, "bias", 0.9, 0.1, 0.02))
    assert "the best baseline, lora, recovers 102% and is significantly better than the hybrid, as is bias" in sentence
    assert sum("minus hybrid" in line for line in supporting) == 2, "the worse one is in the table"


def test_controls_that_recover_less_than_nothing(contents):
    for name in RANDOM_CONTROLS:
        contents["results"]["gap_recovered"][name]["value"] = -0.01
    assert "random controls recover nothing" in headline(contents["results"])[0]
    contents["results"]["gap_recovered"]["hybrid"] = {"value": -0.2, "ci": [-0.3, -0.1]}
    assert "recovers nothing (−20%\N{NO-BREAK SPACE}[−30,\N{NO-BREAK SPACE}−10])" in headline(contents["results"])[0]


def test_two_problems_are_no_gap():
    """Every resample of problems that all differ has the same gap, so its interval has no width."""
    for n, there in ((2, False), (5, False), (6, True), (40, True)):
        found = gap_recovered([True] * n, [False] * n, [True] * n)
        assert (found["value"] is not None) == there
    assert gap_recovered([None], [True], [True])["value"] is None


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_graded_answers(contents, n):
    contents["results"]["arms"]["base"] |= {"n": n, "accuracy": None if n == 0 else 1.0}
    assert headline(contents["results"])[0] == f"Too few answers could be graded ({n}) to say whether there is a gap."


def discovery(cards):
    behaviours = [{"behaviour": i, "name": f"b{i}", "card": card} for i, card in enumerate(cards)]
    return {"model": "m", "taxonomy": {"site": "resid_post.1", "n_behaviours": len(cards)}, "behaviours": behaviours}


TRIED = {"n": 20, "rate": 0.5, "ci": [0.3, 0.7], "control": 0.1}


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ([{"verdict": "undecided"}] * 6, "resid_post.1; none of the 6 could be tested for surface cues."),
        ([{"verdict": "undecided"}], "One behaviour of m at resid_post.1; it could not be tested for surface cues."),
        ([{"verdict": "undecided", "content": TRIED}] * 2, "none of the 2 could be tested for surface cues."),
        ([{"verdict": "state"}, {"verdict": None}], "1 of 1 tested survives falsification; 1 could not be tested."),
        ([{"verdict": "undecided", "removal": TRIED}] * 2, "0 of 2 tested survive falsification."),
        ([None, None], "none was tested for surface cues."),
        ([], "No behaviours of m at resid_post.1."),
    ],
)  # fmt: skip
def test_what_could_not_be_tested_does_not_fail(cards, said):
    assert discovery_headline(discovery(cards))[0].endswith(said)


def test_seeds_that_were_used_are_not_denied():
    found = discovery([]) | {"grid": [{"chosen": True, "seeds": [0, 1]}]}
    assert "Stability across seeds was not measured." in discovery_headline(found)[1]
    assert "Only one seed" in discovery_headline(discovery([]))[1][0]


@pytest.mark.parametrize(
    ("findings", "said"),
    [([], "No part could be compared"), ([None], "No part could be compared"), ([True], "1 of 1 compared part differs"),
     ([True, False, None], "1 of 2 compared parts differ")],
)  # fmt: skip
def test_parts_that_could_not_be_compared_are_not_counted(findings, said):
    assert diff_headline({"findings": [{"part": "p", "said": "", "differs": each} for each in findings]}) == said


def test_findings_about_nothing():
    import torch

    none = TokenTrace((), *(torch.zeros(0) for _ in range(4)))
    few = HeadShift(*torch.rand(2, 3, 2, 2), *torch.zeros(2, 2, 2, dtype=torch.bool), torch.ones(2, 2))
    found = PairDiff("p", behaviour="check", tokens=TokenShift.of([none]), heads=few)
    assert [each.differs for each in found.findings] == [None, None]
    assert "0 of 0" in repr(found) and "same" not in found._repr_html_() and "nan" not in found._repr_html_()
    lost = HeadShift(*torch.full((2, 8, 2, 2), math.nan), few.in_before, few.in_after, torch.full((2, 2), math.nan))
    said = PairDiff("p", behaviour="check", heads=lost)
    assert said.findings[0].differs is None and said.to_dict()["heads"]["p"] == [[None] * 2] * 2


def test_p_values_without_cases():
    import torch

    same, other = torch.zeros(2, 4), torch.rand(2, 4)
    found = agreement([same, other])
    assert found.value is None and found.p is None
    assert shared_heads([[], [(0, 1)]], 4).p is None
    rows = agreement_rows(
        [{"runs": ["rl", "rl"], "value": None, "null": None, "p": None}],
        [{"name": "rl", "runs": 2, "heads": [], "by_chance": 0.0, "p": None}],
    )
    assert rows[0][1:] == ("–", "–") and rows[1][2] == "0.00 on average"
    assert paired_permutation([], []) is None and paired_permutation([None], [True]) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [({"edges": 0}, "No circuit"), ({"kept": None}, "No circuit"), ({"kept": -0.2}, "keep nothing (−20%)"),
     ({}, "3 of 9 edges keep 80% of what")],
)  # fmt: skip
def test_a_circuit_that_keeps_nothing(change, said):
    assert said in circuit_headline({"edges": 3, "of": 9, "kept": 0.8, "model": "m", "behaviour": "check"} | change)


def test_latents_are_tested_on_enough_texts_or_not_at_all():
    nothing = {"value": None, "ci": None}
    found = {
        "reach": {}, "site_changed": nothing, "moved": [], "claimed": [1], "effect": nothing, "damage": {},
        "necessity": {}, "sufficiency": {}, "alignment": {},
        "insertion": dict.fromkeys(("sae", "sae and adapter"), nothing),
    }  # fmt: skip
    history, cost = [{"step": 0, "loss": 1.0}], {"tokens": 1, "flops": 1.0, "seconds": 1.0}
    for texts, said in ((3, "not tested: fewer than 6 texts"), (30, "none"), (None, "none")):
        assert verification_rows(history, cost, found | {"texts": texts})["latents moved"] == said


@quick
@given(st.none() | st.floats(0, 1) | st.just(math.nan))
def test_no_p_value_is_written_as_nil(p):
    said = write_p(p)
    assert not re.fullmatch(r"p [=<] 0(\.0+)?", said) and "nan" not in said
    assert (p_value(p) == "–") == (said == "")
    if p is not None and p < 0.001:
        assert said == "p < 0.001"


@quick
@given(st.none() | st.sampled_from([math.nan, math.inf]) | st.floats(-1e300, 1e300), st.integers(0, 3))
def test_no_number_is_written_that_is_not_one(value, digits):
    for said in (percent(value, digits), number(value, digits), interval([0.5, value])):
        assert not re.search(r"nan|inf|None|−0(\.0*)?%?$", said)
    assert [plural(n, "problem") for n in (0, 1, 2)] == ["0 problems", "1 problem", "2 problems"]
