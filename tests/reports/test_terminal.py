"""Tables in narrow terminals: nothing is cut off, and every heading is there."""

import io
import re

import pytest
from rich.console import Console

from probe.reports import arms_table, comparison_table, discovery_table, study_table, terminal_table
from probe.reports.html.terminal import add_row, listing
from probe.reports.run.arms import MEANING

WIDTHS = (40, 60, 80, 100, 200)


def printed(table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def complete(table, width: int, *said: str) -> str:
    """The table in a terminal of that width, after it was checked that it fits and holds everything."""
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    headings = [str(column.header) for column in table.columns[1:]]  # what the first names is plain from its place
    cells = [str(cell) for column in table.columns for cell in column.cells]
    # A narrow column may break a text at spaces and after hyphens.
    parts = {part for each in (*headings, *cells, *said) for part in re.split(r"\s|(?<=-)", each)}
    assert {part for part in parts if part not in text} == set()
    return text


ROWS = [
    (
        "intervention-on-thinking *",
        "58% [52, 64]",
        "−104% [−152, −57]",
        "a sentence of several words that goes on and on",
    ),
    ("base", "9%", "", "short"),
]
COLUMNS = ("arm", "correct", "gap recovered", "meaning")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off(width):
    complete(terminal_table(COLUMNS, ROWS, title="A title " * 9, caption="a caption " * 9, left=4), width)


def test_a_wide_terminal_has_a_line_for_each_row():
    lines = complete(terminal_table(COLUMNS, ROWS), 120).splitlines()
    assert len(lines) == 4 and lines[2].startswith("intervention-on-thinking *  58% [52, 64]")


def test_a_narrower_one_breaks_cells_but_no_interval():
    lines = printed(terminal_table(COLUMNS, ROWS), 75).splitlines()
    assert [line.split() for line in lines[:2]] == [["gap"], ["arm", "correct", "recovered", "meaning"]]
    assert [line[:16] for line in lines[3:]] == ["intervention-on-", "thinking *      ", "base            "]
    assert "58% [52, 64]" in lines[3] and "[−152, −57]" in lines[4]


def test_a_narrow_one_has_some_lines_for_each_row():
    assert printed(terminal_table(COLUMNS, ROWS), 40).splitlines() == [
        "intervention-on-thinking *",
        "  correct: 58% [52, 64]",
        "  gap recovered: −104% [−152, −57]",
        "  meaning: a sentence of several words",
        "    that goes on and on",
        "base",
        "  correct: 9% · meaning: short",
    ]


def test_names_are_shown_as_they_are():
    table = terminal_table(("name", "[b]"))
    add_row(table, ("[bold]x[/bold]", "[red]"), "dim")
    assert "[bold]x[/bold]" in complete(table, 80, "[b]", "[red]")
    assert "[bold]x[/bold]" in complete(table, 15, "[b]", "[red]")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_list_of_names_and_values(width):
    rows = [("bits per token from the thinking model", "0.61"), ("path", "/a/folder/" + "with-a-long-name/" * 9)]
    complete(listing(rows, "A list"), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_arms(contents, width):
    results = contents["results"]
    example = results["arms"]["hybrid"] | {"looping": 0.02, "truncated": 1.0, "tokens_per_answer": 12345.0}
    wide = {"value": -1.04, "ci": [-1.52, -0.57]}
    results["arms"] |= dict.fromkeys(MEANING, example)
    results["gap_recovered"] |= dict.fromkeys(set(MEANING) - {"base", "thinking"}, wide)
    text = complete(arms_table(results), width, "mean length of an answer", "loops: answers that end in one")
    if width >= 80:
        assert "arm " in text, "a table, not a few lines for each arm"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [2, 5])
def test_runs_side_by_side(contents, width, n):
    runs = [{"name": f"layer-{i}-of-a-long-name", "settings": {}, "results": contents["results"]} for i in range(n)]
    complete(comparison_table({"runs": runs}), width, *(run["name"] for run in runs))


@pytest.mark.parametrize("width", WIDTHS)
def test_behaviours(width):
    names = ["checks the last step of its work, and says whether it was right", "[bold]x", None]
    behaviours = [
        {
            "behaviour": i,
            "name": name,
            "share": 0.12,
            "centroid_f1": 0.93,
            "true_type": "verification",
            "true_share": 0.9,
        }
        for i, name in enumerate(names)
    ]
    found = {"schema": 1, "model": "tiny-rl", "behaviours": behaviours, "taxonomy": {"n_behaviours": 3}}
    complete(discovery_table(found), width, "nearest mean", "cue words", "the most frequent type")


@pytest.mark.parametrize("width", WIDTHS)
def test_objectives(width):
    measures = {
        name: f"what {name} is" for name in ("effect", "necessity", "sufficiency", "alignment", "like", "solved")
    }
    values = {name: {"value": -0.337, "ci": [-0.412, -0.201]} for name in measures}
    rows = {name: {"measures": values} for name in ("resa", "resa:shuffled-decoder", "feature-match")}
    complete(study_table({"rows": rows, "measures": measures}), width, *measures.values())
