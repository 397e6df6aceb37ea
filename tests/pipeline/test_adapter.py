"""``probe adapter`` on a random model and texts: from texts to an adapter, its report, and other formats."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from probe.adapters import attached, compare_export, load_sae, save_sparsify
from probe.adapters.exports.lora import WEIGHTS
from probe.cli import app
from probe.config import from_dict
from probe.counters import SCHEMES
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model, load_pair
from probe.pipeline import (
    AdapterConfig,
    StudyConfig,
    TrainSAEConfig,
    answers,
    export_adapter,
    hub_folder,
    push_adapter,
    study,
    train_adapter_sae,
    tune_adapter,
    verify_adapter,
)
from probe.pipeline.adapter.inputs import Questions
from probe.problems import load_problems
from probe.taxonomy import find_behaviour
from tests.adapters.conftest import random_topk


@pytest.fixture
def settings(tiny_folder, tmp_path):
    lines = [{"prompt": "Question:", "text": f" {p.question}"} for p in load_problems("story").take("train", 40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return {
        "model": {"path": str(tiny_folder("llama"))},
        "texts": str(tmp_path / "texts.jsonl"),
        "sae": str(save_sparsify(random_topk(), tmp_path)),
        "device": "cpu",
        "tune": {"steps": 6, "batch_tokens": 100, "check_every": 3, "lr": 0.01},
    }


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.slow
def test_from_texts_to_a_folder_for_a_hub(settings, tmp_path):
    out = tmp_path / "out"
    done, found = tune_adapter(from_dict(AdapterConfig, settings), out)
    assert done.best["loss"] < done.history[0]["loss"] and found["effect"]["value"] > 0
    card = (done.folder / "README.md").read_text()
    assert "rank 8" in card and "| KL(base ‖ adapter), nats a token | " in card and "`resa`" in card
    assert "Do these latents carry the effect?" in (out / "report.html").read_text()
    again, same = tune_adapter(from_dict(AdapterConfig, settings), out)
    assert (again.history, same) == (json.loads(json.dumps(done.history)), found)
    hub = hub_folder(out)
    there = {str(path.relative_to(hub)) for path in hub.rglob("*") if path.is_file()}
    assert there == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "probe.json",
        "verification.json",
        "report.html",
        "sae/cfg.json",
        "sae/sae_weights.safetensors",
    }
    with pytest.raises(ProbeError, match=r"me/mine was not pushed .*; the folder to push is"):
        push_adapter(out, "me/mine")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.long
def test_exports_are_checked_in_a_fresh_process(settings, tmp_path):
    out = tmp_path / "out"
    tune_adapter(from_dict(AdapterConfig, settings), out)
    made = export_adapter(out, ["peft", "merged", "gguf"])
    assert [path.name for path in made] == ["peft", "merged", "adapter.gguf"] and all(path.exists() for path in made)
    AutoPeftModelForCausalLM.from_pretrained(str(made[0]))
    for figures in json.loads((out / "exports.json").read_text()).values():
        assert figures["difference"] <= 1e-5 * max(1, figures["logit"]) and figures["effect"] > 1e-3
    assert (hub_folder(out) / "adapter.gguf").exists()


@pytest.mark.slow
@pytest.mark.long
def test_an_export_that_is_not_the_adapter_is_found_out(settings, tmp_path):
    out = tmp_path / "out"
    tune_adapter(from_dict(AdapterConfig, settings | {"sae": None, "objective": "ce"}), out)
    (path,) = export_adapter(out, ["peft"])
    tensors = load_file(path / WEIGHTS)
    some = next(name for name in tensors if "lora_B" in name)
    save_file({**tensors, some: 2 * tensors[some]}, path / WEIGHTS)
    model = load_model(ModelConfig(settings["model"]["path"]), device="cpu")
    with pytest.raises(ProbeError, match="does not do what the adapter does"):
        compare_export(model, out / "adapter", "peft", path)
    (path / WEIGHTS).write_bytes(b"no")
    with pytest.raises(ProbeError, match="a fresh process cannot read it"):
        compare_export(model, out / "adapter", "peft", path)


def test_on_another_base_beside_random_adapters(settings, tmp_path):
    """The adapter is measured on the other weights, beside random adapters."""
    out, other = tmp_path / "out", tmp_path / "other"
    tune_adapter(from_dict(AdapterConfig, settings), out)
    model = load_model(ModelConfig(settings["model"]["path"]), device="cpu")
    with torch.no_grad():
        for name, tensor in model.hf.named_parameters():
            if "mlp" in name:
                tensor.mul_(1.5)
    model.hf.save_pretrained(other)
    model.tokenizer.save_pretrained(other)
    found = verify_adapter(out, str(other))
    assert found == json.loads((out / "foreign.json").read_text())
    rows = found["rows"]
    assert set(rows) == {"adapter", "random", "none"} and rows["adapter"]["against"] == "random"
    assert rows["none"]["measures"]["deployed"]["value"] == 0.0 < rows["adapter"]["measures"]["deployed"]["value"]
    assert rows["adapter"]["difference"]["ce"]["value"] == pytest.approx(
        rows["adapter"]["measures"]["ce"]["value"] - rows["random"]["measures"]["ce"]["value"]
    )
    assert "which it was not trained on" in (out / "report.html").read_text()
    with pytest.raises(ProbeError, match="whose weights differ"), attached(model, out / "adapter"):
        pass


def test_a_study_is_refused_in_several_processes(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ProbeError, match="start it without torchrun"):
        study(from_dict(StudyConfig, {"adapter": settings}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_and_rows_added_to_it(settings, tmp_path):
    out = tmp_path / "out"
    given = {"adapter": settings | {"sae": None}, "sae": {"latents": 64, "k": 4, "steps": 20, "batch_size": 64}}
    first = given | {"rows": ["resa", "resa:noise"], "seeds": [0]}
    found = study(from_dict(StudyConfig, first), out)
    assert found["sae"]["latents"] == 64 and found["sae"]["site"] == "resid_post.1" and found["problems"] == 0
    row = found["rows"]["resa"]
    assert row["against"] == "resa:noise" and row["measures"]["adapted"]["value"] < row["measures"]["inserted"]["value"]
    assert row["cost"]["tokens"] > 0 and not (out / "sae" / "activations").exists()
    more = study(from_dict(StudyConfig, first | {"rows": ["resa", "resa:noise", "ce", "random"]}), out)
    assert list(more["rows"]) == ["resa", "resa:noise", "ce", "random"]
    assert more["rows"]["ce"]["measures"]["ce"]["value"] < more["rows"]["random"]["measures"]["ce"]["value"]
    page = (out / "report.html").read_text()
    assert "Differences from the noise control" in page and "resa:noise" in page
    with pytest.raises(ProbeError, match="other settings"):
        study(from_dict(StudyConfig, first | {"adapter": settings | {"sae": None, "seed": 5}}), out)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["random"], "must begin with a row that is trained"),
        (["resa", "source-distil"], "name a run"),
        (["feature-match"], "needs latents"),
        (["resa:nose"], "did you mean 'noise'"),
    ],
)
def test_a_study_that_cannot_work_is_refused(settings, tmp_path, rows, said):
    with pytest.raises(ProbeError, match=said):
        study(from_dict(StudyConfig, {"adapter": settings, "rows": rows, "seeds": [0]}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_finished_adapter_finds_its_model_without_the_run(settings, tmp_path):
    out = tmp_path / "out"
    tune_adapter(from_dict(AdapterConfig, settings | {"sae": None, "objective": "ce"}), out)
    told = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(told | {"run": str(tmp_path / "gone"), "model": None, "texts": None}))
    said = answers(out, "Mia has 22 cards.", 4)
    assert set(said) == {"with", "without"}
    card = json.loads((out / "adapter" / "probe.json").read_text())
    assert card.pop("model")["path"] == settings["model"]["path"]
    (out / "adapter" / "probe.json").write_text(json.dumps(card))  # as earlier versions wrote it
    with pytest.raises(ProbeError, match="gone"):
        answers(out, "Mia has 22 cards.", 4)


def test_any_kind_of_behaviour_is_counted_in_rollouts():
    problems = load_problems("story")
    some = problems.take("test", 6)
    asked, model = Questions(problems, some, 120), load_pair("tiny-rl", device="cpu").thinking
    traces = asked.traces(model)
    counts = asked.counted(model, find_behaviour("story:verification"))
    assert counts == [SCHEMES["story"].count(trace)["verification"] for trace in traces] and sum(counts) > 0
    typed = asked.counted(model, find_behaviour("check", problem_set=problems))
    assert typed == counts, "in the grammar a check is a verification"
    cut = Questions(problems, some, 12)
    assert any(trace.truncated for trace in cut.traces(model))
    assert cut.counted(model, find_behaviour("story:verification"), ended=True) == [0.0] * len(some)
    with pytest.raises(ProbeError, match="counts in whole answers"):
        find_behaviour("countdown:verification")


@pytest.mark.slow
def test_the_commands(settings, tmp_path):
    out, config = tmp_path / "out", tmp_path / "adapter.yaml"
    config.write_text(json.dumps(settings))
    run = CliRunner()
    done = run.invoke(app, ["adapter", "tune", "--config", str(config), "--insert", "noise", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "validation loss" in done.output and "KL with the SAE inserted" in done.output
    assert json.loads((out / "adapter" / "probe.json").read_text())["objective"]["insert"] == "noise"
    done = run.invoke(app, ["adapter", "verify", str(out)])
    assert done.exit_code == 0 and "KL with the SAE inserted" in done.output
    done = run.invoke(app, ["adapter", "export", str(out)])
    assert done.exit_code == 0 and str(out / "peft") in done.output and "logits differ by" in done.output
    done = run.invoke(app, ["adapter", "attach", str(out), "--question", "Mia has 22 cards.", "--new-tokens", "4"])
    assert done.exit_code == 0 and "without" in done.output
    done = run.invoke(app, ["push", str(out), "me/mine", "--dry-run"])
    assert done.exit_code == 0 and "adapter_model.safetensors" in done.output
    assert "would be uploaded to me/mine" in done.output
    (tmp_path / "study.yaml").write_text(json.dumps({"adapter": settings, "sae": {"steps": 5}}))
    told = ["--config", str(tmp_path / "study.yaml"), "--rows", "ce", "--seeds", "3", "--steps", "2"]
    done = run.invoke(app, ["adapter", "study", *told, "--out", str(tmp_path / "study")])
    assert done.exit_code == 0 and "deployed" in done.output, done.output
    assert json.loads((tmp_path / "study" / "study.json").read_text())["seeds"] == [3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": "none.jsonl"}, "there is no file none.jsonl"),
        ({"objective": "resah"}, "no objective 'resah'"),
        ({"run": "runs/x"}, "both a run and a model or texts are given"),
        ({"model": None}, "name a run"),
        ({"sae": "nowhere"}, "nowhere holds no SAE"),
        ({"sae": None}, "resa needs an SAE"),
        ({"plan": {"rank": 0}}, r"plan\.rank is 0"),
        ({"tune": {"lr": 0}}, r"tune\.lr is 0"),
        ({"device": "cuda:7"}, "cuda"),
        ({"behaviour": "story:verification"}, "name a run"),
        ({"held": 0}, "held is 0"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(settings, tmp_path, change, said):
    with pytest.raises(ProbeError, match=said) as raised:
        tune_adapter(from_dict(AdapterConfig, settings | change), tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_broken_texts_are_named_by_line(settings, tmp_path):
    for text, said in (
        ('{"text": "a"}\n{"tex": "b"}', "2: write"),
        ("[1]", "1 is not a JSON object"),
        ('{"text": "a"}', "are 1 texts: give at least 10"),
        ("", "has no text"),
    ):
        (tmp_path / "texts.jsonl").write_text(text)
        with pytest.raises(ProbeError, match=said):
            tune_adapter(from_dict(AdapterConfig, settings), tmp_path / "out")
    with pytest.raises(ProbeError, match="holds no finished adapter"):
        export_adapter(tmp_path, ["peft"])
    with pytest.raises(ProbeError, match="no format 'onnx'"):
        export_adapter(tmp_path, ["onnx"])


def test_an_ordinary_sae_is_trained(settings, tmp_path):
    out = tmp_path / "sae"
    told = {"adapter": settings | {"sae": None}, "sae": {"latents": 64, "k": 4, "steps": 30, "batch_size": 64}}
    found = train_adapter_sae(from_dict(TrainSAEConfig, told), out)
    assert found["site"] == "resid_post.1" and found["latents"] == 64 and found["kl"] > 0
    assert not (out / "activations").exists()
    a, b = load_sae(out / "sae"), load_sae(out / "sparsify" / "layers.1")
    state = torch.randn(5, 32)
    torch.testing.assert_close(a.encode(state), b.encode(state))
    before = (out / "sae" / "sae_weights.safetensors").stat().st_mtime_ns
    assert train_adapter_sae(from_dict(TrainSAEConfig, told), out) == found
    assert (out / "sae" / "sae_weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ProbeError, match="holds an SAE with other settings"):
        train_adapter_sae(from_dict(TrainSAEConfig, told | {"seed": 1}), out)
    with pytest.raises(ProbeError, match="resid_post"):
        train_adapter_sae(from_dict(TrainSAEConfig, told | {"sae": {"site": "resid_post.9"}}), tmp_path / "no")
    assert not (tmp_path / "no").exists()
