"""The figure of falsification: how each behaviour did in every test."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.html import behaviour_colour
from probe.reports.html.look import GREY, NAME, dot, key, label, nothing, plain, rows_of, short, styled
from probe.reports.html.numbers import interval, percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TESTS = {
    "injection": ("cue inserted", "a state stays silent", "rate", "control"),
    "removal": ("cue removed", "a state still fires", "rate", "control"),
    "paraphrase": ("paraphrased", "a state still fires", "rate", "control"),
    "stability": ("resampled", "a state comes back", "mean", "expected"),
    "content": ("content removed", "a state still fires", "rate", "control"),
}
"""The tests of a card: what was done, what a state does then, and the keys of the value and of the control."""


def cards_figure(behaviours: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw the falsification of each behaviour: one column for each test, dots with intervals, bars for the controls.

    Args:
        behaviours: ``behaviours`` of ``discover.json``; those without a card are left out.
    """
    from plotly.subplots import make_subplots

    rows = [each for each in behaviours if each.get("card")]
    tests = [name for name in TESTS if any(each["card"].get(name) for each in rows)]
    if not tests:
        return nothing("no behaviour was tested")
    titles = [f"<b>{TESTS[name][0]}</b><br>{TESTS[name][1]}" for name in tests]
    figure = make_subplots(1, len(tests), shared_yaxes=True, column_titles=titles, horizontal_spacing=0.045)
    for column, name in enumerate(tests, 1):
        what, _, value, control = TESTS[name]
        for place, each in enumerate(rows):
            test = each["card"].get(name) or {}
            number_of = each.get("behaviour", place)
            against = test.get(control)
            note = (
                f"<b>{number_of}</b> {short(_name(each), NAME)}<br>{what}: {percent(test.get(value), 1)} "
                f"{interval(test.get('ci'))}, {test.get('n', '?')} sentences"
                + ("" if against is None else f"<br>control: {percent(against, 1)}")
            )
            if against is not None:
                dot(figure, place, against, None, GREY, "line-ns", note, cell=(1, column))
            colour = behaviour_colour(number_of)
            dot(figure, place, test.get(value), test.get("ci"), colour, "circle", note, cell=(1, column))
    for place, each in enumerate(rows):
        figure.add_annotation(
            x=1.01,
            xref="paper",
            xanchor="left",
            y=place,
            yref="y",
            text=f"<b>{plain(str(each['card'].get('verdict') or ''))}</b>",
            showarrow=False,
        )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(tickformat=".0%", range=[-0.06, 1.06], tickvals=[0, 0.5, 1], ticktext=["0", "50%", "100"])
    rows_of(figure, [label(each.get("behaviour", place), _name(each)) for place, each in enumerate(rows)])
    key(figure, "control", GREY, "line-ns", 13)
    figure = styled(figure, "Falsification", 34 * max(len(rows), 2) + 150, legend=34)
    return figure.update_layout(margin={"r": 92, "t": 90})


def _name(behaviour: Mapping[str, Any]) -> str:
    return behaviour.get("name") or behaviour.get("label") or "no name"
