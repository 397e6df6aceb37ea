"""Adapters learn the same in any budget, and after memory ran out."""

import logging

import pytest
import torch
from safetensors.torch import load_file

from probe.adapters import Objective, TuneConfig, pack, tune, verify
from probe.adapters.exports.lora import WEIGHTS
from probe.adapters.training.plan import adapted, trained
from probe.adapters.training.tune import AdapterPlan
from probe.hooks import Head, checkpointed
from probe.models import ModelConfig, load_model
from tests.adapters.conftest import random_topk
from tests.adapters.test_tune import texts

CONFIG = TuneConfig(steps=4, batch_tokens=60, pack_to=30, lr=0.01, check_every=2)


def objectives(source):
    sae = random_topk()
    return {
        "ce": Objective("ce"),
        "resa": Objective("resa", sae),
        "resa inside a block": Objective("resa", random_topk(site="blocks.1.hook_mlp_out")),
        "steer": Objective("steer-distil", sae, latents=(3, 7), value=6.0),
        "features": Objective("feature-match", sae, latents=(3, 7), source=source),
        "source": Objective("source-distil", source=source),
    }


NAMES = ("ce", "resa", "resa inside a block", "steer", "features", "source")


@pytest.mark.parametrize("name", NAMES)
def test_chunks_and_checkpoints_give_the_same_gradient(llama, tiny_folder, name):
    objective = objectives(load_model(ModelConfig(str(tiny_folder("llama", seed=2))), device="cpu"))[name]
    with adapted(llama, AdapterPlan(), objective, seed=0) as wrapped:
        with torch.no_grad():
            for tensor in trained(wrapped).values():
                tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(tensor.numel()))
        wrapped.train()
        batch, found = pack(llama, texts(5), 40), []
        objective.losses(llama, wrapped.disable_adapter, batch).sum().backward()
        whole = [tensor.grad.clone() for tensor in trained(wrapped).values()]
        wrapped.zero_grad()
        with checkpointed(llama), objective.scoring(llama, wrapped.disable_adapter, batch, 7) as losses:
            losses.sum().backward()
        found = [tensor.grad for tensor in trained(wrapped).values()]
        assert max(grad.abs().max() for grad in whole) > 1e-3
        for a, b in zip(found, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(grad.abs().max() for grad in whole).item())


def learned(model, objective, folder):
    done = tune(model, texts(9), texts(4, 1), objective, folder=folder, config=CONFIG)
    return [check["loss"] for check in done.history], load_file(folder / WEIGHTS)


@pytest.mark.parametrize("name", ["ce", "resa"])
@pytest.mark.slow
def test_a_small_budget_and_memory_that_runs_out_change_nothing(llama, tmp_path, monkeypatch, caplog, name):
    """Memory runs out in a step, and again when it is tried with half of the size."""
    objective = Objective("ce") if name == "ce" else Objective("resa", random_topk())
    losses, weights = learned(llama, objective, tmp_path / "whole")
    llama.memory = 60_000
    runs = {"small": learned(llama, objective, tmp_path / "small")}
    llama.memory = None
    real, calls = Head.__call__, []

    def runs_out(self, states):
        if torch.is_grad_enabled():
            calls.append(None)
            if len(calls) in (3, 5):
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, states)

    monkeypatch.setattr(Head, "__call__", runs_out)
    with caplog.at_level(logging.WARNING, "probe"):
        runs["out of memory"] = learned(llama, objective, tmp_path / "out")
    assert len([record for record in caplog.records if "trying again" in record.getMessage()]) == 2
    for each, tensors in runs.values():
        assert each == pytest.approx(losses, rel=1e-4)
        for tensor_name, tensor in tensors.items():
            torch.testing.assert_close(tensor, weights[tensor_name], rtol=1e-2, atol=2e-4)


def test_verification_is_the_same_in_a_small_budget(llama, tmp_path):
    sae = random_topk()
    tune(llama, texts(9), texts(4, 1), Objective("resa", sae), folder=tmp_path, config=CONFIG)
    whole = verify(llama, tmp_path, sae, texts(6, 5)).to_dict()
    llama.memory = 20_000
    small = verify(llama, tmp_path, sae, texts(6, 5)).to_dict()
    for name in ("effect", "site_changed"):
        assert small[name]["value"] == pytest.approx(whole[name]["value"], rel=1e-4)
    assert small["damage"]["like"]["ce"]["value"] == pytest.approx(whole["damage"]["like"]["ce"]["value"], rel=1e-3)
