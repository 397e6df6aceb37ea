"""SAEs by the names of SAELens' registry, from a hub cache with the published layout and tiny tensors."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor, get_pretrained_saes_directory
from safetensors.torch import save_file

from probe.adapters import Dictionary, check_release, check_sae, is_release, load_sae, site_of
from probe.errors import ProbeError
from probe.models import ModelConfig, Site, load_model
from tests.adapters.conftest import random_topk

WIDTH, LATENTS = 32, 64
R1 = "llama_scope_r1_distill/l2r_800m_slimpajama"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """``cached(name, files)``: an SAE's files in the hub's cache, where its registry entry says they are."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def put(name: str) -> Path:
        release, _, sae_id = name.partition("/")
        entry = get_pretrained_saes_directory()[release]
        home = tmp_path / f"models--{entry.repo_id.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text("0" * 40)
        folder = home / "snapshots" / ("0" * 40) / entry.saes_map[sae_id]
        folder.mkdir(parents=True)
        return folder

    return put


@pytest.fixture
def llama_scope(cached) -> dict[str, torch.Tensor]:
    """An SAE in the files of Llama Scope R1-Distill; returns its tensors as published."""
    folder = cached(R1)
    numbers = torch.Generator().manual_seed(0)
    tensors = {
        "encoder.weight": torch.randn(LATENTS, WIDTH, generator=numbers),
        "encoder.bias": torch.randn(LATENTS, generator=numbers),
        "decoder.weight": torch.randn(WIDTH, LATENTS, generator=numbers),
        "decoder.bias": torch.randn(WIDTH, generator=numbers),
        "log_jumprelu_threshold": torch.zeros(LATENTS),
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(
        json.dumps(
            {"d_model": WIDTH, "expansion_factor": LATENTS // WIDTH, "hook_point_in": "blocks.2.hook_resid_post"}
        )
    )
    return tensors


def test_a_release_is_loaded_with_its_site_its_model_and_its_scale(llama_scope):
    sae = load_sae(R1)
    assert site_of(sae) == Site("resid_post", 2)
    assert sae.cfg.metadata.model_name == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"  # the files name the base model
    assert not any(each.requires_grad for each in sae.parameters())
    x, t = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(1)), llama_scope
    scale = get_norm_scaling_factor(*R1.split("/"))
    assert scale is not None and scale > 2
    pre = scale * x @ t["encoder.weight"].T + t["encoder.bias"]
    latents = pre * (pre > 1)  # the threshold is exp(0)
    wanted = (latents @ t["decoder.weight"].T + t["decoder.bias"]) / scale
    torch.testing.assert_close(sae(x), wanted, atol=1e-4, rtol=1e-4)


def test_a_release_in_saelens_own_format_is_loaded(cached):
    name = "gpt2-small-res-jb/blocks.2.hook_resid_pre"
    sae = random_topk(site="blocks.2.hook_resid_pre")
    sae.save_model(str(cached(name)))
    again, x = load_sae(name), torch.randn(5, WIDTH)
    torch.testing.assert_close(again(x), sae(x))
    assert site_of(again) == Site("resid_pre", 2) and again.cfg.metadata.model_name == "gpt2-small"


@pytest.mark.usefixtures("llama_scope")
def test_the_site_can_be_named():
    assert site_of(load_sae(R1, "resid_post.1")) == Site("resid_post", 1)


@pytest.fixture
def named(tiny_folder, tmp_path):
    """``named(arch, name)``: a tiny model whose folder has a name."""

    def load(arch: str, name: str):
        (folder := tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(tiny_folder(arch, "letters"))
        return load_model(ModelConfig(str(folder), prompt="{question}"), device="cpu")

    return load


@pytest.mark.usefixtures("llama_scope")
def test_the_model_of_the_registry_is_compared_exactly(named):
    sae = load_sae(R1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_sae(sae, named("llama", "DeepSeek-R1-Distill-Llama-8B")) == Site("resid_post", 2)
    for other in ("Llama-3.1-8B", "DeepSeek-R1-Distill-Llama-8B-Mine"):
        with pytest.warns(UserWarning, match=f"trained on deepseek-ai/.*-8B, and this model is .*{other}"):
            check_sae(sae, named("llama", other))


def test_a_model_is_known_under_its_name_in_transformerlens(cached, named):
    name = "gpt2-small-res-jb/blocks.2.hook_resid_pre"
    random_topk(site="blocks.2.hook_resid_pre").save_model(str(cached(name)))
    sae = load_sae(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sae(sae, named("gpt2", "gpt2"))
    with pytest.warns(UserWarning, match="trained on gpt2-small"):
        check_sae(sae, named("gpt2", "gpt2-medium"))


@pytest.mark.usefixtures("llama_scope")
def test_another_width_or_depth_is_refused(named):
    sae = load_sae(R1)
    sae.cfg.metadata.hook_name = "blocks.7.hook_resid_post"
    with pytest.raises(ProbeError, match=r"reads resid_post\.7, and .* has blocks 0 to 3: it is of another model"):
        check_sae(sae, named("llama", "DeepSeek-R1-Distill-Llama-8B"))
    sae.cfg.metadata.hook_name, sae.cfg.d_in = "blocks.2.hook_resid_post", 4096
    with pytest.raises(ProbeError, match=r"the SAE has width 4096, and .* has 32"):
        check_sae(sae, named("llama", "other"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama_scope_r1_distil/l2r_800m_slimpajama", "no release .*; did you mean 'llama_scope_r1_distill'"),
        ("llama_scope_r1_distill/l2r_800m_slimpajam", "has no SAE .*; did you mean 'l2r_800m_slimpajama'"),
        ("runs/study/sae", "there is no SAE folder runs/study/sae, and SAELens' registry has no release 'runs'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, said):
    for refused in (check_release, load_sae):
        with pytest.raises(ProbeError, match=said) as error:
            refused(name)
        assert "\n" not in str(error.value)


def test_without_the_hub_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ProbeError, match=r"of fnlp/Llama-Scope-R1-Distill cannot be loaded .*from_pretrained") as error:
        load_sae(R1)
    assert "\n" not in str(error.value)


def test_a_transcoder_of_the_registry_is_a_dictionary_and_no_sae(cached, tiny_folder):
    name = "mwhanna-qwen3-4b-transcoders/layer_0"
    file = cached(name)
    file.rmdir()
    numbers = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (LATENTS, WIDTH), "b_enc": (LATENTS,), "W_dec": (LATENTS, WIDTH), "b_dec": (WIDTH,)}
    tensors = {each: torch.randn(shape, generator=numbers) for each, shape in shapes.items()}
    save_file(tensors, file)
    (file.parent / "config.yaml").write_text("model_name: Qwen/Qwen3-4B\n")
    sizes = f"d_model: {{value: {WIDTH}}}\nd_feature: {{value: {LATENTS}}}\nbatch_size: {{value: 8}}\n"
    (file.parent / "wandb-config.yaml").write_text(sizes)
    with pytest.raises(ProbeError, match="is a transcoder"):
        load_sae(name)
    model = load_model(ModelConfig(str(tiny_folder("qwen3"))), device="cpu")
    with pytest.warns(UserWarning, match="trained on qwen3-4b"):
        found = Dictionary.of(name, model)
    assert [str(site) for site in found.sites] == ["model.layers.0.mlp:input", "mlp_out.0"] and found.name == name
    x = torch.randn(5, WIDTH, generator=numbers)
    acts = (x @ tensors["W_enc"].T + tensors["b_enc"]).relu()
    torch.testing.assert_close(found.encode(x), acts)
    torch.testing.assert_close(found.reconstruct(x), acts @ tensors["W_dec"] + tensors["b_dec"])


def test_a_folder_wins_over_a_release_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sae, folder = random_topk(), Path("gpt2-small-res-jb") / "blocks.2.hook_resid_pre"
    assert is_release(folder)
    sae.save_model(str(folder))
    assert not is_release(folder)
    assert site_of(load_sae(folder)) == site_of(sae)


def test_a_release_in_a_file_of_settings_is_no_path(tmp_path):
    from probe.files import located

    (tmp_path / "sae").mkdir()
    assert located({"sae": R1}, tmp_path)["sae"] == R1
    assert located({"sae": "sae"}, tmp_path)["sae"] == str(tmp_path / "sae")
    assert located({"sae": "./gone"}, tmp_path)["sae"] == str(tmp_path / "gone")
