"""SAEs and transcoders in one form: what SAELens computes, at the right place in a model, or a refusal in one line."""

import json

import pytest
import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata

from probe.adapters import Dictionary, load_dictionary, load_sae
from probe.errors import ProbeError
from probe.hooks import capture, edit
from probe.models import Site

WIDTH, SIZE = 32, 48
MLP = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
TRANSCODERS = ("Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder")
KINDS = {
    "standard": ("StandardSAE", {}),
    "layer norm": ("StandardSAE", {"normalize_activations": "layer_norm"}),
    "norm": ("StandardSAE", {"normalize_activations": "constant_norm_rescale"}),
    "rescaled": ("TopKSAE", {"k": 5, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": ("JumpReLUSAE", {}),
    "gated": ("GatedSAE", {}),
    **{name: (name, {}) for name in TRANSCODERS},
}


def made(kind, seed=0, **said):
    """A random dictionary of SAELens."""
    name, more = KINDS[kind]
    if kind in TRANSCODERS:
        more, said = {"d_out": WIDTH, "apply_b_dec_to_input": False}, MLP | said
    else:
        said = {"hook_name": "blocks.1.hook_resid_post"} | said
    config = getattr(sae_lens, f"{name}Config")(d_in=WIDTH, d_sae=SIZE, metadata=SAEMetadata(**said), **more)
    with torch.random.fork_rng(devices=[]):
        sae = getattr(sae_lens, name)(config)
    generator = torch.Generator().manual_seed(seed)
    sae.load_state_dict({name: torch.randn(each.shape, generator=generator) for name, each in sae.state_dict().items()})
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def state():
    return torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_directions_and_the_rest_add_up_to_what_saelens_reconstructs(kind, llama, state):
    sae = made(kind)
    found = Dictionary.of(sae, llama)
    acts = sae.encode(state)
    wanted = sae.decode(acts)
    sae.encode(state)  # an SAE that normalises each state needs its norm again
    nothing = sae.decode(torch.zeros_like(acts))
    torch.testing.assert_close(found.encode(state) @ found.directions, wanted - nothing, atol=1e-3, rtol=1e-4)
    skip = found.skip(state)
    assert (skip is not None) == ("Skip" in kind)
    torch.testing.assert_close(found.reconstruct(state), wanted if skip is None else wanted + skip)


@pytest.mark.parametrize("kind", ["jumprelu", *TRANSCODERS])
def test_a_folder_of_saelens_gives_the_same_dictionary(kind, llama, state, tmp_path):
    sae = made(kind)
    sae.save_model(tmp_path / "it")
    found = Dictionary.of(load_dictionary(tmp_path / "it"), llama)
    assert torch.equal(found.reconstruct(state), sae(state)) and found.size == SIZE
    if kind in TRANSCODERS:
        assert found.sites == (Site("model.layers.1.mlp:input"), Site("mlp_out", 1))
    else:
        assert found.sites == (Site("resid_post", 1),)


@pytest.mark.parametrize("kind", ["standard", "SkipTranscoder"])
def test_the_reconstruction_and_its_error_change_nothing(kind, llama):
    found, ids = Dictionary.of(made(kind), llama), torch.tensor([[8, 9, 30, 31, 32, 33]])
    with torch.no_grad():
        plain = llama.hf(ids).logits
        with capture(llama, found.sites) as acts:
            llama.hf(ids)
        whole = found.reconstruct(acts[found.reads])
        error = acts[found.writes] - whole
        with edit(llama, {found.writes: lambda _: whole + error}):
            changed = llama.hf(ids).logits.log_softmax(-1)
        with edit(llama, {found.writes: lambda _: whole}):
            without = llama.hf(ids).logits.log_softmax(-1)
    p = plain.log_softmax(-1)
    for q, most in ((changed, 1e-6), (without, None)):
        kl = float((p.exp() * (p - q)).sum(-1).max())
        assert kl < most if most else kl > 1e-3


def test_a_transcoder_reads_where_it_says(llama, tiny_folder):
    from probe.models import ModelConfig, load_model

    gemma = load_model(ModelConfig(str(tiny_folder("gemma2"))), device="cpu")
    where = {
        "blocks.2.hook_mlp_in": "resid_mid.2",
        "blocks.2.mlp.hook_in": "model.layers.2.mlp:input",
        "blocks.2.hook_resid_mid": "resid_mid.2",
    }
    for model in (llama, gemma):
        for said, site in where.items():
            assert str(Dictionary.of(made("Transcoder", hook_name=said), model).reads) == site
    out = Dictionary.of(made("Transcoder", hook_name_out="blocks.2.mlp.hook_out"), gemma)
    assert str(out.writes) == "model.layers.2.mlp:output"  # a norm follows it before mlp_out
    hf = made("Transcoder", hf_hook_name="model.layers.2.pre_feedforward_layernorm.output")
    assert str(Dictionary.of(hf, gemma).reads) == "model.layers.2.pre_feedforward_layernorm:output"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"hook_name": "blocks.1.ln2.hook_normalized"}, "before the norm's weights"),
        ({"hook_name": None}, "does not say which site it reads"),
        ({"hook_name_out": "blocks.1.hook_nothing"}, "which is no site"),
        ({"hook_name": "blocks.9.mlp.hook_in"}, "has blocks 0 to 3"),
        ({"hook_name_out": "blocks.9.hook_mlp_out"}, "has blocks 0 to 3"),
        ({"hf_hook_name": "model.layers.1.none.output"}, "no module"),
    ],
)
def test_a_transcoder_at_no_site_of_the_model_is_refused(said, why, llama):
    with pytest.raises(ProbeError, match=why) as raised:
        Dictionary.of(made("Transcoder", **said), llama)
    assert "\n" not in str(raised.value)


