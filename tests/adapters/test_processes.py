"""Two processes learn what one does; half precision learns too."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from probe.adapters import Objective, TuneConfig, launched, tune, verify
from probe.adapters.exports.lora import WEIGHTS
from probe.models import ModelConfig, as_device, load_model
from tests.adapters.conftest import random_topk
from tests.adapters.test_tune import texts
from tests.forked import together

CONFIG = {"steps": 6, "batch_tokens": 60, "pack_to": 64, "lr": 0.01, "check_every": 3}


def one_of_several(folder: str, out: Path) -> None:
    """Train in one process of several, and write what it saw."""
    model, accelerator = load_model(ModelConfig(folder), device="cpu"), launched()
    assert accelerator is not None
    told = {"folder": out, "config": TuneConfig(**CONFIG), "accelerator": accelerator}
    done = tune(model, texts(9), texts(5, 1), Objective("resa", random_topk()), **told)
    seen = {"count": accelerator.num_processes, "history": done.history, "tokens": done.cost["tokens"]}
    Path(f"{out}-{accelerator.process_index}.json").write_text(json.dumps(seen))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(llama, tmp_path):
    told = {"folder": tmp_path / "one", "config": TuneConfig(**CONFIG)}
    one = tune(llama, texts(9), texts(5, 1), Objective("resa", random_topk()), **told)
    together(2, one_of_several, str(llama.config.path), tmp_path / "two")
    for rank in (0, 1):
        said = json.loads((tmp_path / f"two-{rank}.json").read_text())
        assert said["count"] == 2 and said["tokens"] == one.cost["tokens"]
        for look, other in zip(said["history"], one.history, strict=True):
            assert look["loss"] == pytest.approx(other["loss"], rel=1e-4)
    a, b = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-4, rtol=1e-2)


def test_a_program_that_runs_alone_needs_no_accelerator(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() is None


def test_half_precision_learns_and_is_verified(llama, tmp_path):
    half = load_model(llama.config, device="cpu", dtype="bfloat16")
    done = tune(half, texts(9), texts(5, 1), Objective("ce"), folder=tmp_path, config=TuneConfig(**CONFIG))
    assert done.best["loss"] < done.history[0]["loss"]
    assert {t.dtype for t in half.hf.state_dict().values()} == {torch.bfloat16}
    found = verify(half, tmp_path, random_topk(), texts(5, 5))
    assert found.effect.ci[0] > 0 and found.damage["like"]["ce"].value < 0


def test_devices_of_several_processes(monkeypatch):
    """Each takes its own."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert as_device("auto") == torch.device("cuda:1")
