"""Prices, version 1 and effects on the page: every figure of the files, and nothing where there is none."""

import re
from html import unescape
from typing import Any

import pytest

from probe.reports import bits_figure, passes_figure, write_report
from probe.reports.run.headline import headline
from probe.reports.run.sections import effects_of, headings, price_rows, v1_rows, v1_sentence

BITS = {
    "hybrid": {"where": 0.4, "which": 0.2},
    "rerank-only": {"where": 0.4, "choice": 0.4},
    "lora": {},
    "v1": {"where": 0.4, "choice": 0.35},
    "v1-rerank": {"where": 0.4, "choice": 0.39},
}


@pytest.fixture
def priced(contents) -> dict[str, Any]:
    """A run with the accounts of some arms, with version 1 and with effects."""
    results = contents["results"]
    for name, parts in BITS.items():
        accuracy = 0.5 if name == "lora" else 0.9
        arm = results["arms"].setdefault(name, {"accuracy": accuracy, "ci": [accuracy - 0.04, 0.93], "n": 300})
        arm |= {"bits_per_token": sum(parts.values()), "parts": parts, "agreement": 0.987, "surprisal_per_token": 0.51}
        arm |= {"fitted_parameters": 1234}
    results["gap_recovered"] |= {
        "v1": {"value": 0.5, "ci": [0.4, 0.6]},
        "v1-rerank": {"value": 0.4, "ci": [0.3, 0.5]},
    }
    results["oracle"]["given_base"] = {"bits_per_token": 0.0234}
    results["tests"] = {
        "reference": "hybrid",
        "arms": {"lora": {"difference": 0.0314, "ci": [0.01, 0.05], "p": 0.0012, "p_holm": 0.0036}},
        "detectable_gap": 0.07,
    }
    rate = {"n": 40, "rate": 0.95, "ci": [0.9, 0.98], "random": 0.33, "unsteered": 0.21}
    results["effects"] = {
        "flip": {**rate, "rate": 0.87, "starts": 120, "per_behaviour": [{**rate, "behaviour": 3}]},
        "gates": [0, 5, 7, 901],
        "naming": {"single": 0.171, "pooled": 0.262, "coming": 0.997},
        "errors": {"base": {"content": 0.25, "behaviour": 0.75, "n": 8, "kinds": {"concluded too early": 6}}},
        "counters": {"scheme": "story", "arms": {"base": {"verification": {"mean": 1.23, "ci": [1.1, 1.4]}}}},
    }
    return contents


def words(folder) -> str:
    page = write_report(folder).read_text(encoding="utf-8")
    page = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_page_has_every_section(priced, write_run):
    found = words(write_run(priced))
    for said in (
        "given the base model's state 0.023",
        "recovers 7% of the gap is distinguished from the base model",
        "3.1% [1, 5]",
        "0.0036",
        "Of version 1's recovery, 80% is due to re-ranking",
        "the base model's most likely tokens",
        "87% [90, 98]",
        "at 120 sentence starts",
        "a probe for the coming sentence 99.7%",
        "concluded too early 6",
        "verification 1.23 [1.10, 1.40]",
        "Controls: the hybrid with one part exchanged",
        "Version 1 as published",
    ):
        assert said in found, said


def test_nothing_is_shown_of_what_was_not_measured(contents, write_run):
    found = words(write_run(contents))
    for section in ("The parts of version 1", "What the vectors do", "difference from"):
        assert section not in found


def test_the_frontier_goes_up_and_nothing_lies_above_it(priced):
    results = priced["results"]
    figure = bits_figure(results)
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert list(line.x) == sorted(line.x) and list(line.y) == sorted(line.y)
    for name in [*BITS, "base"]:
        arm = results["arms"][name]
        below = [y for x, y in zip(line.x, line.y, strict=True) if x <= arm.get("bits_per_token", 0.0)]
        assert below and below[-1] >= arm["accuracy"], name
    shown = {x for trace in figure.data if "markers" in trace.mode for x in trace.x}
    assert shown == {0.0, *(sum(parts.values()) for parts in BITS.values())}, "an arm without an account is left out"
    assert {text for trace in figure.data if "markers" in trace.mode for text in trace.text} >= {"hybrid", "base"}


def test_the_frontier_of_passes_leaves_out_what_was_not_counted(priced):
    results = priced["results"]
    arms = results["arms"]
    assert not any(trace.x for trace in passes_figure(results).data), "a run of an earlier version counted none"
    arms["base"] |= {"base_passes": 31.0, "thinking_passes": 0.0}
    arms["hybrid"] |= {"base_passes": 32.0, "thinking_passes": 32.0}
    shown = [trace for trace in passes_figure(results).data if "markers" in trace.mode]
    assert {(x, y) for trace in shown for x, y in zip(trace.x, trace.y, strict=True)} == {
        (arms[name]["thinking_passes"], arms[name]["accuracy"]) for name in ("base", "hybrid")
    }
    assert {row["name"]: row["thinking_passes"] for row in price_rows(results)}["hybrid"] == 32.0


def test_an_arm_that_knows_the_right_answers_beats_no_other(priced):
    results = priced["results"]
    said, before = headline(results), bits_figure(results)
    more = results | {"arms": results["arms"] | {"latent-seek-grade": {"accuracy": 1.0, "n": 300, "bits_per_token": 0}}}
    figure = bits_figure(more)
    lines = [next(trace for trace in each.data if trace.mode == "lines") for each in (before, figure)]
    assert (lines[0].x, lines[0].y) == (lines[1].x, lines[1].y)
    assert "upper bound" in {trace.name for trace in figure.data}
    assert headline(more) == said


def test_a_changed_thinking_model_is_no_baseline(priced):
    results = priced["results"]
    said = headline(results)
    arm = {"accuracy": 1.0, "n": 300, "bits_per_token": 0.5}
    more = results | {"arms": results["arms"] | {"budget-on-thinking": arm}}
    assert headline(more) == said
    assert "thinking model, changed" in {trace.name for trace in bits_figure(more).data}
    assert headings(["lora", "budget-on-thinking"])["budget-on-thinking"] == "The thinking model, changed"


def test_rows_say_what_the_file_says(priced):
    results = priced["results"]
    rows = {row["name"]: row for row in price_rows(results)}
    assert rows["lora"]["test"]["p_holm"] == 0.0036 and rows["hybrid"]["test"]["p"] is None
    assert rows["rerank-only"]["parts"] == BITS["rerank-only"]
    assert [row["name"] for row in v1_rows(results)] == ["v1", "v1-rerank"]
    effects = effects_of(results, {3: "redo"})
    assert [row["label"] for row in effects["flip"]] == ["redo", "all"]
    assert headings(["base", "single-vector", "rerank-only", "mine"]) == {
        "single-vector": "Controls: the hybrid with one part exchanged",
        "mine": "Others",
    }


@pytest.mark.parametrize(
    ("whole", "rerank", "said"),
    [
        (0.4, 1.0, "All of"),
        (0.0, 1.0, "nothing here; re-ranking alone recovers 100%"),
        (-0.1, -0.2, "Neither"),
        (0.5, -0.1, " 0% "),
        (None, 0.4, ""),
    ],
)
def test_how_much_of_version_1_is_re_ranking(whole, rerank, said):
    results = {"gap_recovered": {"v1": {"value": whole}, "v1-rerank": {"value": rerank}}}
    sentence = v1_sentence(results)
    assert said in sentence and bool(sentence) == bool(said)
