"""Pages are drawn from JSON alone, from files of earlier versions too, and without intervals where there are none."""

import json
import subprocess
import sys
from typing import Any

from discovered import found

from probe.reports import (
    arms_table,
    comparison_table,
    discovery_table,
    gap_figure,
    write_discovery_report,
    write_report,
)
from probe.reports.circuits.page import circuit_rows
from probe.reports.diff.page import effect_rows


def without_intervals(contents: Any) -> Any:
    """The same contents as if each estimate came from fewer than two items."""
    if isinstance(contents, dict):
        return {key: None if key in ("ci", "intervals") else without_intervals(each) for key, each in contents.items()}
    return [without_intervals(each) for each in contents] if isinstance(contents, list) else contents


def test_no_model_library_is_needed():
    heavy = {"torch", "transformers", "probe.taxonomy", "probe.circuits", "probe.diff", "probe.hybrid", "plotly"}
    code = f"import sys, probe.reports; assert not {heavy!r} & sys.modules.keys(), {heavy!r} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_without_intervals(contents, write_run):
    contents["results"]["effects"] = {
        "counters": {"arms": {"base": {"verification": {"mean": 1.25, "ci": [1.0, 1.5]}}}},
        "flip": {"n": 3, "rate": 0.5, "ci": None, "starts": 4, "per_behaviour": []},
    }
    page = write_report(write_run(contents)).read_text(encoding="utf-8")
    assert "[1.00, 1.50]" in page and "[76, 85]" in page
    bare = without_intervals(contents)
    page = write_report(write_run(bare)).read_text(encoding="utf-8")
    assert "1.25" in page and "[1.00" not in page and "[76" not in page
    hybrid = next(trace for trace in gap_figure(bare["results"]).data if "lines" in trace.mode)
    assert hybrid.x[0] == hybrid.x[1], "the line of an interval that is not there has no length"
    assert {str(cell) for cell in arms_table(bare["results"]).columns[1].cells} >= {"21%", "94%", "80%"}
    run = {"name": "one", "settings": {}, "results": bare["results"]}
    (cell,) = [row for row in comparison_table({"runs": [run]}).columns[1].cells if str(row).startswith("81")]
    assert str(cell) == "81%"


def test_a_discovery_without_intervals(tmp_path):
    contents = without_intervals(found())
    for group in contents["usage"].values():
        group["ci"] = [None] * 7
    (tmp_path / "discover.json").write_text(json.dumps(contents), encoding="utf-8")
    assert "None" not in write_discovery_report(tmp_path).read_text(encoding="utf-8").split("<script")[0]
    discovery_table(contents)


def test_circuits_and_differences_without_intervals():
    sides = {side: {"value": 0.25, "ci": None} for side in ("whole", "changed", "others", "more than others")}
    heads = {"heads": ["a0.h1"], "count": sides, "share": sides, "solved": sides}
    results = {"behaviour": "check", "edges": 3, "of": 9, "kept": 0.8, "faithfulness": {"cpr": 1.0, "cmd": 0.1}}
    assert list(circuit_rows(results | {"heads": heads}).values()).count("0.25") == 3 * len(sides)
    effects = {"ways": {"0.5": {"share": sides}}}
    (row,) = effect_rows(effects)
    assert row[-4:] == ("0.25",) * 4


def test_a_run_of_an_earlier_version(write_run):
    """Bare numbers instead of estimates, no seeds, no tests, no oracle parts, arms that are no longer known."""
    arm = {"accuracy": 0.5, "ci": [0.4, 0.6], "n": 10}
    results = {
        "schema": 1,
        "pair": "old",
        "arms": {"base": {**arm, "accuracy": 0.2}, "thinking": {**arm, "accuracy": 0.9}, "hybrid": arm, "gone": arm},
        "gap_recovered": {"hybrid": 0.43, "gone": {"value": 0.44, "ci": [0.1, 0.8]}},
        "oracle": {"bits_per_token": 0.5, "bits_per_steered_token": 2.0},
    }
    page = write_report(write_run({"results": results})).read_text(encoding="utf-8")
    assert "Steering the base model recovers 43% of the gap" in page
    assert "[10, 80]" in page and "gone" in page
