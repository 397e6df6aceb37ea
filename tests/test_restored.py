"""Every block that changes a model gives it back as it was, also if an error ends the block or its beginning."""

import hashlib

import pytest
import torch
from peft import LoraConfig, get_peft_model

from probe.adapters import Ablate, Noise, Replace, attached, inserted, shell
from probe.adapters.exports.attach import switched_off
from probe.circuits import heads_changed
from probe.errors import ProbeError
from probe.hooks import Add, Tokens, capture, edit
from probe.models import ModelConfig, load_model
from tests.adapters.conftest import random_topk

IDS = torch.tensor([[1, 8, 9, 30, 31, 32]])


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    hf = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu").hf
    folder = tmp_path_factory.mktemp("adapter")
    with pytest.warns(FutureWarning):
        get_peft_model(hf, LoraConfig(target_modules=["v_proj"], init_lora_weights=False)).save_pretrained(folder)
    return folder


def state(hf):
    """What a model is: its modules with their attributes, hooks and modes, its weights and its settings."""
    modules = {
        name: (
            id(module),
            module.training,
            set(vars(module)),
            {k: len(v) for k, v in vars(module).items() if "hooks" in k},
        )
        for name, module in hf.named_modules()
    }
    weights = {
        name: (id(p), p.requires_grad, hashlib.sha256(p.detach().numpy().tobytes()).digest())
        for name, p in hf.named_parameters()
    }
    return modules, weights, hf.config.to_dict(), hf.config._attn_implementation


def _switched(model, adapter):
    with attached(model, adapter):
        inside = state(model.hf)
        with pytest.raises(ZeroDivisionError), switched_off(model):
            _ = 1 / 0
        assert state(model.hf) == inside
    return attached(model, adapter)


SAE = random_topk()
BLOCKS = {
    "capture": lambda model, _: capture(model, ["resid_post.1", "mlp_out.2"], stop=False),
    "capture of a pattern": lambda model, _: capture(model, ["pattern.1", "q.0"], stop=False),
    "edit": lambda model, _: edit(model, {"resid_post.1": Add(torch.ones(32)), "z.0": torch.zeros_like}),
    "edit of a pattern": lambda model, _: edit(model, {"pattern.1": lambda pattern: pattern * 0.5}),
    "edit at some tokens": lambda model, _: edit(model, {"resid_post.1": Add(torch.ones(32), tokens=Tokens(ids=[8]))}),
    "heads": lambda model, _: heads_changed(model, [(1, 0), (2, 3)]),
    "an SAE": lambda model, _: inserted(model, Replace(SAE)),
    "noise": lambda model, _: inserted(model, Noise(SAE), tokens=torch.ones(1, 6, dtype=torch.bool)),
    "ablation": lambda model, _: inserted(model, Ablate(SAE, (1, 2))),
    "an adapter": attached,
    "an adapter switched off": _switched,
    "a shell": lambda model, _: shell(model),
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("ran", [False, True])
def test_an_error_in_a_block_leaves_no_trace(kind, ran, model, adapter):
    before = state(model.hf)
    with pytest.raises(ZeroDivisionError), BLOCKS[kind](model, adapter), torch.no_grad():
        if ran:
            model.hf(IDS)
        _ = 1 / 0
    assert state(model.hf) == before


@pytest.mark.parametrize(
    "begin",
    [
        lambda model, _: capture(model, ["pattern.1", "resid_post.9"]),
        lambda model, _: edit(
            model, {"resid_post.1": torch.zeros_like, "pattern.0": torch.zeros_like, "q.7": torch.zeros_like}
        ),
        lambda model, _: inserted(model, Replace(SAE), site="resid_post.9"),
        lambda model, _: inserted(model, Replace(random_topk(d_in=16))),
        lambda model, _: heads_changed(model, [(0, 0), (9, 0)]),
        lambda model, adapter: attached(model, adapter, adapter / "none"),
        lambda model, _: shell(model, 0),
    ],
)
def test_a_block_that_cannot_begin_changes_nothing(begin, model, adapter):
    before = state(model.hf)
    with pytest.raises(ProbeError), begin(model, adapter):
        pass
    assert state(model.hf) == before


def test_an_error_in_a_pass_leaves_no_trace(model, adapter):
    """The change of a state fails while the model runs, with an adapter on and a pattern read."""

    def fails(_):
        raise ZeroDivisionError

    before = state(model.hf)
    read, failing = capture(model, "pattern.2", stop=False), edit(model, {"resid_post.1": fails})
    with torch.no_grad(), attached(model, adapter), pytest.raises(ZeroDivisionError), read, failing:
        model.hf(IDS)
    assert state(model.hf) == before
    with torch.no_grad():
        model.hf(IDS)
