"""Compares runs: the results of every arm, and paired tests on the problems that the runs have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probe.config import read_as
from probe.errors import ProbeError
from probe.reports import read_graded, read_results


def compare_runs(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Compare runs: what each found, and which differences in accuracy are significant.

    Args:
        folders: folders of finished runs; the others are compared with the first.

    Returns:
        ``runs``: for each run its ``name``, ``pair``, ``problems``, ``n``, ``seed``, the ``settings`` that differ
        between runs, and its ``results``. ``tests``: for every arm that a further run and the first run have, ``run``,
        ``arm``, the number ``n`` of problems in common, the ``difference`` in accuracy with ``ci``, ``p``, and
        ``p_holm`` corrected over all tests; empty if the runs have no problem in common.

    Raises:
        ProbeError: for fewer than two folders, one given twice, or one that holds no results.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2:
        raise ProbeError("name at least two runs to compare: probe compare runs/one runs/other")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ProbeError("a run is named twice; name different runs")
    results = [read_results(path) for path in paths]
    settings = [_settings(path) for path in paths]
    differing = sorted({key for one in settings for key in one if len({repr(s.get(key)) for s in settings}) > 1})
    names = [path.resolve().name for path in paths]
    runs = [
        {
            "name": name if names.count(name) == 1 else str(path),
            "pair": found.get("pair"),
            "problems": (found.get("problems") or {}).get("name"),
            "n": (found.get("problems") or {}).get("n"),
            "seed": found.get("seed"),
            "settings": {key: one.get(key) for key in differing},
            "results": found,
        }
        for name, path, found, one in zip(names, paths, results, settings, strict=True)
    ]
    from probe.statistics import holm  # slow to import: the folders are checked before

    graded = [read_graded(path) for path in paths]
    tests = [
        {"run": run["name"], **test}
        for run, each in zip(runs[1:], graded[1:], strict=True)
        for test in _tests(graded[0], each)
    ]
    adjusted = holm({str(i): test["p"] for i, test in enumerate(tests)})
    return {"runs": runs, "tests": [{**test, "p_holm": adjusted[str(i)]} for i, test in enumerate(tests)]}


def _tests(first: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Test every arm that both runs have, on the problems in common."""
    from probe.hybrid import compare_arms  # slow to import: the folders are checked before
    from probe.statistics import scores

    place = {problem: i for i, problem in enumerate(first["problems"])}
    common = [(place[problem], i) for i, problem in enumerate(other["problems"]) if problem in place]
    found = []
    for arm, values in other["correct"].items():
        if arm in first["correct"] and common:
            pair = {"first": [first["correct"][arm][i] for i, _ in common], "other": [values[j] for _, j in common]}
            test = compare_arms(pair, "first").get("other")
            if test is not None:
                n = sum(None not in each for each in zip(*map(scores, pair.values()), strict=True))
                found.append({"arm": arm, "n": n, **{key: test[key] for key in ("difference", "ci", "p")}})
    return found


def _settings(path: Path) -> dict[str, Any]:
    """Read every setting of a run by its full name."""
    written = path / "config.json"
    return dict(_flat(read_as(dict[str, Any], written))) if written.is_file() else {}


_HOW = ("engine", "workers", "memory", "base_device", "thinking_device", "shown")
"""Settings on which results do not depend."""


def _flat(settings: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += _flat(value, f"{before}{key}.") if isinstance(value, dict) else [(f"{before}{key}", value)]
    return [row for row in rows if row[0] not in _HOW]
