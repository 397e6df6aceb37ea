"""SAEs that others made: each computes what SAELens computes with it, in a model too, or is refused by name."""

import json
import random

import pytest
import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file

from probe.adapters import (
    Ablate,
    Boost,
    Noise,
    Objective,
    Replace,
    check_sae,
    inserted,
    load_sae,
    sae_quality,
    save_saelens,
    save_sparsify,
    site_of,
)
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import ModelConfig, Site, load_model
from tests.adapters.conftest import random_topk
from tests.adapters.test_tune import texts

IDS = torch.tensor([[8, 9, 30, 31, 32, 33]])
WIDTH, SIZE = 32, 48


def weights(*more, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (WIDTH, SIZE), "W_dec": (SIZE, WIDTH), "b_dec": (WIDTH,)} | dict.fromkeys(more, (SIZE,))
    return {name: torch.randn(shape, generator=generator) / 4 for name, shape in shapes.items()}


def written(folder, cfg, tensors):
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


#: As versions 1 to 5 of SAELens wrote them, and version 6.
OLD = {"d_in": WIDTH, "d_sae": SIZE, "dtype": "torch.float32", "device": "cpu"}
V2 = OLD | {"model_name": "llama", "hook_point": "blocks.1.hook_resid_post", "hook_point_head_index": None}
V3 = OLD | {
    "architecture": "standard",
    "model_name": "llama",
    "hook_name": "blocks.1.hook_resid_post",
    "hook_head_index": None,
    "activation_fn_str": "relu",
    "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "normalize_activations": "none",
    "sae_lens_training_version": "3.5.0",
}
V6 = OLD | {
    "architecture": "topk",
    "k": 5,
    "dtype": "float32",
    "apply_b_dec_to_input": True,
    "rescale_acts_by_decoder_norm": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {"hook_name": "blocks.1.hook_resid_post", "model_name": "llama", "sae_lens_version": "6.1.0"},
}
RIGHT = {
    "2": (V2, ("b_enc",)),
    "2, whole numbers of 1 for scaling_factor": (V2, ("b_enc", "scaling_factor")),
    "3, layer norm": (V3 | {"normalize_activations": "layer_norm"}, ("b_enc",)),
    "3, norm": (V3 | {"normalize_activations": "constant_norm_rescale"}, ("b_enc",)),
    "3, no decoder bias in the input": (V3 | {"apply_b_dec_to_input": False}, ("b_enc",)),
    "4, gated": (V3 | {"architecture": "gated"}, ("b_gate", "r_mag", "b_mag")),
    "4, jumprelu": (V3 | {"architecture": "jumprelu"}, ("b_enc", "threshold")),
    "5, topk": (V3 | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}, ("b_enc",)),
    "6, topk rescaled": (V6, ("b_enc",)),
    "6, topk, layer norm": (V6 | {"normalize_activations": "layer_norm", "apply_b_dec_to_input": False}, ("b_enc",)),
    "6, signed topk": (V6 | {"architecture": "abstopk"}, ("b_enc",)),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_an_sae_computes_what_saelens_computes_with_it(kind, llama, tmp_path):
    cfg, more = RIGHT[kind]
    tensors = weights(*more)
    if "scaling_factor" in tensors:
        tensors["scaling_factor"].fill_(1.0)
    folder = written(tmp_path / "sae", cfg, tensors)
    mine, theirs = load_sae(folder), sae_lens.SAE.load_from_disk(str(folder), device="cpu", dtype="float32")
    x = 3 * torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(1)) + 1
    acts = theirs.encode(x)
    reconstruction = theirs.decode(acts)
    assert torch.equal(mine.encode(x), acts) and torch.equal(mine(x), reconstruction)
    assert site_of(mine) == Site("resid_post", 1) and check_sae(mine, llama) == Site("resid_post", 1)
    # In a model: the state without two latents, by SAELens alone.
    with torch.no_grad(), capture(llama, "resid_post.1", stop=False) as plain:
        llama.hf(IDS)
    state = plain["resid_post.1"]
    acts = theirs.encode(state)
    before = theirs.decode(acts)
    chosen = acts[0].abs().sum(0).topk(2).indices.tolist()
    without = theirs.encode(state)
    without[..., chosen] = 0
    wanted = state + theirs.decode(without) - before
    for insertion, expected in ((Ablate(mine, tuple(chosen)), wanted), (Replace(mine), before)):
        with torch.no_grad(), inserted(llama, insertion), capture(llama, "resid_post.1", stop=False) as found:
            llama.hf(IDS)
        torch.testing.assert_close(found["resid_post.1"], expected, atol=1e-5, rtol=1e-5)
    again = load_sae(save_saelens(mine, tmp_path / "again"))
    assert torch.equal(again(x), reconstruction) and site_of(again) == Site("resid_post", 1)