def test_sites_can_be_named_where_the_files_are_wrong(llama, tmp_path):
    made("Transcoder", hook_name="blocks.1.ln2.hook_normalized", hf_hook_name="x.output").save_model(tmp_path / "it")
    named = load_dictionary(tmp_path / "it", reads="model.layers.1.mlp:input", writes="mlp_out.2")
    assert Dictionary.of(named, llama).sites == (Site("model.layers.1.mlp:input"), Site("mlp_out", 2))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"architecture": "layer_transcoder"}, "is a layer_transcoder"),
        ({"normalize_activations": "layer_norm"}, "scaled activations"),
        ({"apply_b_dec_to_input": True}, "subtracts its output bias"),
        ({"d_out": 16}, "and not 48 × 16"),
    ],
)
def test_a_transcoder_that_would_compute_something_else_is_refused(change, why, tmp_path):
    made("Transcoder").save_model(tmp_path / "it")
    cfg = json.loads((tmp_path / "it" / "cfg.json").read_text())
    (tmp_path / "it" / "cfg.json").write_text(json.dumps(cfg | change))
    with pytest.raises(ProbeError, match=why) as raised:
        load_dictionary(tmp_path / "it")
    assert "\n" not in str(raised.value)


def test_an_object_is_checked_and_read_as_a_named_one_is(llama, state):
    """In float32 and unchanged itself, and refused where a folder would be."""
    sae = made("SkipTranscoder").to(dtype=torch.bfloat16)
    found = Dictionary.of(sae, llama)
    assert found.sae.dtype == torch.float32 and sae.dtype == torch.bfloat16 == sae.W_enc.dtype
    assert found.encode(state).dtype == found.directions.dtype == torch.float32
    scaled = made("Transcoder")
    scaled.cfg.normalize_activations = "expected_average_only_in"
    with pytest.raises(ProbeError, match="reads scaled activations"):
        Dictionary.of(scaled, llama)


@pytest.mark.parametrize("read", [load_sae, load_dictionary])
def test_a_tilde_is_the_home(read, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made("standard").save_model(tmp_path / "it")
    assert read("~/it").cfg.d_sae == SIZE
