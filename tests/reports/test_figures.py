"""Figures, headline and table say what the results say."""

import pytest
from rich.console import Console

from probe.reports import arms_figure, arms_table, gap_figure
from probe.reports.run.arms import in_order
from probe.reports.run.headline import headline


def dots(figure) -> dict[str, float]:
    """Label of the row -> value of its dot."""
    labels = figure.layout.yaxis.ticktext or ()
    return {labels[trace.y[0]]: trace.x[0] for trace in figure.data if trace.mode == "markers"}


def bars(figure) -> dict[str, tuple[float, float]]:
    labels = figure.layout.yaxis.ticktext or ()
    return {labels[trace.y[0]]: tuple(trace.x) for trace in figure.data if "lines" in trace.mode}


def written(results, width: int = 80) -> str:
    console = Console(width=width, file=None, record=True, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(arms_table(results))
    return captured.get()


def test_arms_figure(example):
    results = example["results"]
    figure = arms_figure(results)
    assert dots(figure) == {name: arm["accuracy"] for name, arm in results["arms"].items()}
    assert bars(figure) == {name: tuple(arm["ci"]) for name, arm in results["arms"].items()}
    lines = {shape.x0 for shape in figure.layout.shapes if shape.type == "line"}
    assert lines == {results["arms"]["base"]["accuracy"], results["arms"]["thinking"]["accuracy"]}


def test_gap_figure(example):
    results = example["results"]
    values = dots(gap_figure(results))
    assert list(values)[:5] == ["hybrid", "seed 0", "seed 1", "seed 2", "single-vector"]
    assert values["random-vectors"] == results["gap_recovered"]["random-vectors"]["value"] < 0, "not clamped"


@pytest.mark.parametrize(
    ("gaps", "said"), [({}, "not measured"), ({"hybrid": {"value": None, "ci": None}}, "no gap: base and thinking")]
)
def test_gap_figure_without_a_value(gaps, said):
    figure = gap_figure({"gap_recovered": gaps})
    assert not dots(figure)
    assert said in figure.layout.annotations[0].text


def test_arm_without_interval():
    assert bars(arms_figure({"arms": {"hybrid": {"accuracy": 0.5}}})) == {"hybrid": (0.5, 0.5)}


def test_names_are_not_markup():
    results = {"arms": {"<b>x</b>[bold]": {"accuracy": 0.5}}}
    assert arms_figure(results).layout.yaxis.ticktext[0] == "&lt;b&gt;x&lt;/b&gt;[bold]"
    assert "<b>x</b>[bold]" in written(results)


def test_order():
    names = ["new", "force-token", "hybrid-seed-2", "hybrid-seed-1", "base", "hybrid", "thinking"]
    assert in_order(names) == ["base", "thinking", "hybrid", "hybrid-seed-1", "hybrid-seed-2", "force-token", "new"]


def test_table_fits_a_terminal(contents):
    results = contents["results"]
    widest = {"accuracy": 0.99, "ci": [0.98, 0.99], "steered_fraction": 1.0, "tokens_per_answer": 999, "seconds": 1234}
    results["arms"]["v2-random-positions"] = widest | {"truncated": 1.0}
    results["gap_recovered"]["v2-random-positions"] = {"value": 0.99, "ci": [0.97, 1.03]}
    lines = written(results).splitlines()
    assert not any("…" in line for line in lines)
    hybrid = next(line for line in lines if line.startswith("hybrid"))
    assert hybrid.split() == ["hybrid", "80%", "[76,", "85]", "81%", "[75,", "87]", "18.2%", "152", "0%", "8"]
    assert sum(line.startswith("  seed") for line in lines) == 3


def test_table_says_no_gap(contents):
    contents["results"]["gap_recovered"] = {"hybrid": {"value": None, "ci": None}}
    assert "no gap" in written(contents["results"])


def test_headline_admits_a_control_that_is_as_good(contents):
    contents["results"]["gap_recovered"]["random-category"]["value"] = 0.76
    sentence, supporting = headline(contents["results"])
    assert "at most 76%" in sentence
    assert any("does not lie above random-category" in line for line in supporting)


def test_headline_without_hybrid(contents):
    del contents["results"]["gap_recovered"]["hybrid"]
    assert headline(contents["results"])[0] == "This run has no result for the hybrid."


def test_headline_of_a_thinking_model_that_is_worse(contents):
    contents["results"]["arms"]["thinking"]["accuracy"] = 0.1
    assert "is worse than the base model" in headline(contents["results"])[0]


def test_nothing_is_claimed_where_nothing_was_measured():
    assert headline({})[0] == "This run has no result for the hybrid."
