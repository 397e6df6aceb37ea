"""The report on an adapter: zeros are exact, and latents that were trained to move are found."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from probe.adapters import AdapterPlan, Objective, Replace, TuneConfig, inserted, tune, verify
from probe.adapters.exports.lora import WEIGHTS
from probe.adapters.training.objective import kl
from tests.adapters.conftest import random_topk
from tests.adapters.test_tune import texts

CONFIG = TuneConfig(steps=30, batch_tokens=120, lr=0.02, check_every=10)


@pytest.fixture
def sae():
    return random_topk()


def test_an_adapter_of_nothing_does_nothing(llama, sae, tmp_path):
    tune(llama, texts(6), texts(3), Objective("ce"), folder=tmp_path, config=TuneConfig(steps=1))
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({n: torch.zeros_like(t) if "lora_B" in n else t for n, t in tensors.items()}, tmp_path / WEIGHTS)
    found = verify(llama, tmp_path, sae, texts(8, 5))
    assert found.moved == [] and set(found.reach.values()) == {0.0} and len(found.claimed) == 8
    assert (found.effect.value, found.effect.ci) == (0.0, (0.0, 0.0)) and found.site_changed.value == 0.0
    assert found.damage["like"]["ce"].value == 0.0 and "general" not in found.damage
    assert found.insertion["sae"].value == pytest.approx(found.insertion["sae and adapter"].value) != 0.0


def test_above_a_stop_gradient_nothing_happens_at_the_site(llama, sae, tmp_path):
    """The published recipe cannot change what its SAE reads."""
    tune(llama, texts(12), texts(4, 1), Objective("resa", sae, through=False), folder=tmp_path, config=CONFIG)
    found = verify(llama, tmp_path, sae, texts(5, 5), general=texts(2, 9))
    assert found.site_changed.value == 0.0 and found.moved == []
    assert found.reach[0] == found.reach[1] == 0.0 < found.reach[3]
    assert found.effect.ci[0] > 0 and found.damage["general"]["kl"].value > 0
    assert found.insertion["sae and adapter"].value < found.insertion["sae"].value, "what it was trained for"
    one = texts(8, 5)[0]
    with torch.no_grad():
        ids = torch.tensor([one.ids])
        plain = llama.hf(ids).logits
        with inserted(llama, Replace(sae)):
            damaged = llama.hf(ids).logits
    where = slice(one.start - 1, -1)
    expected = kl(plain[0, where], damaged[0, where]).mean().item()
    alone = verify(llama, tmp_path, sae, [one])
    assert alone.insertion["sae"].value == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_latents_that_were_trained_to_move_are_found(llama, sae, tmp_path):
    objective = Objective("feature-match", sae, latents=(3, 7), value=9.0)
    gentle = replace(CONFIG, steps=60, lr=0.005)
    tune(llama, texts(24), texts(6, 1), objective, folder=tmp_path, plan=AdapterPlan(rank=4), config=gentle)
    found = verify(llama, tmp_path, sae, texts(20, 5), most=2)
    assert {3, 7} & set(found.moved[:4]), found.moved
    assert found.site_changed.value > 0.01 and found.reach[2] == found.reach[3] == 0.0
    assert set(found.necessity) == {"claimed", "random"} and found.claimed == found.moved[:2]
    assert found.effect.ci[0] > 0 and "\n" not in repr(found)
    given = json.loads(json.dumps(verify(llama, tmp_path, sae, texts(2, 5), latents=(3, 7)).to_dict()))
    assert given["claimed"] == [3, 7] and given["moved"] == [], "two texts are too few for a test"
    one = verify(llama, tmp_path, sae, texts(1, 5), latents=(3,)).to_dict()
    assert one["effect"]["value"] > 0 and one["effect"]["ci"] is None
