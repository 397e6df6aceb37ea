"""The report of ``probe anchors``: a self-contained page, and a table for the terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.files import write_text
from probe.reports.anchors.figures import sentences_figure
from probe.reports.html.filling import fill, markup
from probe.reports.html.numbers import MISSING, estimate, number, p_value, percent, plural
from probe.reports.html.terminal import terminal_table

if TYPE_CHECKING:
    from rich.table import Table

_FOUND = 0.05
"""The false discovery rate below which a sentence is said to change the answers."""
_SHADE = 75
"""The strongest shade, in percent of the colour."""
_TRACES = 20
"""The number of traces that a page shows."""
_SHOWN = (0, 1, 3, 4, 6, 7)
"""The columns of averages that a terminal shows."""
_MEANING = {
    3: "importance: accuracy with a sentence minus accuracy with others in its place",
    4: "shift: how much the answers differ between the two",
    6: "resilience: how many times a sentence is taken out until it stays away",
    7: "change the answers: the share of the sentences that do",
}


def write_anchors_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """Write the report of anchors as one HTML file.

    Args:
        results: ``results.json`` of ``probe anchors``.
    """
    traces = [
        {
            **trace,
            "head": _head(trace),
            "spans": list(_spans(trace)),
            "columns": [name for name, _, _ in _columns(trace)],
            "rows": [[write(each) for _, _, write in _columns(trace)] for each in trace["sentences"]],
            "figure": markup(sentences_figure(trace), f"sentences-{i}"),
            "pivots": _pivots(trace),
        }
        for i, trace in enumerate(results["traces"][:_TRACES])
    ]
    page = fill(
        "anchors/page.html.j2",
        None,
        results=results,
        prompts=results.get("prompts"),
        sentence=anchors_headline(results),
        unfinished=unfinished_rollouts(results["counts"]),
        traces=traces,
        behaviours=behaviour_rows(results),
        behaviour_columns=BEHAVIOUR_COLUMNS,
        found=_FOUND,
    )
    return write_text(Path(path), page)


def anchors_headline(results: Mapping[str, Any]) -> str:
    """Say how many sentences change the answers.

    Args:
        results: ``results.json`` of ``probe anchors``.
    """
    counts = results["sentences"]
    if not counts["tested"]:
        return f"{plural(counts['n'], 'sentence')} of {plural(results['n_traces'], 'trace')} of {results['model']}"
    verb = "changes" if counts["found"] == 1 else "change"
    return f"{counts['found']:,} of {plural(counts['tested'], 'sentence')} {verb} the answers of {results['model']}"


def behaviour_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows of a table: the mean importance and shift of the sentences of each behaviour.

    Args:
        results: ``results.json`` of ``probe anchors``.
    """
    return [
        [
            row["behaviour"],
            f"{row['sentences']:,}",
            f"{row['problems']:,}",
            estimate(row["importance"], number),
            estimate(row["shift"], number),
            estimate(row["gone"], number),
            estimate(row["resilience"], number),
            percent(row["found"]),
        ]
        for row in results["behaviours"]
    ]


BEHAVIOUR_COLUMNS = (
    "behaviour", "sentences", "problems", "importance", "shift, nats", "shift if it stays away", "resilience",
    "change the answers",
)  # fmt: skip


def anchors_table(results: Mapping[str, Any]) -> "Table":
    """The averages by behaviour as a table for the terminal.

    Args:
        results: ``results.json`` of ``probe anchors``.
    """
    rows = behaviour_rows(results)
    kept = [i for i in _SHOWN if i < 2 or any(row[i] != MISSING for row in rows)]
    return terminal_table(
        [BEHAVIOUR_COLUMNS[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        title=anchors_headline(results),
        caption="\n".join(_MEANING[i] for i in kept if i in _MEANING) or None,
    )


def _head(trace: Mapping[str, Any]) -> str:
    said = {True: "right", False: "wrong", None: "not graded"}[trace["correct"]]
    answer = "no answer" if trace["answer"] is None else f"answer {trace['answer']}"
    known = "" if trace["known"] is None else f", known answer {trace['known']}"
    tokens = "" if trace["tokens"] is None else f", {plural(trace['tokens'], 'token')}"
    told = f"{plural(len(trace['sentences']), 'sentence')}{tokens}; {answer} ({said}{known})"
    return ". ".join([told, *unfinished_rollouts(trace["counts"])])


def unfinished_rollouts(counts: Mapping[str, int]) -> list[str]:
    """Say how many rollouts and chains did not come to an end, or had no answer.

    Args:
        counts: of ``results.json`` of ``probe anchors`` or of one of its traces: the number of rollouts and of chains,
            and how many of them what happened to.

    >>> unfinished_rollouts({"rollouts": 1200, "rollouts failed": 0, "rollouts without an answer": 7})
    ['7 of 1,200 rollouts without an answer']
    """
    told = ((name.partition(" "), count) for name, count in counts.items())
    return [f"{count:,} of {counts[kind]:,} {kind} {what}" for (kind, _, what), count in told if what and count]


def _spans(trace: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each sentence with its shade: blue raises accuracy, or changes the answers; orange lowers accuracy."""
    graded = trace["known"] is not None
    what = "importance" if graded else "shift"
    for i, each in enumerate(trace["sentences"]):
        value = (each.get(what) or {}).get("value")
        shade = 0 if value is None else round(_SHADE * min(1.0, abs(value)))
        told = [f"sentence {i}"]
        if each.get("importance"):
            told += [f"importance {estimate(each['importance'], number)}", f"shift {estimate(each['shift'], number)}"]
        yield {
            "text": each["text"] if i else each["text"].lstrip(),
            "shade": shade,
            "up": value is None or value >= 0,
            "found": each.get("q") is not None and each["q"] < _FOUND,
            "title": ", ".join(told),
        }


def _columns(trace: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """The columns of the table of a trace: heading, key that must be there, and how a sentence is written."""
    every = [
        ("sentence", "text", lambda each: each["text"].strip()),
        ("importance", "importance", lambda each: estimate(each.get("importance"), number)),
        ("shift, nats", "shift", lambda each: estimate(each.get("shift"), number)),
        ("q", "q", lambda each: p_value(each.get("q"))),
        ("other sentences", "others", lambda each: number(each.get("others"), 0)),
        ("comes back", "back", lambda each: percent(each.get("back"))),
        ("shift if it stays away", "gone", lambda each: estimate(each.get("gone"), number)),
        ("accuracy after it", "accuracy", lambda each: percent(each.get("accuracy"))),
        ("resamplings until it stays away", "resilience", lambda each: estimate(each.get("resilience"), number)),
    ]
    return [column for column in every if any(_there(each.get(column[1])) for each in trace["sentences"])]


def _there(value: Any) -> bool:
    return value is not None and not (isinstance(value, Mapping) and value["value"] is None)


def _pivots(trace: Mapping[str, Any]) -> list[list[str]]:
    critical = trace.get("critical") or {"tokens": []}
    return [
        [str(each["place"]), each["token"], percent(each["before"]), percent(each["after"])]
        for each in critical["tokens"]
    ]
