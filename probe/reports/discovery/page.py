"""The report of a discovery: one HTML page with the behaviours that were found and how they were tested."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.cycles import end_cycle
from probe.files import write_text
from probe.html import Reading, behaviour_colour, reader_html
from probe.reports.discovery.cards_figure import TESTS, cards_figure
from probe.reports.discovery.figures import map_figure, timeline_figure, transition_figure, usage_figure
from probe.reports.discovery.files import read_discovery
from probe.reports.discovery.grid_figure import METRICS, grid_figure
from probe.reports.html.filling import fill, markup, whole
from probe.reports.html.numbers import number, percent
from probe.reports.html.terminal import add_row, terminal_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.table import Table

_BUDGET = 1_000_000
"""The maximum size of the texts of a page's traces, in bytes; the plotting library alone takes 4.8 MB."""
_WHOLE = "Long traces are cut in the middle; discover.json beside this page has the whole traces, under traces."
_MOST = 200
"""The maximum number of traces on a page."""
_LOOP = 192
"""The smallest number of characters of a loop at the end of a trace."""

VERDICTS = {"state": "survives", "cue": "follows its cue", "undecided": "undecided"}
"""What each verdict of a falsification card means."""


def write_discovery_report(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a discovery.

    The page contains its style, scripts, figures and traces. What was not measured is left out.

    Args:
        folder: the folder that ``probe discover`` wrote; its ``discover.json`` is read.

    Raises:
        ProbeError: if the folder holds no ``discover.json``, or one that is damaged or of another schema version.
    """
    return write_text(Path(folder) / "report.html", render_discovery(read_discovery(folder)))


def render_discovery(found: Mapping[str, Any]) -> str:
    """Write the page as HTML, from the contents of ``discover.json``."""
    from markupsafe import Markup

    sentence, supporting = discovery_headline(found)
    behaviours = _behaviours(found)
    names = [each["name"] for each in behaviours]
    traces = (found.get("traces") or [])[:_MOST]
    readings = [_reading(number, trace) for number, trace in enumerate(traces)]
    grid = found.get("grid") or []
    return fill(
        "discovery/page.html.j2",
        "discovery/page.js",
        model=found.get("model") or "a model",
        warning=found.get("cut"),
        prompts=found.get("prompts"),
        problems=whole(("name", "train", "validation", "note"), found.get("problems")),
        taxonomy=whole(_TAXONOMY, found.get("taxonomy")),
        judge=whole(_JUDGE, found["judge"]) if found.get("judge") else None,
        counters=_counted(found.get("counters")),
        falsify=whole(("rule",), found.get("falsify")),
        sentence=sentence,
        supporting=supporting,
        behaviours=behaviours,
        most_shared=max((each["share"] or 0 for each in behaviours), default=0) or 1,
        grid=[whole((*METRICS, "site", "family", "size", "seeds", "passes", "chosen"), each) for each in grid],
        metrics={name: said for name, said in METRICS.items() if any(each.get(name) is not None for each in grid)},
        tests=TESTS,
        verdicts=VERDICTS,
        figures=_figures(found, behaviours, names, traces),
        reader=Markup(reader_html(readings, names=names, whole=_WHOLE, limit=_BUDGET, script=False)),
        data={"behaviours": [{"name": each["name"], "colour": each["colour"]} for each in behaviours]},
        left_out=len(found.get("traces") or []) - len(traces),
    )


def discovery_headline(found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Say how many behaviours were found and how many survived falsification.

    Args:
        found: the contents of ``discover.json``.

    Returns:
        The headline and supporting sentences.
    """
    taxonomy = whole(_TAXONOMY, found.get("taxonomy"))
    shown = [each for each in _behaviours(found) if each["merged_into"] is None]
    where = f" at {taxonomy['site']}" if taxonomy["site"] else ""
    sentence = f"{_count(len(shown))} of {found.get('model') or 'a model'}{where}"
    sentence += f"; {_survived([each['card'] for each in shown if each['card']])}." if shown else "."
    return sentence, [
        line for line in (_sure(taxonomy, found), _separate(taxonomy), _true(taxonomy), _passed(found)) if line
    ]


def _survived(cards: Sequence[Mapping[str, Any]]) -> str:
    """Say how many behaviours survive, of those that could be tested."""
    if not cards:
        return "none was tested for surface cues"
    verdicts = [card.get("verdict") for card in cards if _tested(card)]
    untested = len(cards) - len(verdicts)
    if not verdicts:
        return "it could not be tested for surface cues" if untested == 1 else (
            f"none of the {untested} could be tested for surface cues"
        )  # fmt: skip
    survive, cue = verdicts.count("state"), verdicts.count("cue")
    said = f"{survive} of {len(verdicts)} tested {'survives' if survive == 1 else 'survive'} falsification"
    said += f", {cue} {'follows its' if cue == 1 else 'follow their'} cue words" if cue else ""
    return said + (f"; {untested} could not be tested" if untested else "")


def _tested(card: Mapping[str, Any]) -> bool:
    """Whether a test that can decide was made: a behaviour that no sentence shows, or without cues, has none."""
    return card.get("verdict") in ("state", "cue") or any(
        (card["tests"].get(name) or {}).get("value") is not None for name in ("injection", "removal", "paraphrase")
    )


def discovery_table(found: Mapping[str, Any]) -> "Table":
    """Tabulate the behaviours of a discovery for the terminal, with their scores and verdicts.

    Args:
        found: the contents of ``discover.json``.
    """
    behaviours = _behaviours(found)
    typed = any(each["true_type"] for each in behaviours)
    meaning = [
        "share: of all sentences · F1: of the nearest mean, on validation sentences",
        "verdict: state (more than its cue words), cue (its cue words alone) or undecided",
    ]
    if typed:
        meaning.insert(1, "true type: the most frequent type of its sentences, and its share")
    table = terminal_table(
        ("#", "behaviour", "share", "F1", *(["true type"] if typed else []), "verdict"),
        title=discovery_headline(found)[0],
        caption="\n".join(meaning),
        left=2,
    )
    for column in table.columns[4:]:
        column.justify = "left"
    for each in behaviours:
        merged, verdict = each["merged_into"], (each["card"] or {}).get("verdict")
        cells = (
            str(each["behaviour"]),
            each["name"],
            percent(each["share"]),
            number(each["centroid_f1"]),
            *([f"{each['true_type'] or ''} {percent(each['true_share'])}"] if typed else []),
            f"merged into {merged}" if merged is not None else verdict or "not tested",
        )
        add_row(table, cells, "dim" if merged is not None else None)
    return table


_TAXONOMY = ("site", "family", "n_behaviours", "seed", "rule", *METRICS)
_JUDGE = ("name", "score", "intervals", "consistency", "completeness", "independence", "asked", "failed")
_BEHAVIOUR = (
    *("name", "label", "description", "note", "merged_into", "share", "true_type", "true_share", "examples", "terms"),
    *("decodability", "centroid_f1", "text_f1", "card"),
)


def _behaviours(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List every behaviour in order, also those without an entry."""
    said = {each["behaviour"]: each for each in found.get("behaviours") or []}
    size = (found.get("taxonomy") or {}).get("n_behaviours") or 0
    behaviours = []
    for i in range(max(size, *(i + 1 for i in said), 0) if said else size):
        each = whole(_BEHAVIOUR, said.get(i)) | {"behaviour": i, "colour": behaviour_colour(i)}
        each["name"] = each["name"] or each["label"] or f"behaviour {i}"
        # Tiny models repeat sentences word for word; each is shown once.
        each["examples"] = list(dict.fromkeys(example.strip() for example in each["examples"] or []))
        if each["card"]:
            tests = {name: _test(name, each["card"].get(name)) for name in TESTS if each["card"].get(name)}
            each["card"] = {"verdict": None, "reasons": []} | each["card"] | {"tests": tests}
        behaviours.append(each)
    return behaviours


def _test(name: str, test: Mapping[str, Any]) -> dict[str, Any]:
    _, _, value, control = TESTS[name]
    return {"value": test.get(value), "ci": test.get("ci"), "control": test.get(control), "n": test.get("n")} | {
        "examples": test.get("examples") or []
    }


def _counted(counters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not counters or not counters.get("names"):
        return None
    intervals = counters.get("ci") or [None] * len(counters["names"])
    return {
        "scheme": counters.get("scheme"),
        "rows": list(zip(counters["names"], counters["mean"], intervals, strict=True)),
    }


def _reading(number: int, trace: Mapping[str, Any]) -> Reading:
    """A trace of ``discover.json``, prepared for the reader."""
    sentences = trace["sentences"]
    text = "".join(sentence["text"] for sentence in sentences)
    tokens = [sentence.get("tokens") for sentence in sentences]
    cycle = end_cycle(text, _LOOP)
    facts = [f"sample {trace['sample']}"] if trace.get("sample") else []
    return Reading(
        title=trace.get("problem_id") or f"trace {number + 1}",
        text=text,
        ends=list(accumulate(len(sentence["text"]) for sentence in sentences)),
        tokens=None if None in tokens else tokens,
        correct=trace.get("correct"),
        answer=trace.get("answer"),
        graded="answer" in trace,
        facts=[*facts, f"by {trace['author']}"] if trace.get("author") else facts,
        thinking=trace.get("think_end"),
        truncated=bool(trace.get("truncated")),
        loop=cycle and (cycle[0], cycle[0] + 2 * cycle[1], (len(text) - cycle[0]) // cycle[1]),
        behaviours=[sentence.get("behaviour") for sentence in sentences],
        notes=[sentence.get("type") for sentence in sentences],
    )


def _figures(
    found: Mapping[str, Any], behaviours: list[dict[str, Any]], names: list[str], traces: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Draw the figures that have data, each with the smallest width at which it is legible."""
    figures: dict[str, tuple[Figure, int]] = {}
    if any(each["card"] for each in behaviours):
        figures["cards"] = _untitled(cards_figure(behaviours)), 880
    if any(trace["sentences"] for trace in traces):
        longest = max(len(trace["sentences"]) for trace in traces)
        # The page has its own legend, which does not scroll away.
        timeline = _untitled(timeline_figure(traces, names)).update_layout(showlegend=False)
        figures["timeline"] = timeline.update_layout(height=22 * len(traces) + 50), 150 + 18 * min(longest, 40)
    transitions = found.get("transitions") or {}
    if transitions.get("counts"):
        figure = transition_figure(transitions["counts"], names, transitions.get("start"), transitions.get("end"))
        figures["transitions"] = figure, 240 + 36 * len(names)
    if found.get("usage"):
        figures["usage"] = usage_figure(found["usage"], names), 300
    if (found.get("map") or {}).get("points"):
        figures["map"] = map_figure(found["map"], names), 300
    if found.get("grid"):
        sites = len({each.get("site") for each in found["grid"]})
        figures["grid"] = _untitled(grid_figure(found["grid"])), 90 + 150 * sites
    return {name: {"html": markup(figure, name), "width": width} for name, (figure, width) in figures.items()}


def _untitled(figure: "Figure") -> "Figure":
    """Remove the title of a figure whose heading on the page says the same."""
    return figure.update_layout(title=None, margin_t=44)


_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


def _count(n: int) -> str:
    return f"{_WORDS[n] if n < len(_WORDS) else n} behaviour{'' if n == 1 else 's'}"


def _sure(taxonomy: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if taxonomy["stability"] is None and taxonomy["agreement"] is None:
        chosen = next((each for each in found.get("grid") or [] if each.get("chosen")), {})
        if len(chosen.get("seeds") or [0]) > 1:
            return "Stability across seeds was not measured."
        return "Only one seed was used, so stability across seeds is unknown."
    said = [
        f"{text} {number(taxonomy[key])}"
        for key, text in (("stability", "directions match with a mean cosine of"),
                          ("agreement", "assignments of sentences agree with an adjusted mutual information of"))
        if taxonomy[key] is not None
    ]  # fmt: skip
    return f"Across seeds, {' and '.join(said)}."


def _separate(taxonomy: Mapping[str, Any]) -> str:
    explained = taxonomy["variance_explained"]
    said = [] if explained is None else [f"{percent(explained)} of the variance explained"]
    said += [
        f"{METRICS[key]} {number(taxonomy[key])}"
        for key in ("silhouette", "decodability", "centroid_f1")
        if taxonomy[key] is not None
    ]
    return f"On validation sentences: {', '.join(said)}." if said else ""


def _true(taxonomy: Mapping[str, Any]) -> str:
    if taxonomy["ami"] is None:
        return ""
    said = f"adjusted mutual information {number(taxonomy['ami'])}"
    return f"Against the true sentence types, which were not used in the choice: {said}."


def _passed(found: Mapping[str, Any]) -> str:
    chosen = [each for each in found.get("grid") or [] if each.get("chosen")]
    if chosen and chosen[0].get("passes") is False:
        return "No candidate is as stable as the rule requires, so the behaviours below may not be reproducible."
    return ""
