"""``probe circuits`` on the bundled pair, from traces to the page, and its refusals."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from probe.circuits import Circuit
from probe.cli import app
from probe.config import from_dict
from probe.errors import ProbeError
from probe.pipeline import CircuitConfig, find_circuit
from probe.reports import circuit_table, circuit_view, faithfulness_figure, heads_figure

SMALL = {"train": 24, "test": 4, "n_pairs": 12, "steps": 2, "draws": 2, "shares": [0.05, 0.2, 1.0], "device": "cpu"}
SHORT = {"max_new_tokens": 70}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of the command on the thinking model alone, and what it printed."""
    home = tmp_path_factory.mktemp("circuits")
    config, out = home / "circuits.yaml", home / "out"
    config.write_text(json.dumps(SMALL | SHORT))
    told = ["--thinking", "bundled:tiny-rl", "--problems", "story", "--behaviour", "check"]
    done = CliRunner().invoke(app, ["circuits", *told, "--config", str(config), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out, done.output


@pytest.mark.slow
def test_from_traces_to_the_page(whole):
    out, said = whole
    assert "check per rollout, whole model" in said and "logit difference, without a" in said
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


@pytest.mark.slow
def test_killed_and_resumed_is_never_killed(whole, tmp_path, kill):
    settings = {"thinking": {"path": "bundled:tiny-rl"}, "problems": "story", "behaviour": "check"}
    config, out = from_dict(CircuitConfig, settings | SMALL | SHORT), tmp_path / "out"
    for stage in (
        "scores/parts/00000.value.safetensors", "circuit/sizes/second-24.value.json",
        "ablation/pairs/whole.value.json", "ablation/rollouts/whole.value.json",
    ):  # fmt: skip
        kill(find_circuit, config, out, stage)
        assert not (out / "results.json").exists()
    find_circuit(config, out)
    for name in ("results.json", "circuit.json"):
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes()
    with pytest.raises(ProbeError, match="ablation was made with other settings"):
        find_circuit(replace(config, heads=2), out)


@pytest.mark.slow
def test_pairs_of_texts_need_no_behaviour(tmp_path):
    rows = [(f"That makes {a} + 3 =", f"Next That makes {a + 1} + 3 =", f" {a + 3}", f" {a + 4}") for a in range(1, 7)]
    names = ("clean", "corrupt", "right", "wrong")
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    config = CircuitConfig("tiny-rl", pairs=str(file), steps=1, draws=1, heads=1, shares=(0.5, 1.0), device="cpu")
    results = find_circuit(config, tmp_path / "out")
    assert results["behaviour"] == "own" and results["problems"] is None and results["where"] == "everywhere"
    assert results["pairs"]["found"] == results["pairs"]["held"] == 3 and results["pairs"]["about"]["cut"] == 6
    assert results["faithfulness"]["values"][-1] == pytest.approx(1, abs=1e-3)
    assert results["heads"].keys() == {"heads", "logit difference"}
    assert "logit difference, whole model" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pair": "tiny-rll"}, "tiny-rl"),
        ({"pair": None}, "name one model"),
        ({"thinking": {"path": "x"}}, "name one model"),
        ({"sentence": "So"}, "name one behaviour"),
        (
            {
                "behaviour": None,
                "sentence": "(",
            },
            "no regular expression",
        ),
        ({"pairs": "p.jsonl"}, "pairs of texts need no behaviour"),
        ({"model": "both"}, "use thinking or base"),
        ({"n_pairs": 1}, "n_pairs is 1"),
        ({"seed": -1}, "not a seed"),
        ({"keeps": 0}, "keeps is 0"),
        ({"keeps": 80}, "keeps is 80"),
        ({"shares": []}, "shares is"),
        ({"shares": [0.5, 0.1]}, "ascending"),
        ({"shares": [5, 20]}, "at most 1"),
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