WRONG = {
    "scaled on average": (V6 | {"normalize_activations": "expected_average_only_in"}, "trained on scaled activations"),
    "whitened": (V6 | {"normalize_activations": "covariance_whitening"}, "trained on scaled activations"),
    "scaled, as version 1 said it": (V2 | {"normalize_activations": True}, "trained on scaled activations"),
    "another place out": (V3 | {"hook_name_out": "blocks.1.hook_mlp_out"}, "writes blocks.1.hook_mlp_out"),
    "another place out, 6": (
        V6 | {"metadata": V6["metadata"] | {"hook_name_out": "blocks.2.hook_resid_post"}},
        "is a transcoder",
    ),
    "one head": (V2 | {"hook_point_head_index": 3}, "one attention head"),
    "one head out": (V3 | {"hook_head_index_out": 0}, "one attention head"),
    "all heads": (V3 | {"hook_name": "blocks.1.attn.hook_z"}, "all heads side by side"),
    "reshaped": (V6 | {"reshape_activations": "hook_z"}, "all heads side by side"),
    "another function": (V3 | {"activation_fn_str": "tanh-relu"}, "activation function 'tanh-relu'"),
    "topk without k": ({name: value for name, value in V6.items() if name != "k"}, "k None"),
    "topk of version 5 without k": (V3 | {"activation_fn_str": "topk"}, "k None"),
    "k beyond": (V6 | {"k": 49}, "k is 49 of 48"),
    "training alone": (V6 | {"architecture": "matryoshka_batchtopk"}, "is a matryoshka_batchtopk SAE"),
    "pursuit": (V6 | {"architecture": "matching_pursuit"}, "is a matching_pursuit SAE"),
    "no hook of ours": (V3 | {"hook_name": "blocks.1.ln2.hook_normalized"}, "which is no site"),
    "input of the MLP": (V3 | {"hook_name": "blocks.1.hook_mlp_in"}, "which is no site"),
    "queries": (V3 | {"hook_name": "blocks.1.attn.hook_q"}, "which is no site"),
    "scaled latents": (V3 | {"finetuning_scaling_factor": True}, "scales its latents"),
    "another width": (V3 | {"d_in": 64}, "W_dec is 48 × 32 and not 48 × 64"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_plain_sae_is_refused(kind, tmp_path):
    cfg, said = WRONG[kind]
    folder = written(tmp_path / "sae", cfg, weights("b_enc"))
    with pytest.raises(ProbeError, match=said) as raised:
        load_sae(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["", "Skip", "JumpReLU", "JumpReLUSkip"])
def test_transcoders_are_refused_from_a_folder_and_from_memory(kind, llama, tmp_path):
    name = f"{kind}Transcoder"
    more = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    given = {"d_in": WIDTH, "d_sae": SIZE, "d_out": WIDTH, "apply_b_dec_to_input": False}
    config = getattr(sae_lens, f"{name}Config")(**given, metadata=SAEMetadata(**more))
    made = getattr(sae_lens, name)(config)
    made.save_model(tmp_path / "sae")
    said = "is a transcoder"
    with pytest.raises(ProbeError, match=said):
        load_sae(tmp_path / "sae", "mlp_out.1")
    for use in (
        lambda: Replace(made),
        lambda: Noise(made),
        lambda: Boost(made, (1,), 2.0),
        lambda: Objective("resa", made),
        lambda: sae_quality(llama, made, texts(2, 0)),
        lambda: save_saelens(made, tmp_path / "no"),
    ):
        with pytest.raises(ProbeError, match=said):
            use()
    assert not (tmp_path / "no").exists()


def test_sparsify_says_in_several_places_that_it_is_a_transcoder(tmp_path):
    folder = save_sparsify(random_topk(site="blocks.1.hook_mlp_out"), tmp_path)
    cfg = json.loads((folder / "cfg.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"transcode": True, "sae": cfg}))
    with pytest.raises(ProbeError, match="is a transcoder"):
        load_sae(folder)
    (tmp_path / "config.json").write_text(json.dumps({"transcode": False}))
    assert site_of(load_sae(folder)) == Site("mlp_out", 1)
    for change, said in (
        ({"transcode": True}, "is a transcoder"),
        ({"signed": True}, "latents of either sign"),
        ({"k": 0}, "has k 0"),
        ({"k": None}, "has k None"),
        ({"d_in": 16}, "and not"),
        ({"num_latents": 0, "expansion_factor": 0.5}, "d_sae 0"),
    ):
        (folder / "cfg.json").write_text(json.dumps(cfg | change))
        with pytest.raises(ProbeError, match=said):
            load_sae(folder)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    tensors = load_file(folder / "sae.safetensors")
    save_file(tensors | {"W_skip": torch.zeros(32, 32)}, folder / "sae.safetensors")
    with pytest.raises(ProbeError, match="has W_skip"):
        load_sae(folder)
    del tensors["W_dec"]
    save_file(tensors, folder / "sae.safetensors")
    with pytest.raises(ProbeError, match="without a decoder"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("params.npz", "an SAE of Gemma Scope"),
        ("hyperparams.json", "an SAE of Llama Scope"),
        ("ae.pt", "an SAE of dictionary_learning"),
        ("layers.3.mlp/cfg.json", r"several SAEs.*such as layers\.3\.mlp"),
    ],
)
def test_folders_of_others_are_named(file, said, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(ProbeError, match=said):
        load_sae(tmp_path)


def test_an_sae_of_another_model_is_refused_or_a_warning(llama):
    deep, wide = random_topk(site="blocks.4.hook_resid_post"), random_topk(d_in=64)
    for sae, said in ((deep, "blocks 0 to 3: it is of another model"), (wide, "the SAE has width 64")):
        with pytest.raises(ProbeError, match=said), inserted(llama, Replace(sae)):
            pass
        with pytest.raises(ProbeError, match=said):
            sae_quality(llama, sae, texts(2, 0))
    with pytest.raises(ProbeError, match="the SAE has width 64"), inserted(llama, Replace(wide), site="mlp_out.1"):
        pass
    neurons = random_topk(d_in=32, site="blocks.1.mlp.hook_post")
    with (
        torch.no_grad(),
        pytest.raises(ProbeError, match="width 32, and the state 64"),
        inserted(llama, Replace(neurons)),
    ):
        llama.hf(IDS)
    neurons = random_topk(d_in=64, site="blocks.1.mlp.hook_post")
    with torch.no_grad(), inserted(llama, Replace(neurons)), capture(llama, "mlp_post.1", stop=False) as acts:
        llama.hf(IDS)
    assert acts["mlp_post.1"].shape == (1, 6, 64)
    other = random_topk()
    other.cfg.metadata.model_name = "google/gemma-2-2b"
    with pytest.warns(UserWarning, match=r"trained on google/gemma-2-2b, and this model is llama"):
        check_sae(other, llama)
    for name in ("llama", "meta-llama/llama-words-0", ""):  # no warning
        other.cfg.metadata.model_name = name
        check_sae(other, llama)


@pytest.mark.parametrize("arch", ["gemma2", "olmo2"])
def test_the_output_of_an_mlp_is_not_what_it_adds_where_a_norm_follows(arch, tiny_folder, tmp_path):
    """sparsify reads the module; probe's ``mlp_out`` is what is added to the residual stream, after the norm."""
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    sae = random_topk(site="blocks.1.hook_mlp_out")
    with pytest.raises(ProbeError, match="where a norm follows the module"):
        save_sparsify(sae, tmp_path, model)
    folder = save_sparsify(sae, tmp_path)
    with pytest.raises(ProbeError, match=r"'model\.layers\.1\.mlp'"), inserted(model, Replace(load_sae(folder))):
        pass
    named = load_sae(folder, "model.layers.1.mlp")
    seen = []
    handle = model.hf.model.layers[1].post_feedforward_layernorm.register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    with torch.no_grad():
        model.hf(IDS)
        with inserted(model, Replace(named)):
            model.hf(IDS)
    handle.remove()
    torch.testing.assert_close(seen[1], named(seen[0]), atol=1e-5, rtol=1e-5)
    assert site_of(load_sae(save_saelens(named, tmp_path / "again"))) == site_of(named)


def test_any_change_of_the_settings_is_read_or_refused(tmp_path):
    folder = written(tmp_path / "sae", V6, weights("b_enc"))
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    wanted = load_sae(folder)(x)
    odd = [None, -1, 0, 1e9, "x", [], {}, True, [None], {"a": 1}, "", 10**30, float("nan")]
    said = (
        [V6 | {key: value} for key in V6 for value in odd]
        + [V6 | {"metadata": V6["metadata"] | {key: value}} for key in V6["metadata"] for value in odd]
        + [{name: value for name, value in V6.items() if name != key} for key in V6]
    )
    read = 0
    for cfg in random.Random(0).sample(said, 120):
        (folder / "cfg.json").write_text(json.dumps(cfg))
        try:
            found = load_sae(folder)(x)
        except ProbeError as error:
            assert "\n" not in str(error)
            continue
        read += 1
        changed = {name for name in V6 if cfg.get(name, "") != V6[name]}
        if not changed & {"k", "apply_b_dec_to_input", "rescale_acts_by_decoder_norm"}:
            assert torch.equal(found, wanted), cfg
    assert read > 10
    for text in ("", "{not", "[1]", "null", '"x"', "\ufeff{}"):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(ProbeError, match=r"cfg\.json|broken"):
            load_sae(folder)
    (folder / "cfg.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ProbeError, match="not UTF-8"):
        load_sae(folder)
