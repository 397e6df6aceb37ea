"""Adapters that others made with PEFT: each acts as in PEFT alone and in every export, or is refused by name.

Whatever happens, the model is afterwards as before: the same modules, the same bits, frozen and in evaluation mode.
"""

import json
import random
import shutil
import warnings
from contextlib import contextmanager

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from benchmarks.peak import Peak
from probe.adapters import (
    Adapter,
    Objective,
    TuneConfig,
    attached,
    canonical,
    gguf_lora,
    merged,
    peft_of_gguf,
    reach,
    shell,
    tune,
)
from probe.adapters.exports.lora import CONFIG, WEIGHTS
from probe.adapters.mounting import mounted
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from tests.adapters.test_attach import by_peft_alone, logits
from tests.adapters.test_tune import texts


def made(base, folder, config):
    """An adapter as PEFT writes it, with B away from zero."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        wrapped = peft.get_peft_model(hf, config)
        for name, tensor in wrapped.named_parameters():
            if "lora_B" in name:
                tensor.data += 0.05 * torch.randn(tensor.shape)
        wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder


def lora(**more):
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    return peft.LoraConfig(**given | more)


@contextmanager
def unchanged(model):
    hf = model.hf
    modules = {name: id(module) for name, module in hf.named_modules()}
    state = {name: tensor.clone() for name, tensor in hf.state_dict().items()}
    own = set(vars(hf))
    yield
    assert {name: id(module) for name, module in hf.named_modules()} == modules
    after = hf.state_dict()
    assert after.keys() == state.keys() and all(torch.equal(after[name], state[name]) for name in state)
    assert set(vars(hf)) == own
    assert not any(p.requires_grad for p in hf.parameters()) and not any(m.training for m in hf.modules())


REFUSED = {
    "pissa": (lora(init_lora_weights="pissa"), "init_lora_weights 'pissa'"),
    "pissa, fast": (lora(init_lora_weights="pissa_niter_4"), "init_lora_weights 'pissa_niter_4'"),
    "olora": (lora(init_lora_weights="olora"), "init_lora_weights 'olora'"),
    "dora": (lora(use_dora=True), "uses use_dora"),
    "lora_bias": (lora(lora_bias=True), "uses lora_bias"),
    "bias": (lora(bias="lora_only"), "bias 'lora_only'"),
    "modules_to_save": (lora(modules_to_save=["norm"]), "uses modules_to_save"),
    "new tokens": (lora(trainable_token_indices=[3, 4]), "uses trainable_token_indices"),
    "embedding": (lora(target_modules=["embed_tokens"]), "not a plain LoRA: it has .*lora_embedding_A"),
    "replication": (lora(layer_replication=[[0, 3], [2, 4]]), "uses layer_replication"),
    "alora": (lora(alora_invocation_tokens=[5]), "uses alora_invocation_tokens"),
    "ia3": (peft.IA3Config(task_type="CAUSAL_LM"), "peft_type is 'IA3'"),
    "vera": (peft.VeraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"), "peft_type is 'VERA'"),
    "loha": (peft.LoHaConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"), "peft_type is 'LOHA'"),
    "prompt": (peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "peft_type is 'PROMPT_TUNING'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_lora_is_refused_everywhere(kind, llama, tiny_folder, tmp_path):
    config, said = REFUSED[kind]
    folder = made(tiny_folder("llama"), tmp_path / "a", config)
    with unchanged(llama), shell(llama) as there:
        for use in (
            lambda: there.swap(folder),
            lambda: canonical(folder, tmp_path / "c"),
            lambda: merged(llama, folder, tmp_path / "m"),
            lambda: gguf_lora(llama, folder, tmp_path / "a.gguf"),
            lambda: reach(llama, folder),
        ):
            with pytest.raises(ProbeError, match=said) as raised:
                use()
            assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    with unchanged(llama), pytest.raises(ProbeError, match=said), attached(llama, folder):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"], "nothing is written"


READ_ALIKE = {
    "layers": {"layers_to_transform": [1, 3]},
    "one layer of a pattern": {"layers_to_transform": 2, "layers_pattern": "layers"},
    "expression": {"target_modules": r".*\.[02]\..*(up_proj|v_proj)", "rank_pattern": {r"2\..*up_proj": 3}},
    "exclude": {"exclude_modules": r".*\.0\..*"},
    "all-linear": {"target_modules": "all-linear", "alpha_pattern": {"(q|k)_proj": 3, "o_proj": 1.5}},
    "rslora by parts": {
        "use_rslora": True,
        "rank_pattern": {r"layers\.[01]\.mlp.*": 7},
        "alpha_pattern": {"down_proj": 1},
    },
    "other start": {"init_lora_weights": "orthogonal"},
}


@pytest.mark.parametrize("kind", READ_ALIKE)
def test_settings_of_peft_mean_in_every_form_what_they_mean_there(kind, llama, tiny_folder, tmp_path):
    folder = made(tiny_folder("llama"), tmp_path / "a", lora(**READ_ALIKE[kind]))
    wanted = by_peft_alone(tiny_folder("llama"), folder)
    assert (wanted - logits(llama)).abs().max() > 1e-2
    with unchanged(llama):
        forms = [folder, canonical(folder, tmp_path / "c")]
        forms.append(peft_of_gguf(llama, gguf_lora(llama, folder, tmp_path / "a.gguf"), tmp_path / "g"))
        for form in forms:
            torch.testing.assert_close(logits(llama, form), wanted, atol=2e-5, rtol=1e-5)
            torch.testing.assert_close(by_peft_alone(tiny_folder("llama"), form), wanted, atol=2e-5, rtol=1e-5)
        with shell(llama, 2) as there:
            there.swap(folder)
            torch.testing.assert_close(logits(llama), wanted, atol=2e-5, rtol=1e-5)
        whole = load_model(ModelConfig(str(merged(llama, folder, tmp_path / "m"))), device="cpu")
        torch.testing.assert_close(logits(whole), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merging_holds_no_second_model(dtype, tiny_folder, tmp_path):
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu", dtype=dtype)
    folder = made(tiny_folder("llama"), tmp_path / "a", lora(target_modules=["q_proj"]))
    with unchanged(model), Peak() as held:
        out = merged(model, folder, tmp_path / "m")
    assert held.peak < 0.5 * sum(tensor.nbytes for tensor in model.hf.parameters())
    assert not list(out.glob(".*")) and not model.hf.config.tie_word_embeddings


@pytest.mark.parametrize("spoils", ["another", "missing"])
def test_a_merged_model_that_was_written_wrongly_is_refused(spoils, llama, tiny_folder, tmp_path, monkeypatch):
    folder, name = made(tiny_folder("llama"), tmp_path / "a", lora()), "model.layers.2.mlp.up_proj.weight"
    save = type(llama.hf).save_pretrained

    def spoil(self, out, **settings):
        save(self, out, **settings)
        tensors = load_file(f"{out}/model.safetensors")
        value = tensors.pop(name)
        more = {name: torch.where(torch.arange(len(value))[:, None] == 3, 0, value)} if spoils == "another" else {}
        save_file(tensors | more, f"{out}/model.safetensors", {"format": "pt"})

    monkeypatch.setattr(type(llama.hf), "save_pretrained", spoil)
    with unchanged(llama), pytest.raises(ProbeError, match=f"differs at {name}"):
        merged(llama, folder, tmp_path / "m")


@pytest.mark.parametrize("arch", ["qwen2", "gpt2", "gemma2"])
def test_a_tied_output_layer_gets_weights_of_its_own_or_no_gguf(arch, tiny_folder, tmp_path):
    tied = tmp_path / "tied"
    shutil.copytree(tiny_folder(arch), tied)
    config = json.loads((tied / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tied / "config.json").write_text(json.dumps(config))
    weights = load_file(tied / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tied / "model.safetensors", {"format": "pt"})
    model = load_model(ModelConfig(str(tied)), device="cpu")
    assert model.hf.lm_head.weight is model.hf.get_input_embeddings().weight
    targets = ["lm_head", "c_attn" if arch == "gpt2" else "q_proj"]
    folder = made(tied, tmp_path / "a", lora(target_modules=targets))
    with unchanged(model):
        wanted = logits(model, folder)
        whole = load_model(ModelConfig(str(merged(model, folder, tmp_path / "m"))), device="cpu")
        torch.testing.assert_close(logits(whole), wanted, atol=5e-5, rtol=1e-4)
        torch.testing.assert_close(logits(model, canonical(folder, tmp_path / "c")), wanted, atol=2e-5, rtol=1e-5)
        with pytest.raises(ProbeError, match="shares the embedding's weights"):
            gguf_lora(model, folder, tmp_path / "a.gguf")
        assert set(reach(model, folder)) == {0, 1, 2, 3}
        with shell(model) as there, pytest.raises(ProbeError, match="lm_head, which is in no block"):
            there.swap(folder)


def test_gpt_neox_rows_are_where_llama_cpp_reads_them(tiny_folder, tmp_path):
    """Its converter takes the rows of all queries, keys and values apart, which transformers keeps head by head."""
    import gguf

    model = load_model(ModelConfig(str(tiny_folder("gpt_neox"))), device="cpu")
    folder = made(tiny_folder("gpt_neox"), tmp_path / "a", lora(target_modules=["query_key_value", "dense_h_to_4h"]))
    path = gguf_lora(model, folder, tmp_path / "a.gguf")
    found = {tensor.name: torch.tensor(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    mine = load_file(folder / WEIGHTS)["base_model.model.gpt_neox.layers.1.attention.query_key_value.lora_B.weight"]
    heads = mine.reshape(4, 3, 8, 4)  # heads, parts, width, rank
    theirs = torch.cat([heads[:, part].reshape(32, 4) for part in range(3)])
    assert torch.equal(found["blk.1.attn_qkv.weight.lora_b"], 2.0 * theirs) and not torch.equal(theirs, mine)
    back = peft_of_gguf(model, path, tmp_path / "back")
    torch.testing.assert_close(logits(model, back), logits(model, folder), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ["qwen3", "gemma3", "mistral", "phi3", "olmo2"])
def test_gguf_there_and_back(arch, tiny_folder, tmp_path):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    folder = made(tiny_folder(arch), tmp_path / "a", lora(target_modules="all-linear"))
    back = peft_of_gguf(model, gguf_lora(model, folder, tmp_path / "a.gguf"), tmp_path / "back")
    torch.testing.assert_close(logits(model, back), logits(model, folder), atol=2e-5, rtol=1e-5)


def test_gguf_files_of_half_precision_are_read_and_damaged_ones_refused(llama, tmp_path):
    import gguf

    a, b = torch.randn(4, 32), torch.randn(32, 4)
    paths = {}
    for kind in ("F16", "BF16", "Q8_0"):
        writer = gguf.GGUFWriter(str(paths.setdefault(kind, tmp_path / f"{kind}.gguf")), "llama")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 8.0)
        for side, tensor in (("a", a), ("b", b)):
            number = gguf.GGMLQuantizationType[kind if tensor.shape[1] % 32 == 0 else "F32"]
            data = gguf.quants.quantize(tensor.numpy(), number)
            writer.add_tensor(f"blk.1.attn_output.weight.lora_{side}", data, raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for kind, path in paths.items():
        found = load_file(peft_of_gguf(llama, path, tmp_path / kind) / WEIGHTS)
        name = "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"
        torch.testing.assert_close(found[name], a, atol=0.05, rtol=0.02)
    whole = paths["F16"].read_bytes()
    for end in (0, 20, 200, len(whole) - 100):
        (tmp_path / "cut.gguf").write_bytes(whole[:end])
        with pytest.raises(ProbeError, match=r"cut\.gguf"):
            peft_of_gguf(llama, tmp_path / "cut.gguf", tmp_path / "no")


def test_what_fails_half_way_leaves_the_model_alone(llama, tiny_folder, tmp_path):
    good = made(tiny_folder("llama"), tmp_path / "good", lora())
    with unchanged(llama):
        # PEFT puts the LoRA on some layers before it meets one that it does not know.
        with pytest.raises(ValueError, match="not supported"), mounted(llama, lora(target_modules=["q_proj", "norm"])):
            pass
        with pytest.raises(ZeroDivisionError), attached(llama, good):
            _ = 1 / 0
        with pytest.raises(ZeroDivisionError), shell(llama) as there:
            there.swap(good)
            _ = 1 / 0

    def dies(*_):
        raise ZeroDivisionError

    class Dying(Objective):
        def scoring(self, model, plain, batch, chunk=None):
            return dies() if model.hf.training else super().scoring(model, plain, batch, chunk)

    with unchanged(llama), pytest.raises(ZeroDivisionError):
        config = TuneConfig(steps=2, batch_tokens=60)
        tune(llama, texts(6, 0), texts(3, 0), Dying("ce"), folder=tmp_path / "t", config=config)
    with unchanged(llama), attached(llama, good):
        on = logits(llama)
        with pytest.raises(ProbeError, match="already has an adapter"), attached(llama, good):
            pass
        with pytest.raises(ProbeError, match="already has an adapter"):
            merged(llama, good, tmp_path / "m")
        assert torch.equal(logits(llama), on), "the outer adapter stays"


def test_the_second_adapter_and_impossible_wishes_are_checked_before_the_first_is_put_on(llama, tiny_folder, tmp_path):
    good = made(tiny_folder("llama"), tmp_path / "good", lora())
    wide = made(tiny_folder("llama", tokenizer="letters"), tmp_path / "wide", lora(target_modules=["lm_head"]))
    with unchanged(llama):
        for second, said in (
            (wide, "lm_head 260 wide"),
            (Adapter(good, layers=(4,)), "block 4"),
            (Adapter(good, float("nan")), "finite"),
        ):
            with pytest.raises(ProbeError, match=said), attached(llama, good, second):
                pass


def _spoilt(tensors, kind):
    name = next(iter(sorted(tensors)))
    match kind:
        case "half":
            return {key: tensor for key, tensor in tensors.items() if key != name}
        case "ranks":
            return tensors | {name: tensors[name][:2].contiguous()}
        case "nan":
            return tensors | {name: tensors[name] * float("nan")}
        case "flat":
            return tensors | {name: tensors[name].flatten()}
        case "elsewhere":
            return {key.replace("q_proj", "k_proj"): tensor for key, tensor in tensors.items()}
    return {}


@pytest.mark.parametrize("kind", ["half", "ranks", "nan", "flat", "elsewhere", "none"])
def test_tensors_that_are_no_lora_are_refused(kind, llama, tiny_folder, tmp_path):
    folder = made(tiny_folder("llama"), tmp_path / "a", lora(target_modules=["q_proj"]))
    save_file(_spoilt(load_file(folder / WEIGHTS), kind), folder / WEIGHTS)
    with unchanged(llama), pytest.raises(ProbeError, match=str(folder)), attached(llama, folder):
        pass


def test_any_change_of_the_settings_is_read_or_refused(llama, tiny_folder, tmp_path):
    """Values that no setting expects, in every setting: a message, or the adapter as it was."""
    folder = made(tiny_folder("llama"), tmp_path / "a", lora(target_modules=["q_proj"]))
    config, wanted = json.loads((folder / CONFIG).read_text()), logits(llama, folder)
    odd = [None, -1, 0, 1e9, "x", "(", [], {}, True, [None], {"a": 1}, "", 10**30, float("nan")]
    chosen = random.Random(0).sample([(key, value) for key in config for value in odd], 150)
    read = 0
    with unchanged(llama):
        for key, value in chosen:
            (folder / CONFIG).write_text(json.dumps(config | {key: value}))
            try:
                found = logits(llama, folder)
            except ProbeError as error:
                assert "\n" not in str(error)
                continue
            read += 1
            if key not in ("lora_alpha", "alpha_pattern", "use_rslora"):
                assert torch.equal(found, wanted), (key, value)
    assert 20 < read < 130
