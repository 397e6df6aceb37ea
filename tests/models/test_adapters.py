"""Members that are adapters: found, checked before weights are read, merged or switched, and equal to PEFT's own."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from probe import Model, ModelConfig, PairConfig, ProbeError, load_model, load_pair
from probe.hooks import capture, edit
from probe.models import bundled_folder, fingerprint, identity, model_hash
from probe.models.loading import reading
from tests.adapted import KINDS, copied, make_adapter, peft_logits, put_in_cache

WEIGHTS = "adapter_model.safetensors"
IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def base() -> Path:
    return bundled_folder("tiny-base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("adapter") / "lora")


@pytest.fixture
def damaged(adapter, tmp_path) -> Path:
    """An adapter that a test may damage."""
    return copied(adapter, tmp_path / "own")


def logits(model: Model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(input_ids=ids).logits


def changed(folder: Path, **settings) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.fixture
def no_weights(monkeypatch):
    """Fail the test if it gets as far as reading the weights of the base."""
    monkeypatch.setattr(reading, "read_weights", lambda *_: pytest.fail("weights were read"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_computes_what_peft_computes(kind, base, tmp_path):
    folder = make_adapter(base, tmp_path / kind, kind)
    model = load_model(folder, device="cpu")
    assert type(model.hf).__name__ == "LlamaForCausalLM"
    assert not [name for name, _ in model.hf.named_parameters() if "lora" in name or "base_layer" in name]
    wanted = peft_logits(base, folder, IDS)
    assert (logits(load_model(base, device="cpu")) - wanted).abs().max() > 0.1
    torch.testing.assert_close(logits(model), wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("saved", "tokens", "pissa")])
def test_a_switched_adapter_computes_what_peft_computes_and_leaves_the_base_alone(kind, base, tmp_path):
    folder = make_adapter(base, tmp_path / kind, kind)
    pair = load_pair(pair_of(base, folder, merge=False), device="cpu")
    torch.testing.assert_close(logits(pair.thinking), peft_logits(base, folder, IDS), atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(pair.base), logits(load_model(base, device="cpu")))


@pytest.mark.parametrize("kind", ["saved", "tokens", "pissa"])
@pytest.mark.usefixtures("no_weights")
def test_an_adapter_that_changes_its_base_cannot_be_switched(kind, base, tmp_path):
    folder = make_adapter(base, tmp_path / kind, kind)
    with pytest.raises(ProbeError, match="cannot be switched on and off; remove merge: false"):
        load_model(ModelConfig(str(folder), merge=False), device="cpu")


def pair_of(base: Path | str, folder: Path | str, **settings) -> PairConfig:
    return PairConfig("own", ModelConfig(str(base)), ModelConfig(str(folder), **settings))


def test_both_ways_to_name_an_adapter_give_the_same_model(adapter):
    alone = load_model(adapter, device="cpu")
    both = load_model(ModelConfig("bundled:tiny-base", adapter=str(adapter)), device="cpu")
    assert torch.equal(logits(alone), logits(both))
    assert alone.name == both.name == adapter.name


def test_the_base_may_lie_beside_the_adapter(base, damaged):
    copied(base, damaged / "base")
    changed(damaged, base_model_name_or_path="base")
    assert load_model(damaged, device="cpu").n_layers == 4


def test_weights_are_shared_and_edits_are_not(base, adapter):
    pair = load_pair(pair_of(base, adapter, merge=False), device="cpu")
    own = {tensor.data_ptr() for tensor in pair.base.hf.parameters()}
    extra = [t for n, t in pair.thinking.hf.named_parameters() if t.data_ptr() not in own]
    assert sum(t.numel() for t in extra) < 0.1 * sum(t.numel() for t in pair.base.hf.parameters())
    assert own <= {tensor.data_ptr() for tensor in pair.thinking.hf.parameters()}
    before = logits(pair.base), logits(pair.thinking)
    with torch.no_grad():
        wanted = pair.base.hf(input_ids=IDS, output_hidden_states=True).hidden_states[2]
    with capture(pair.base, "resid_post.1", stop=False) as acts:
        logits(pair.base)
        assert torch.equal(logits(pair.thinking), before[1])  # its pass is not captured, and not ended at the site
    assert torch.equal(acts["resid_post.1"], wanted)
    with edit(pair.base, {"resid_post.2": torch.zeros_like}):
        assert torch.equal(logits(pair.thinking), before[1])
        assert not torch.allclose(logits(pair.base), before[0])
    with edit(pair.thinking, {"resid_post.2": torch.zeros_like}):
        assert torch.equal(logits(pair.base), before[0])
        assert not torch.allclose(logits(pair.thinking), before[1])
    assert torch.equal(logits(pair.base), before[0]) and torch.equal(logits(pair.thinking), before[1])


def test_two_prompts_of_one_model_share_its_weights(base):
    config = PairConfig(
        "own", ModelConfig(str(base), prompt="A {question}"), ModelConfig(str(base), prompt="B {question}")
    )
    pair = load_pair(config, device="cpu")
    pointers = [[t.data_ptr() for t in model.hf.parameters()] for model in (pair.base, pair.thinking)]
    assert pointers[0] == pointers[1]
    assert pair.base.hf is not pair.thinking.hf
    assert pair.base.prompt_text("1") != pair.thinking.prompt_text("1")
    pair.thinking.hf.set_attn_implementation("eager")
    assert pair.base.hf.config._attn_implementation != "eager"


def test_other_weights_are_not_shared(base, adapter):
    for pair in (pair_of(base, adapter), pair_of(base, bundled_folder("tiny-rl"))):
        found = load_pair(pair, device="cpu")
        assert found.base.hf.get_parameter("model.norm.weight").data_ptr() != (
            found.thinking.hf.get_parameter("model.norm.weight").data_ptr()
        )


def test_hashes_tell_an_adapter_from_its_base_merged_or_switched(base, adapter, tmp_path):
    from probe.pipeline.run.inputs import weights_hash

    other = make_adapter(base, tmp_path / "other", seed=1)
    configs = [
        ModelConfig(str(base)),
        ModelConfig(str(adapter)),
        ModelConfig(str(adapter), merge=False),
        ModelConfig(str(other)),
        ModelConfig(str(other), merge=False),
    ]
    models = [load_model(config, device="cpu") for config in configs]
    for found in (weights_hash, model_hash, lambda m: str(identity(m)), lambda m: fingerprint(m)["weights"]):
        assert len({found(model) for model in models}) == len(models)


def test_a_merge_into_bfloat16_is_rounded_once(base, adapter):
    exact = load_model(adapter, device="cpu").hf.state_dict()
    for name, tensor in load_model(adapter, device="cpu", dtype="bfloat16").hf.state_dict().items():
        plain = load_model(base, device="cpu", dtype="bfloat16").hf.state_dict()[name]
        assert tensor.dtype == torch.bfloat16
        if "q_proj" in name or "down_proj" in name:
            # The base is rounded when it is read, and the sum once more.
            step = exact[name].abs().clamp_min(1e-6) * 2**-8
            assert ((tensor.float() - exact[name]).abs() <= 2.01 * step + 2**-8 * plain.float().abs()).all()
            assert not torch.equal(tensor, plain)


def test_a_tokenizer_and_a_template_beside_the_adapter_are_used(base, damaged):
    (damaged / "chat_template.jinja").write_text("Q {{ messages[0]['content'] }} A")
    chat = ModelConfig(str(damaged), prompt="chat")
    assert load_model(chat, device="cpu").prompt_text("one") == "Q one A"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<own>"])
    tokenizer.save_pretrained(damaged)
    assert "<own>" in load_model(damaged, device="cpu").tokenizer.get_vocab()


def test_an_adapter_that_brings_a_larger_embedding_is_resized_to_it(base, tmp_path):
    from peft import LoraConfig, get_peft_model

    hf = AutoModelForCausalLM.from_pretrained(base)
    hf.resize_token_embeddings(140, mean_resizing=False)
    with torch.no_grad():
        hf.get_input_embeddings().weight.add_(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(hf, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(tmp_path / "own", save_embedding_layers=True)
    model = load_model(tmp_path / "own", device="cpu")
    assert model.n_embeddings == 140
    with torch.no_grad():
        wanted = wrapped.eval()(input_ids=IDS + 110).logits
    torch.testing.assert_close(logits(model, IDS + 110), wanted)


# What is refused, in one line and before the weights of the base are read.


def truncated(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def without_a_weight(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / WEIGHTS)


def of_another_shape(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = next(iter(tensors))
    save_file(tensors | {name: torch.zeros(4, 7)}, folder / WEIGHTS)


def with_another_weight(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    more = {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.zeros(4, 128)}
    save_file(tensors | more, folder / WEIGHTS)


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


DAMAGES = {
    "truncated": (truncated, "cannot be read .*download it again"),
    "a weight is missing": (without_a_weight, r"lacks 1 of the 16 weights .* the first is model\.layers"),
    "another shape": (of_another_shape, r"has shape \[4, 7\], but its base asks for \[4, 512\]"),
    "another weight": (with_another_weight, r"has 1 weights for which its base has no place.*layers\.9"),
    "pickle only": (as_pickle, r"only adapter_model\.bin, which probe does not read; save it as safetensors"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no adapter_model.safetensors"),
    "another architecture": (lambda f: changed(f, target_modules=["c_attn"]), "does not fit its base: .*c_attn"),
    "no kind": (lambda f: changed(f, peft_type=None), "names no peft_type"),
    "unknown kind": (lambda f: changed(f, peft_type="NEWEST"), "names peft_type 'NEWEST'"),
    "no base": (lambda f: changed(f, base_model_name_or_path=None), "does not say which model .*path: BASE"),
    "base not there": (lambda f: changed(f, base_model_name_or_path="./gone"), "base of the adapter .*path: BASE"),
    "base itself": (lambda f: changed(f, base_model_name_or_path=str(f)), "is an adapter, too"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.usefixtures("no_weights")
def test_a_damaged_adapter_is_refused_in_one_line(damage, damaged):
    harm, said = DAMAGES[damage]
    harm(damaged)
    with pytest.raises(ProbeError, match=said) as caught:
        load_model(damaged, device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(damaged):
    tensors = load_file(damaged / WEIGHTS)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * float("nan")}, damaged / WEIGHTS)
    with pytest.raises(ProbeError, match=r"down_proj\.lora_A.* is not finite"):
        load_model(damaged, device="cpu")


@pytest.mark.usefixtures("no_weights")
def test_an_adapter_of_virtual_tokens_is_refused(base, tmp_path):
    folder = make_adapter(base, tmp_path / "prompt", "prompt")
    with pytest.raises(ProbeError, match="adds virtual tokens and changes no weights"):
        load_model(folder, device="cpu")


@pytest.mark.usefixtures("no_weights")
def test_a_folder_with_a_model_and_an_adapter_is_not_guessed_at(base, damaged):
    for file in base.iterdir():
        if file.is_file():
            (damaged / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ProbeError, match="holds a whole model and an adapter"):
        load_model(damaged, device="cpu")


def test_a_config_beside_the_adapter_makes_it_no_model(base, damaged):
    (damaged / "config.json").write_text((base / "config.json").read_text())  # some trainers write it
    assert torch.equal(logits(load_model(damaged, device="cpu")), logits(load_model(changed(damaged), device="cpu")))
    assert not torch.allclose(logits(load_model(damaged, device="cpu")), logits(load_model(base, device="cpu")))


def test_an_adapter_on_the_hub_is_found_in_its_cache_with_its_base(base, damaged, tmp_path, monkeypatch):
    from probe.pipeline.run.inputs import weights_hash

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    put_in_cache(tmp_path / "hub", "org/base", base, "b" * 40)
    put_in_cache(tmp_path / "hub", "org/lora", changed(damaged, base_model_name_or_path="org/base"), "a" * 40)
    plain, model = load_model("org/base", device="cpu"), load_model("org/lora", device="cpu")
    assert model.name == "lora" and model.commit == plain.commit == weights_hash(plain) == "b" * 40
    assert torch.equal(logits(model), logits(load_model(ModelConfig(str(base), adapter=str(damaged)), device="cpu")))
    assert weights_hash(model) != weights_hash(plain)
    assert load_model(ModelConfig("org/base", adapter="org/lora"), device="cpu").adapter == model.adapter


def test_an_adapter_in_a_folder_of_a_hub_id_is_found(base, damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "repository").mkdir()
    damaged.rename(tmp_path / "repository" / "checkpoint-20")
    put_in_cache(tmp_path / "hub", "org/many", tmp_path / "repository", "a" * 40)
    found = load_model(ModelConfig(str(base), adapter="org/many/checkpoint-20"), device="cpu")
    wanted = ModelConfig(str(base), adapter=str(tmp_path / "repository" / "checkpoint-20"))
    assert torch.equal(logits(found), logits(load_model(wanted, device="cpu")))
    for gone in ("org/many/checkpoint-30", "org/many"):
        with pytest.raises(ProbeError, match=f"no adapter folder '{gone}'"):
            load_model(ModelConfig(str(base), adapter=gone), device="cpu")


@pytest.mark.usefixtures("no_weights")
def test_an_adapter_that_is_not_there_is_said(base):
    with pytest.raises(ProbeError, match="no adapter folder 'org/none'"):
        load_model(ModelConfig(str(base), adapter="org/none"), device="cpu")
    with pytest.raises(ProbeError, match="holds no adapter"):
        load_model(ModelConfig(str(base), adapter=str(base)), device="cpu")


@pytest.mark.usefixtures("no_weights")
def test_an_adapter_on_an_adapter_is_refused(adapter):
    with pytest.raises(ProbeError, match="is itself an adapter"):
        load_model(ModelConfig(str(adapter), adapter=str(adapter)), device="cpu")


def test_the_callers_random_numbers_are_not_touched(adapter):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    load_model(adapter, device="cpu")
    assert torch.equal(torch.rand(2), wanted)


def test_the_adapter_in_a_pair_file_is_found_from_the_file(base, damaged):
    file = damaged.parent / "pair.yaml"
    file.write_text(
        "name: own\nbase: {path: bundled:tiny-base}\n"
        f"thinking: {{path: bundled:tiny-base, adapter: ./{damaged.name}, merge: false}}\n"
    )
    pair = load_pair(str(file), device="cpu")
    torch.testing.assert_close(logits(pair.thinking), peft_logits(base, damaged, IDS), atol=2e-4, rtol=1e-4)
