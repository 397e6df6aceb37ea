"""Figures of a discovery show what was found, and nothing that was not measured."""

from copy import deepcopy

import numpy as np
import pytest
from discovered import annotated, found

from probe.html import behaviour_colour
from probe.reports import (
    cards_figure,
    grid_figure,
    map_figure,
    timeline_figure,
    transition_figure,
    usage_figure,
)

HOSTILE = "<script>alert(1)</script><b>x</b>"


@pytest.fixture(scope="module")
def discovery():
    return found()


@pytest.fixture(scope="module")
def drawn():
    return annotated()


def said(figure) -> str:
    return " ".join(annotation.text for annotation in figure.layout.annotations)


def test_grid_holds_every_candidate(discovery):
    figure = grid_figure(discovery["grid"], ("stability", "variance_explained"))
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert len(lines) == 2 * 4 * 5, "scores x sites x families"
    for metric, part in (("stability", lines[:20]), ("variance_explained", lines[20:])):
        shown = sorted(value for line in part for value in line.y)
        assert shown == sorted(each[metric] for each in discovery["grid"] if each[metric] is not None)
    assert [annotation.text for annotation in figure.layout.annotations] == [f"resid_post.{i}" for i in range(4)]
    assert list(figure.layout.xaxis.ticktext) == ["4", "6", "8", "10", "12"]


def test_grid_rings_the_chosen_and_fills_those_that_pass(discovery):
    figure = grid_figure(discovery["grid"], ("stability",))
    chosen = next(each for each in discovery["grid"] if each["chosen"])
    rings = [trace for trace in figure.data if trace.marker.size == 19]
    assert [(tuple(ring.x), tuple(ring.y)) for ring in rings] == [((1,), (chosen["stability"],))]
    assert rings[0].xaxis == "x3", "the third site"
    filled = sum(
        not symbol.endswith("-open")
        for trace in figure.data
        if trace.mode == "lines+markers"
        for symbol in trace.marker.symbol
    )
    assert filled == sum(each["passes"] for each in discovery["grid"])


def test_grid_leaves_out_what_was_not_measured(discovery):
    grid = [each | {"stability": None, "agreement": None} for each in discovery["grid"]]
    titles = [grid_figure(grid).layout[f"yaxis{n}"].title.text for n in ("", 5)]
    assert titles == ["score", "variance explained"]
    assert "no candidate was scored" in said(grid_figure([]))
    alone = grid_figure([{"site": "a", "family": "b", "size": 4, "stability": 0.5}])
    assert alone.layout.yaxis.range[0] < 0.5 < alone.layout.yaxis.range[1]


def test_transitions_are_shares_of_rows(drawn):
    counts = drawn.transitions()
    figure = transition_figure(counts, drawn.names)
    np.testing.assert_allclose(figure.data[0].z, counts / counts.sum(1, keepdims=True))
    assert f"{counts[1, 2]} of {counts[1].sum()}" in figure.data[0].hovertext[1][2]


def test_transitions_with_start_and_end():
    figure = transition_figure([[1, 2], [0, 0]], ["a", "b"], start=[3, 1], end=[1, 0])
    assert figure.data[0].z.tolist() == [[0.75, 0.25, 0], [0.25, 0.5, 0.25], [0, 0, 0]]
    assert list(figure.layout.xaxis.ticktext)[-1] == "end"
    assert figure.layout.yaxis.ticktext[0] == "start"
    assert list(figure.data[1].text) == ["75%", "25%", "25%", "50%", "25%"]


def test_timeline(drawn):
    records = drawn.records()
    figure = timeline_figure(records, drawn.names)
    heat = figure.data[0]
    for z, text, hover, row, record in zip(heat.z, heat.text, heat.hovertext, drawn.behaviours, records, strict=True):
        assert [*z[: len(row)]] == [7 if behaviour is None else behaviour for behaviour in row]
        assert all(each is None for each in z[len(row) :]), "nothing after the end"
        assert [*text[: len(row)]] == ["" if behaviour is None else str(behaviour) for behaviour in row]
        assert record["sentences"][0]["text"].split()[0] in hover[0]
    long = timeline_figure([records[0] | {"problem_id": "a-very-long-name/validation/17"}], drawn.names)
    assert long.layout.yaxis.ticktext == ("✓ …ng-name/validation/17",), "cut where problems are alike"
    # Each whole number lies amid a step of its colour.
    for i in range(7):
        assert [colour for _, colour in heat.colorscale[2 * i : 2 * i + 2]] == [behaviour_colour(i)] * 2
        low, high = (edge for edge, _ in heat.colorscale[2 * i : 2 * i + 2])
        assert low < (i - heat.zmin) / (heat.zmax - heat.zmin) < high
    assert [tick[0] for tick in figure.layout.yaxis.ticktext][:8].count("–") == 1, "one was not graded"


