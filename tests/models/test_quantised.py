"""Quantised weights, dtype and attention of a member: read by transformers, or refused in one line."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from probe import Model, ModelConfig, PairConfig, ProbeError, capture, load_model, load_pair
from probe.models import as_dtype
from probe.models.loading import reading
from tests.adapted import make_adapter

IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def plain(tiny_folder) -> Path:
    return tiny_folder("llama", "letters")


@pytest.fixture(scope="module")
def bitnet(plain, tmp_path_factory) -> Iterator[tuple[Path, Path]]:
    """A checkpoint of packed weights with three values, which torch alone computes on a CPU, and the same unpacked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler
        from transformers.integrations.bitnet import pack_weights

    packed, same = (
        shutil.copytree(plain, tmp_path_factory.mktemp("bitnet") / name, symlinks=True) for name in ("packed", "same")
    )
    tensors = load_file(plain / "model.safetensors")
    small, whole = {}, {}
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            scale = tensor.abs().mean()
            three = (tensor / scale).round().clamp(-1, 1)
            small[name], whole[name] = pack_weights(three.clone()), three * scale
            small[f"{name}_scale"] = 1 / scale[None]
        else:
            small[name] = whole[name] = tensor
    save_file(small, packed / "model.safetensors", {"format": "pt"})
    save_file(whole, same / "model.safetensors", {"format": "pt"})
    settings = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(settings | {"quantization_config": {"quant_method": "bitnet"}}))
    with torch.compiler.set_stance("force_eager"):  # its kernel would be compiled for minutes
        yield packed, same


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(input_ids=IDS).logits


@pytest.mark.slow
def test_a_quantised_checkpoint_runs_and_is_never_moved(bitnet):
    packed, same = bitnet
    model, whole = load_model(packed, device="cpu"), load_model(same, device="cpu")
    assert model.hf.get_parameter_or_buffer("model.layers.0.mlp.up_proj.weight").dtype == torch.uint8
    # Activations are rounded to eight bits, which the plain model does not do.
    assert torch.nn.functional.cosine_similarity(logits(model), logits(whole), dim=-1).mean() > 0.97
    with torch.no_grad(), capture(model, "resid_post.1") as acts:
        model.hf(input_ids=IDS)
    assert acts["resid_post.1"].isfinite().all()


@pytest.mark.slow
def test_two_prompts_share_quantised_weights(bitnet):
    base, thinking = (ModelConfig(str(bitnet[0]), prompt=f"{name} {{question}}") for name in "AB")
    pair = load_pair(PairConfig("own", base, thinking), device="cpu")
    at = [
        [tensor.data_ptr() for tensor in (*model.hf.parameters(), *model.hf.buffers())]
        for model in (pair.base, pair.thinking)
    ]
    assert at[0] == at[1] and torch.equal(logits(pair.base), logits(pair.thinking))


@pytest.mark.slow
def test_work_that_needs_gradients_is_refused_before_anything_runs(bitnet, monkeypatch):
    from probe.adapters import Example, Objective, tune
    from probe.steering import FixedVectors, SteeringConfig, learn_mechanism

    model = load_model(bitnet[0], device="cpu")
    monkeypatch.setattr(type(model.hf), "forward", lambda *_, **__: pytest.fail("the model ran"))
    said = r"needs gradients, and the weights of packed \(bitnet\) have none; use its unquantised weights"
    with pytest.raises(ProbeError, match=f"learning vectors {said}"):
        learn_mechanism(model, FixedVectors.of(torch.zeros(1, 32), 1), [], [], config=SteeringConfig(), seed=0)
    with pytest.raises(ProbeError, match=said), capture(model, "resid_post.1", grad=True):
        pass
    with pytest.raises(ProbeError, match=f"training an adapter {said}"):
        tune(model, [Example((1, 2), 1)], [Example((1, 2), 1)], Objective("ce"), folder="unused")


@pytest.mark.slow
def test_an_adapter_is_not_merged_into_quantised_weights(bitnet, plain, tmp_path):
    folder = make_adapter(plain, tmp_path / "lora")
    with pytest.raises(ProbeError, match=r"cannot be merged into .* quantised \(bitnet\); set merge: false"):
        load_model(ModelConfig(str(bitnet[0]), adapter=str(folder)), device="cpu")
    with pytest.raises(ProbeError, match=r"cannot be put on its base: .*not supported"):  # PEFT has no code for BitNet
        load_model(ModelConfig(str(bitnet[0]), adapter=str(folder), merge=False), device="cpu")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            r"quantised \(bitsandbytes\).*install it, or",
        ),
        ({"load_in_8bit": True}, r"are to be quantised \(bitsandbytes\).*install it, or remove quantization"),
        ({"quant_method": "gptq", "bits": 4}, r"quantised \(gptq\)|quantization of model"),
        ({"quant_method": "compressed-tensors"}, r"compressed-tensors.*remove quantization|quantization of model"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao"),
        ({"quant_method": "newest"}, "quantization of model .* is not possible: Unknown quantization type, got newest"),
        ({}, "quantization of model .* no `quant_method`"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": "often"}, "quantization of model .* is not possible"),
    ],
)
def test_settings_that_cannot_quantise_here_are_refused_in_one_line(settings, said, plain, monkeypatch):
    monkeypatch.setattr(reading, "read_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ProbeError, match=said) as caught:
        load_model(ModelConfig(str(plain), quantization=settings), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_are_not_quantised_twice(bitnet):
    with pytest.raises(ProbeError, match=r"quantised already \(bitnet\); remove quantization"):
        load_model(ModelConfig(str(bitnet[0]), quantization={"quant_method": "fp8"}), device="cpu")


def test_the_dtype_auto_is_that_of_the_checkpoint(plain, tmp_path):
    assert load_model(plain, device="cpu", dtype="auto").dtype == torch.float32
    half = shutil.copytree(plain, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16).save_pretrained(half)
    assert load_model(half, device="cpu", dtype="auto").dtype == torch.bfloat16
    pair = load_pair(PairConfig("own", ModelConfig(str(plain)), ModelConfig(str(half))), device="cpu", dtype="auto")
    assert (pair.base.dtype, pair.thinking.dtype) == (torch.float32, torch.bfloat16)
    with pytest.raises(ProbeError, match="unknown dtype"):
        as_dtype("auto")


def test_the_attention_is_chosen(plain):
    eager = load_model(ModelConfig(str(plain), attention="eager"), device="cpu")
    assert eager.hf.config._attn_implementation == "eager"
    torch.testing.assert_close(logits(eager), logits(load_model(plain, device="cpu")))


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        ("egaer", "there is no attention 'egaer'; did you mean 'eager'"),
        ("flash_attention_2", "attention 'flash_attention_2' is not possible for .* here: "),
    ],
)
def test_attention_that_is_not_there_is_refused_in_one_line(attention, said, plain, monkeypatch):
    monkeypatch.setattr(reading, "read_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ProbeError, match=said) as caught:
        load_model(ModelConfig(str(plain), attention=attention), device="cpu")
    assert "\n" not in str(caught.value)
