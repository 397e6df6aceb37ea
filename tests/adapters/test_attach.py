"""Adapters attached, weighted and exported, compared with PEFT alone; GGUF files are read back."""

import json
import shutil
import warnings
from dataclasses import replace

import gguf
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from probe.adapters import (
    Adapter,
    AdapterPlan,
    Objective,
    TuneConfig,
    attached,
    canonical,
    gguf_control_vector,
    gguf_lora,
    merged,
    tune,
)
from probe.adapters.exports.lora import WEIGHTS
from probe.errors import ProbeError
from probe.models import ModelConfig, fingerprint, load_model
from probe.steering import BehaviourVectors, FixedVectors
from tests.adapters.test_tune import texts

IDS = torch.tensor([[1, 8, 9, 30, 31, 32]])
CONFIG = TuneConfig(steps=4, batch_tokens=60, lr=0.02, check_every=2)


def tuned(model, folder, seed=0, **plan):
    config, plan = replace(CONFIG, seed=seed), AdapterPlan(**plan)
    return tune(model, texts(6, seed), texts(3, seed), Objective("ce"), folder=folder, plan=plan, config=config).folder


def logits(model, *adapters, **more):
    with torch.no_grad():
        if not adapters:
            return model.hf(IDS).logits
        with attached(model, *adapters, **more):
            return model.hf(IDS).logits


def by_peft_alone(base, adapter):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)
        hf = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        return PeftModel.from_pretrained(hf, str(adapter)).eval()(IDS).logits


def test_attached_is_what_peft_computes_and_detached_is_the_model(llama, tiny_folder, tmp_path):
    plain, folder = logits(llama), tuned(llama, tmp_path / "a")
    state = torch.get_rng_state()
    on = logits(llama, folder)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are not touched"
    assert torch.equal(logits(llama), plain), "bit for bit"
    assert (on - plain).abs().max() > 1e-2
    torch.testing.assert_close(by_peft_alone(tiny_folder("llama"), folder), on, atol=1e-5, rtol=1e-5)


def test_in_half_precision_it_is_the_same_adapter(llama, tmp_path):
    folder = tuned(llama, tmp_path / "a")
    half = load_model(llama.config, device="cpu", dtype="bfloat16")
    before, plain = {name: tensor.clone() for name, tensor in half.hf.state_dict().items()}, logits(half)
    on, wanted = logits(half, folder, foreign=True), logits(llama, folder)
    assert torch.nn.functional.cosine_similarity(on.float(), wanted, dim=-1).min() > 0.999
    assert (on - plain).float().norm() > 5 * (on.float() - wanted).norm(), "nearer to the adapter than to the base"
    after = half.hf.state_dict()
    assert torch.equal(logits(half), plain) and all(torch.equal(after[name], before[name]) for name in before)


