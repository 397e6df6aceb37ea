"""The Jacobian lens equals TransformerLens' through the bridge, in fitting and in reading; and belongs to its model."""

import copy

import pytest
import torch
from transformer_lens.tools.analysis.jacobian_lens import JacobianLens as Theirs

from probe.circuits import JacobianLens, fit_jacobian_lens, load_jacobian_lens, logit_lens, readable
from probe.circuits.lenses.fitting import text_jacobian
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model

TEXTS = ["Tom has 12 cards. First, Tom finds 9 more cards. That makes", "Ana has 34 coins. Now 34 - 5 = 29."]
SKIP = 3


def a_model(tiny_folder, arch="llama"):
    return load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")


@pytest.fixture(scope="module")
def lens(llama):
    return fit_jacobian_lens(llama, TEXTS, skip=SKIP, source="two stories")


@pytest.mark.parametrize("arch", ["llama", "gemma2", "gpt2"])
def test_fitting_and_reading_are_those_of_transformer_lens(tiny_folder, arch):
    model = a_model(tiny_folder, arch)
    bridge = model.lens()
    theirs = Theirs.fit(bridge, TEXTS, corpus="x", skip_first_positions=SKIP, show_progress=False)
    mine = fit_jacobian_lens(model, TEXTS, skip=SKIP)
    for layer, expected in theirs.jacobians.items():
        torch.testing.assert_close(mine.matrices[layer], expected, atol=1e-5, rtol=1e-5)
    assert (mine.matrices[0] - torch.eye(32)).abs().max() > 0.1, "the matrices are not the identity"
    ids = torch.tensor(model.encode(TEXTS[0]))
    expected = theirs.readout(bridge, ids[None], return_full_logits=True).lens_logits
    assert expected is not None
    read = logit_lens(model, ids, mine)
    assert read.layers == (0, 1, 2, 3) and "Jacobian lens" in read._repr_html_()
    for at, layer in enumerate(read.layers):
        log_p = expected[layer].log_softmax(-1)
        torch.testing.assert_close(read.log_prob[at], log_p.max(-1).values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read.target[at], log_p[:-1].gather(1, ids[1:, None])[:, 0], atol=1e-5, rtol=1e-5)
    # The same through the reader of the model itself.
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    found = model.unembed(states, lens=mine, layer=1)
    torch.testing.assert_close(found, model.unembed(states @ theirs.jacobians[1].T), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, model.unembed(states), atol=1e-2)


def test_rows_at_a_time_and_half_precision_change_little(llama, lens):
    ids = torch.tensor(llama.encode(TEXTS[0]))
    one, many = (text_jacobian(llama, ids, (1, 2), SKIP, several) for several in (5, 32))
    for layer in (1, 2):
        torch.testing.assert_close(one[layer], many[layer], atol=1e-5, rtol=1e-5)
    rough = copy.copy(llama)
    rough.hf = copy.deepcopy(llama.hf).to(torch.bfloat16)
    found = fit_jacobian_lens(rough, TEXTS, skip=SKIP)
    for layer, expected in lens.matrices.items():
        assert (found.matrices[layer] - expected).norm() < 0.05 * expected.norm()
    read, exact = logit_lens(rough, ids, found), logit_lens(llama, ids, lens)
    assert (read.entropy - exact.entropy).abs().max() < 0.2


def test_fitting_resumes_and_refuses_another_lens(llama, lens, tmp_path, monkeypatch):
    monkeypatch.setattr("probe.circuits.lenses.fitting._EVERY", 1)
    monkeypatch.setattr("probe.circuits.lenses.fitting.text_jacobian", interrupted_after(1))
    with pytest.raises(KeyboardInterrupt):
        fit_jacobian_lens(llama, TEXTS, skip=SKIP, source="two stories", folder=tmp_path / "lens")
    monkeypatch.setattr("probe.circuits.lenses.fitting.text_jacobian", interrupted_after(1))  # one text is left
    resumed = fit_jacobian_lens(llama, TEXTS, skip=SKIP, source="two stories", folder=tmp_path / "lens")
    assert resumed.fitted == lens.fitted and len(list((tmp_path / "lens").iterdir())) == 2
    for layer in lens.layers:
        torch.testing.assert_close(resumed.matrices[layer], lens.matrices[layer])
    again = fit_jacobian_lens(llama, TEXTS, skip=SKIP, folder=tmp_path / "lens")
    assert repr(again) == repr(lens) and "two stories" in again._repr_html_()
    with pytest.raises(ProbeError, match="other texts or settings"):
        fit_jacobian_lens(llama, TEXTS[:1], skip=SKIP, folder=tmp_path / "lens")