def test_usage(drawn):
    usage = drawn.usage()
    figure = usage_figure(usage, drawn.names)
    dots = [trace for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None]
    assert [dot.x[0] for dot in dots] == [*usage.correct.share, *usage.incorrect.share]
    bars = [tuple(trace.x) for trace in figure.data if trace.mode == "lines"]
    assert bars == [*usage.correct.ci, *usage.incorrect.ci]


def test_usage_without_grades(drawn):
    empty = {"traces": 0, "sentences": 0, "share": [None] * 7, "ci": [None] * 7}
    group = {"traces": 1, "sentences": 4, "share": [0.25] * 4 + [0] * 3, "ci": [None] * 7}
    figure = usage_figure({"all": group, "correct": empty, "incorrect": empty}, drawn.names)
    assert [trace.x[0] for trace in figure.data if trace.mode == "markers"][:7] == group["share"]
    assert "no sentence has a behaviour" in said(usage_figure({"all": empty}, drawn.names))


def test_map(discovery, drawn):
    figure = map_figure(discovery["map"], drawn.names)
    shown = {(x, y, i) for i, trace in enumerate(figure.data) for x, y in zip(trace.x, trace.y, strict=True)}
    assert shown == {tuple(point[:3]) for point in discovery["map"]["points"]}
    assert [annotation.text for annotation in figure.layout.annotations] == [f"<b>{i}</b>" for i in range(7)]
    assert "% of the variance" in figure.layout.title.text


def test_cards(discovery):
    behaviours = deepcopy(discovery["behaviours"])
    behaviours[2]["card"] = None
    figure = cards_figure(behaviours)
    tested = [each["card"] for each in behaviours if each["card"]]
    for axis, test, value in (("x", "injection", "rate"), ("x2", "removal", "rate"), ("x4", "stability", "mean")):
        dots = [t for t in figure.data if t.mode == "markers" and t.xaxis == axis and t.marker.symbol == "circle"]
        assert [dot.x[0] for dot in dots] == [card[test][value] for card in tested]
        controls = [t for t in figure.data if t.mode == "markers" and t.xaxis == axis and t.marker.symbol == "line-ns"]
        key = "expected" if test == "stability" else "control"
        assert [dot.x[0] for dot in controls if dot.x[0] is not None] == [card[test][key] for card in tested]
    verdicts = [annotation.text for annotation in figure.layout.annotations if annotation.xref == "paper"][-6:]
    assert verdicts == [f"<b>{card['verdict']}</b>" for card in tested]
    assert len(figure.layout.yaxis.ticktext) == 6


def test_cards_without_some_tests():
    bare = [{"behaviour": 0, "name": "x", "card": {"verdict": "undecided", "injection": {"n": 0, "rate": None}}}]
    assert "cue inserted" in said(cards_figure(bare))
    assert "no behaviour was tested" in said(cards_figure([{"behaviour": 0, "card": None}]))


@pytest.mark.parametrize("names", [["only"], []])
def test_little(names):
    empty = [[0] * len(names)] * len(names)
    assert "no sentence follows" in said(transition_figure(empty, names))
    assert "no trace has a sentence" in said(timeline_figure([], names))
    assert "no sentence is on the map" in said(map_figure({"points": []}, names))


def test_one_behaviour_and_sentences_without_any():
    one = {"problem_id": "p", "correct": True, "sentences": [{"text": " A.", "behaviour": None, "type": None}]}
    assert [list(row) for row in timeline_figure([one], ["only"]).data[0].z] == [[1]]
    assert transition_figure([[3]], ["only"]).data[0].z.tolist() == [[1.0]]


def test_text_is_not_markup(discovery):
    record = {"problem_id": HOSTILE, "correct": None, "sentences": [{"text": HOSTILE, "behaviour": 0, "type": HOSTILE}]}
    group = {"traces": 1, "sentences": 1, "share": [1.0], "ci": [None]}
    behaviour = deepcopy(discovery["behaviours"][0]) | {"name": HOSTILE}
    behaviour["card"]["verdict"] = HOSTILE
    candidate = {"site": HOSTILE, "family": HOSTILE, "size": 4, "stability": 0.5, "chosen": True}
    for figure in (
        timeline_figure([record], [HOSTILE]),
        transition_figure([[1]], [HOSTILE], [1], [1]),
        usage_figure({"correct": group}, [HOSTILE]),
        map_figure({"points": [[0, 0, 0, HOSTILE]]}, [HOSTILE]),
        cards_figure([behaviour]),
        grid_figure([candidate]),
    ):
        assert "<script" not in str(figure.to_dict())
        assert "<b>x" not in str(figure.to_dict())
        assert "&lt;script" in str(figure.to_dict())
