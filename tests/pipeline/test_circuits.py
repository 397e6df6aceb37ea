"""``probe circuits`` on the bundled pair, from traces to the page, and its refusals."""

import json

import pytest
from typer.testing import CliRunner

from probe.circuits import Circuit
from probe.cli import app
from probe.config import from_dict
from probe.errors import ProbeError
from probe.pipeline import CircuitConfig, find_circuit
from probe.reports import circuit_table, circuit_view, faithfulness_figure, heads_figure

SMALL = {"train": 30, "test": 6, "n_pairs": 10, "steps": 2, "draws": 2, "shares": [0.05, 0.2, 1.0], "device": "cpu"}


@pytest.mark.slow
def test_from_traces_to_the_page(tmp_path):
    config = tmp_path / "circuits.yaml"
    config.write_text(json.dumps(SMALL))
    out = tmp_path / "out"
    told = ["--pair", "tiny-rl", "--behaviour", "check", "--config", str(config), "--out", str(out)]
    done = CliRunner().invoke(app, ["circuits", *told])
    assert done.exit_code == 0, done.output
    assert "check per rollout, whole model" in done.output
    results = json.loads((out / "results.json").read_text())
    circuit = Circuit.load(out / "circuit.json")
    assert len(circuit) == results["edges"] < results["of"] == 479
    assert results["faithfulness"]["values"][-1] == pytest.approx(1.0, abs=1e-3)
    assert len(results["heads"]["heads"]) == 3 and results["heads"]["count"]["whole"]["value"] > 0
    page = (out / "report.html").read_text()
    assert circuit.listed(1)[0][0].replace(">", "&gt;").replace("<", "&lt;") in page
    assert circuit_view(circuit).data in page
    assert len(heads_figure(circuit).data[0].z) == 4 and len(faithfulness_figure(results).data) == 2
    assert circuit_table(results).row_count == 3 + 4 * 4, "three figures of the circuit, four sides of four measures"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pair": "tiny-rll"}, "tiny-rl"),
        ({"model": "both"}, "use thinking or base"),
        ({"n_pairs": 1}, "n_pairs is 1"),
        ({"seed": -1}, "not a seed"),
        ({"behavior": "check"}, "behaviour"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, change, said):
    with pytest.raises(ProbeError, match=said):
        find_circuit(from_dict(CircuitConfig, {"pair": "tiny-rl", "behaviour": "check"} | change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_behaviour_that_does_not_occur_is_named(tmp_path):
    config = CircuitConfig("tiny-rl", "chekc", train=2, device="cpu")
    with pytest.raises(ProbeError, match="no type of sentence is called 'chekc'; did you mean 'check'"):
        find_circuit(config, tmp_path / "out")