def interrupted_after(n):
    left = [n]

    def run(*args):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return text_jacobian(*args)

    return run


def test_a_lens_belongs_to_its_model(llama, lens, tiny_folder, tmp_path):
    loaded = load_jacobian_lens(lens.save(tmp_path), llama)
    assert repr(loaded) == repr(lens) and torch.equal(JacobianLens.load(tmp_path).matrices[2], lens.matrices[2])
    torch.testing.assert_close(loaded.to_transformer_lens().jacobians[1], lens.matrices[1])
    other = load_model(ModelConfig(str(tiny_folder("llama", seed=1))), device="cpu")
    ids = torch.tensor(llama.encode(TEXTS[0]))
    with pytest.raises(ProbeError, match="was fitted on"):
        logit_lens(other, ids, lens)
    lent = lens.lent_to(other)
    assert lent.fitted["lent by"] == lens.model and logit_lens(other, ids, lent).layers == (0, 1, 2, 3)
    with pytest.raises(ProbeError, match="4 blocks of width 32"):
        lens.check(load_model("bundled:tiny-rl", device="cpu"))
    with pytest.raises(ProbeError, match="give the layer"):
        llama.unembed(torch.zeros(32), lens=lens)
    some = JacobianLens({1: lens.matrices[1]}, lens.model, 4, weights=lens.weights)
    assert logit_lens(llama, ids, some).layers == (1, 3)
    with pytest.raises(ProbeError, match="no matrix for block 0; it has 1"):
        llama.unembed(torch.zeros(32), lens=some, layer=0)
    for wrong, said in (({1: torch.zeros(2, 3)}, "square"), ({3: torch.zeros(2, 2)}, "blocks 0 to 2")):
        with pytest.raises(ProbeError, match=said):
            JacobianLens(wrong, "x", 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"layers": [3]}, "blocks 0 to 2"), ({"skip": 200}, "at least two tokens"), ({"skip": 60}, "no text has more")],
)
def test_bad_settings_are_refused(llama, settings, said):
    with pytest.raises(ProbeError, match=said):
        fit_jacobian_lens(llama, TEXTS, **settings)


def test_a_published_lens_is_found_by_name_converted_once_and_checked(lens, tmp_path, monkeypatch, tiny_folder):
    """From a hub cache with the published layout."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    home, commit = tmp_path / "hub" / "models--neuronpedia--jacobian-lens", "a" * 40
    file = home / "snapshots" / commit / "qwen3-4b/jlens/Salesforce-wikitext/Qwen3-4B_jacobian_lens.pt"
    file.parent.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    lens.to_transformer_lens().save(str(file))
    found = load_jacobian_lens("qwen3-4b")
    assert found.model == "Qwen/Qwen3-4B" and found.layers == (0, 1, 2) and found.n_layers == 4
    torch.testing.assert_close(found.matrices[1].float(), lens.matrices[1], atol=2e-3, rtol=2e-3)
    file.write_bytes(b"damaged")  # the converted lens is read, not the file
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    with pytest.raises(ProbeError, match="fitted on Qwen/Qwen3-4B"):
        load_jacobian_lens("Qwen/Qwen3-4B", model)
    model.name = "Qwen3-4B"
    assert load_jacobian_lens("Qwen/Qwen3-4B", model).layers == found.layers
    with pytest.raises(ProbeError, match="did you mean 'qwen3-8b'"):
        load_jacobian_lens("qwen3-8")
    with pytest.raises(ProbeError, match="cannot be downloaded"):
        load_jacobian_lens("gemma-2-2b")
    with pytest.raises(ProbeError, match="cannot be read as a Jacobian lens"):
        load_jacobian_lens(file, model)
    lens.to_transformer_lens().save(str(file))
    assert load_jacobian_lens(file, model).layers == found.layers


def test_tokens_are_looked_for_at_places(llama, lens):
    ids = torch.tensor(llama.encode(TEXTS[0]))
    read = readable(llama, ids, [(4, 7), (2, 9), (4, 9)], lens)
    with torch.no_grad():
        states = llama.hf(ids[None], output_hidden_states=True).hidden_states[2][0]
    log_p = llama.unembed(states, lens=lens, layer=1).log_softmax(-1)
    torch.testing.assert_close(read.log_prob[1], log_p[[4, 2, 4], [7, 9, 9]])
    assert read.rank[1].tolist() == [
        int((log_p[at] > log_p[at, token]).sum()) for at, token in ((4, 7), (2, 9), (4, 9))
    ]
    with pytest.raises(ProbeError, match="must be ascending"):
        readable(llama, ids, [(99, 7)])
