"""``probe adapter`` on a random model of one's own: from texts to an adapter, its report, and other formats."""

import json

import pytest
from peft import AutoPeftModelForCausalLM
from typer.testing import CliRunner

from probe._config import from_dict
from probe._errors import ProbeError
from probe.adapters import save_sparsify
from probe.cli import app
from probe.pipeline import AdapterConfig, export_adapter, tune_adapter
from probe.problems import load_problems
from tests.adapters.conftest import random_topk


@pytest.fixture
def settings(tiny_folder, tmp_path):
    lines = [{"prompt": "Question:", "text": f" {p.question}"} for p in load_problems("story").take("train", 12)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return {
        "model": {"path": str(tiny_folder("llama"))},
        "texts": str(tmp_path / "texts.jsonl"),
        "sae": str(save_sparsify(random_topk(), tmp_path)),
        "device": "cpu",
        "tune": {"steps": 6, "batch_tokens": 100, "check_every": 3, "lr": 0.01},
    }


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_from_texts_to_formats(settings, tmp_path):
    out = tmp_path / "out"
    done, found = tune_adapter(from_dict(AdapterConfig, settings), out)
    assert done.best["loss"] < done.history[0]["loss"] and found["effect"]["value"] > 0
    assert "rank 8" in (done.folder / "README.md").read_text()
    again, same = tune_adapter(from_dict(AdapterConfig, settings), out)
    assert (again.history, same) == (json.loads(json.dumps(done.history)), found)
    made = export_adapter(out, ["peft", "merged", "gguf"])
    assert [path.name for path in made] == ["peft", "merged", "adapter.gguf"] and all(path.exists() for path in made)
    AutoPeftModelForCausalLM.from_pretrained(str(made[0]))


def test_the_command(settings, tmp_path):
    out, config = tmp_path / "out", tmp_path / "adapter.yaml"
    config.write_text(json.dumps(settings))
    run = CliRunner()
    done = run.invoke(app, ["adapter", "tune", "--config", str(config), "--insert", "noise", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "validation loss" in done.output and "KL with the SAE in place" in done.output
    assert json.loads((out / "adapter" / "probe.json").read_text())["objective"]["insert"] == "noise"
    done = run.invoke(app, ["adapter", "export", str(out)])
    assert done.exit_code == 0 and str(out / "peft") in done.output
    done = run.invoke(app, ["adapter", "attach", str(out), "--question", "Mia has 22 cards.", "--new-tokens", "4"])
    assert done.exit_code == 0 and "without" in done.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": "none.jsonl"}, "there is no file none.jsonl"),
        ({"objective": "resah"}, "no objective 'resah'"),
        ({"run": "runs/x"}, "both a run and a model"),
        ({"model": None}, "name a run"),
        ({"sae": "nowhere"}, "nowhere holds no SAE"),
        ({"sae": None}, "resa needs an SAE"),
        ({"plan": {"rank": 0}}, r"plan\.rank is 0"),
        ({"tune": {"lr": 0}}, r"tune\.lr is 0"),
        ({"device": "cuda:7"}, "cuda"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(settings, tmp_path, change, said):
    with pytest.raises(ProbeError, match=said) as raised:
        tune_adapter(from_dict(AdapterConfig, settings | change), tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_broken_texts_are_named_by_line(settings, tmp_path):
    for text, said in (
        ('{"text": "a"}\n{"tex": "b"}', "line 2: write"),
        ("[1]", "line 1"),
        ('{"text": "a"}', "1 texts"),
    ):
        (tmp_path / "texts.jsonl").write_text(text)
        with pytest.raises(ProbeError, match=said):
            tune_adapter(from_dict(AdapterConfig, settings), tmp_path / "out")
    with pytest.raises(ProbeError, match="holds no finished adapter"):
        export_adapter(tmp_path, ["peft"])
    with pytest.raises(ProbeError, match="no format 'onnx'"):
        export_adapter(tmp_path, ["onnx"])
