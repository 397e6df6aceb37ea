"""``probe diff`` on the bundled pair, from traces to the page, with a series, and its refusals."""

import json

import pytest
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict
from probe.errors import ProbeError
from probe.models import bundled_folder
from probe.pipeline import DiffConfig, diff
from probe.reports import diff_table, latents_figure, series_figure, shift_figure, transfer_figure

SMALL = {
    "parts": ["tokens", "heads", "truth", "latents"],
    "problems": 10,
    "pairs": 8,
    "test": 2,
    "draws": 1,
    "heads": 1,
    "factors": [0.5],
    "device": "cpu",
}


@pytest.mark.slow
def test_from_texts_to_the_page(tmp_path):
    config, out = tmp_path / "diff.yaml", tmp_path / "out"
    config.write_text(json.dumps(SMALL))
    series = [f"{way}={bundled_folder('tiny-series') / way}" for way in ("rl", "rl")]
    told = [word for each in series for word in ("--series", each)]
    done = CliRunner().invoke(
        app,
        ["diff", "--pair", "tiny-rl", "--behaviour", "check", "--config", str(config), "--out", str(out), *told],
    )
    assert done.exit_code == 0, done.output
    results = json.loads((out / "results.json").read_text())
    assert {each["part"] for each in results["findings"]} == set(SMALL["parts"]) and not results["missing"]
    assert [run["name"] for run in results["series"]] == ["rl", "rl"]
    assert results["series"][0]["steps"] == [0, 15, 30, 60] and results["series"][0]["curve"] is None
    twice = next(each for each in results["agreement"] if each["runs"] == ["rl", "rl"])
    assert twice["value"] == pytest.approx(1), "a run named twice agrees with itself"
    assert results["chance"][0]["runs"] == 2
    page = (out / "report.html").read_text()
    assert "Step by step" in page and "One SAE over both" in page and 'src="http' not in page
    assert shift_figure(results["heads"]).data and len(series_figure(results["series"]).data) >= 3
    assert latents_figure(results["latents"]).data and transfer_figure(results["truth"], "truth").data
    assert diff_table(results).row_count >= len(results["findings"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pair": "tiny-rll"}, "tiny-rl"),
        ({"parts": ["head"]}, "did you mean 'heads'"),
        ({"series": ["runs/rl"]}, "write NAME=FOLDER"),
        ({"series": ["rl=nowhere"]}, "nowhere holds no checkpoint-STEP"),
        ({"pairs": 2}, "pairs is 2"),
        ({"behaviuor": "check"}, "behaviour"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, change, said):
    with pytest.raises(ProbeError, match=said):
        diff(from_dict(DiffConfig, {"pair": "tiny-rl"} | change), tmp_path / "out")
    assert not (tmp_path / "out").exists()