def test_weights_blocks_and_sums(llama, tmp_path):
    plain, one, other = logits(llama), tuned(llama, tmp_path / "a"), tuned(llama, tmp_path / "b", seed=1)
    assert torch.equal(logits(llama, Adapter(one, 0.0)), plain)
    assert torch.equal(logits(llama, Adapter(one), Adapter(other, 0.0)), logits(llama, one)), "to the bit"
    torch.testing.assert_close(logits(llama, one, other), logits(llama, other, one), atol=1e-5, rtol=1e-5)
    assert (logits(llama, one, other) - logits(llama, one)).abs().max() > 1e-2
    # At two blocks alone: as an adapter that has tensors there alone.
    some = tmp_path / "some"
    shutil.copytree(one, some)
    kept = {name: tensor for name, tensor in load_file(one / WEIGHTS).items() if ".layers.1." in name}
    save_file({n: t if n in kept else torch.zeros_like(t) for n, t in load_file(one / WEIGHTS).items()}, some / WEIGHTS)
    torch.testing.assert_close(logits(llama, Adapter(one, layers=(1,))), logits(llama, some), atol=1e-6, rtol=1e-6)
    half = tmp_path / "half"
    shutil.copytree(one, half)
    tensors = load_file(one / WEIGHTS)
    save_file({n: t / 2 if "lora_B" in n else t for n, t in tensors.items()}, half / WEIGHTS)
    torch.testing.assert_close(logits(llama, Adapter(one, 0.5)), logits(llama, half), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
def test_the_canonical_form_says_the_same(llama, tiny_folder, tmp_path, rslora):
    """With patterns of rank and alpha, and without the modules that add nothing."""
    folder = tuned(llama, tmp_path / "a")
    tensors, config = load_file(folder / WEIGHTS), json.loads((folder / "adapter_config.json").read_text())
    odd = "base_model.model.model.layers.2.mlp.up_proj"
    tensors[f"{odd}.lora_A.weight"] = tensors[f"{odd}.lora_A.weight"][:3].contiguous()
    tensors[f"{odd}.lora_B.weight"] = tensors[f"{odd}.lora_B.weight"][:, :3].contiguous()
    none = "base_model.model.model.layers.0.mlp.up_proj"
    tensors[f"{none}.lora_B.weight"].zero_()
    save_file(tensors, folder / WEIGHTS)
    changed = {"rank_pattern": {odd[17:]: 3}, "alpha_pattern": {odd[17:]: 5.0}, "use_rslora": rslora}
    (folder / "adapter_config.json").write_text(json.dumps(config | changed))
    out = canonical(folder, tmp_path / "out")
    said = json.loads((out / "adapter_config.json").read_text())
    assert said["r"] == said["lora_alpha"] == 8 and not said["rank_pattern"] and not said["use_rslora"]
    assert not any(none in name for name in load_file(out / WEIGHTS))
    seen = by_peft_alone(tiny_folder("llama"), out)
    torch.testing.assert_close(seen, logits(llama, folder), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen, logits(llama, out), atol=1e-5, rtol=1e-5)


def test_a_merged_model_is_a_model(model, tmp_path):
    plain, folder = logits(model), tuned(model, tmp_path / "a")
    whole = load_model(ModelConfig(str(merged(model, folder, tmp_path / "whole"))), device="cpu")
    torch.testing.assert_close(logits(whole), logits(model, folder), atol=1e-5, rtol=1e-4)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gpt2"])
def test_gguf_files_say_what_llama_cpp_reads(arch, tiny_folder, tmp_path):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    folder = tuned(model, tmp_path / "a", modules=() if arch != "gpt2" else ("c_fc", "c_attn"))
    file = gguf.GGUFReader(gguf_lora(model, folder, tmp_path / "lora.gguf"))
    fields = {name: field.contents() for name, field in file.fields.items()}
    assert (fields["general.architecture"], fields["general.type"]) == (arch, "adapter")
    assert (fields["adapter.type"], fields["adapter.lora.alpha"]) == ("lora", 0.0), "0: its scale is one"
    found = {tensor.name: torch.tensor(tensor.data) for tensor in file.tensors}
    named = {"llama": "mlp.down_proj", "qwen2": "mlp.down_proj", "gpt2": "mlp.c_fc"}[arch]
    path = f"transformer.h.1.{named}" if arch == "gpt2" else f"model.layers.1.{named}"
    theirs = "blk.1.ffn_up" if arch == "gpt2" else "blk.1.ffn_down"
    tensors = load_file(folder / WEIGHTS)
    a, b = (tensors[f"base_model.model.{path}.lora_{side}.weight"] for side in "AB")
    expected = 2.0 * b @ a
    torch.testing.assert_close(found[f"{theirs}.weight.lora_b"] @ found[f"{theirs}.weight.lora_a"], expected)
    assert len(found) == len(tensors)
    if arch == "llama":  # rows of a head: halves interleaved, so that pairs are neighbours
        q = "base_model.model.model.layers.1.self_attn.q_proj"
        mine, his = 2.0 * tensors[f"{q}.lora_B.weight"], found["blk.1.attn_q.weight.lora_b"]
        assert torch.equal(his[:8], mine[[0, 4, 1, 5, 2, 6, 3, 7]]), "of width 8"
        assert found["blk.1.attn_k.weight.lora_b"].shape[0] == 16, "half as many heads"


def test_control_vectors_are_static_or_refused(llama, tmp_path):
    vector = torch.randn(1, 32)
    made = FixedVectors.of(vector, 2, persistent=True)
    file = gguf.GGUFReader(gguf_control_vector(llama, made, tmp_path / "v.gguf"))
    ((name, data),) = [(tensor.name, torch.tensor(tensor.data)) for tensor in file.tensors]
    assert name == "direction.2" and torch.equal(data, vector[0])
    assert file.fields["controlvector.layer_count"].contents() == 4
    for mechanism, said in (
        (BehaviourVectors(1, 32, 2, persistent=True), "BehaviourVectors"),
        (FixedVectors.of(torch.randn(2, 32), 2, persistent=True), "of 2 behaviours"),
        (FixedVectors.of(vector, 2), "transient"),
        (FixedVectors.of(vector, 0, persistent=True), "block 0"),
    ):
        with pytest.raises(ProbeError, match=said):
            gguf_control_vector(llama, mechanism, tmp_path / "no.gguf")
    assert not (tmp_path / "no.gguf").exists()


def test_what_does_not_fit_is_refused(llama, tiny_folder, tmp_path):
    folder = tuned(llama, tmp_path / "a")
    other = load_model(ModelConfig(str(tiny_folder("llama", seed=5))), device="cpu")
    letters = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    gpt2 = load_model(ModelConfig(str(tiny_folder("gpt2"))), device="cpu")
    with pytest.raises(ProbeError, match=r"whose weights differ from those of llama-words-5; pass foreign=True"):
        logits(other, folder)
    assert not torch.equal(logits(other, folder, foreign=True), logits(other))
    with pytest.raises(ProbeError, match=r"shapes differ from those of llama-letters-0"):
        logits(letters, folder)
    with pytest.raises(ProbeError, match=r"adapts model.layers.0.mlp.down_proj, which gpt2-words-0 does not have"):
        logits(gpt2, folder)
    with pytest.raises(ProbeError, match="holds no adapter"):
        logits(llama, tmp_path)
    with pytest.raises(ProbeError, match="no adapter to attach"), attached(llama):
        pass
    tensors = load_file(folder / WEIGHTS)
    deeper = {name.replace(".layers.3.", ".layers.7."): tensor for name, tensor in tensors.items()}
    save_file(deeper, folder / WEIGHTS)
    with pytest.raises(ProbeError, match=r"adapts model.layers.7.mlp.down_proj, which .* does not have"):
        logits(llama, folder)
    (folder / WEIGHTS).write_bytes(b"{}")
    with pytest.raises(ProbeError, match="is damaged"):
        logits(llama, folder)


def test_a_fingerprint_tells_models_apart_and_not_an_adapter(llama, tiny_folder, tmp_path):
    mine = fingerprint(llama)
    with attached(llama, tuned(llama, tmp_path / "a")):
        assert fingerprint(llama)["weights"] == mine["weights"]
    theirs = fingerprint(load_model(ModelConfig(str(tiny_folder("llama", seed=5))), device="cpu"))
    assert {name for name in mine if mine[name] != theirs[name]} == {"weights"}
