"""Runs side by side: what the page and the tables say is what the runs' files say."""

import copy

from rich.console import Console

from probe.pipeline import compare_runs
from probe.reports import comparison_figure, comparison_table, differences_table, write_comparison


def two_runs(tmp_path, contents):
    import json

    folders = []
    for name, shift, arms in (("one", 0, ["base", "hybrid"]), ("other", 10, ["base", "hybrid", "lora"])):
        folder = tmp_path / name
        folder.mkdir()
        results = copy.deepcopy(contents["results"])
        results["gap_recovered"]["hybrid"]["value"] += shift / 100
        correct = {arm: [i % 10 < 5 + (shift == 10 and arm == "hybrid") * 4 for i in range(60)] for arm in arms}
        graded = {"problems": [f"p/{i + shift}" for i in range(60)], "correct": correct}
        config = {"seed": 0, "steering": {"layer": 1 + shift}, "engine": f"processes:{shift + 1}"}
        for file, content in (("results", results), ("graded", graded), ("config", config)):
            (folder / f"{file}.json").write_text(json.dumps(content))
        folders.append(folder)
    return folders


def shown(table) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_arms_are_tested_on_the_problems_in_common(tmp_path, contents):
    found = compare_runs(two_runs(tmp_path, contents))
    tests = {test["arm"]: test for test in found["tests"]}
    assert set(tests) == {"base", "hybrid"}, "the first run has no lora"
    assert tests["base"]["n"] == 50 and tests["base"]["difference"] == 0.0 and tests["base"]["p"] == 1.0
    assert abs(tests["hybrid"]["difference"] - 0.4) < 1e-9 and tests["hybrid"]["p_holm"] == 2 * tests["hybrid"]["p"]
    assert [run["settings"] for run in found["runs"]] == [{"steering.layer": 1}, {"steering.layer": 11}]


def test_what_is_shown(tmp_path, contents):
    found = compare_runs(two_runs(tmp_path, contents))
    assert "81% [75, 87]" in shown(comparison_table(found)) and "91% [75, 87]" in shown(comparison_table(found))
    assert "40.0%" in shown(differences_table(found))
    figure = comparison_figure(found)
    dots = {trace.hovertext: trace.x[0] for trace in figure.data if trace.hovertext}
    values = [run["results"]["gap_recovered"]["hybrid"]["value"] for run in found["runs"]]
    assert [dots[name] for name in dots if name.startswith("<b>hybrid</b>")] == values
    page = write_comparison(found, tmp_path / "page.html").read_text()
    assert page.count("plotting") == 1 and "steering.layer" in page


def test_runs_without_a_problem_in_common(tmp_path, contents):
    folders = two_runs(tmp_path, contents)
    (folders[0] / "graded.json").unlink()
    found = compare_runs(folders)
    assert found["tests"] == []
    assert "no problem in common" in write_comparison(found, tmp_path / "page.html").read_text()
