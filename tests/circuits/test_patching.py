"""Patches by plain hooks are those of TransformerLens; what must come back does, what holds nothing brings none."""

import pytest
import torch

from probe.circuits import Pairs, patch
from probe.errors import ProbeError
from probe.hooks import row_bytes
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs


@pytest.fixture
def model(tiny_folder, any_arch):
    return load_model(ModelConfig(str(tiny_folder(any_arch))), device="cpu")


def test_all_of_the_first_block_is_the_whole_text(model):
    pairs = drawn_pairs()
    assert patch(model, pairs, "resid_pre", "block").values[0, 0] == pytest.approx(1, abs=1e-4)
    assert patch(model, pairs, "resid_pre", "block", noising=True).values[0, 0] == pytest.approx(0, abs=1e-4)
    last = patch(model, pairs, "resid_post").values[-1]
    assert last[-1] == pytest.approx(1, abs=1e-4), "the last token's last state is all that its logits are made of"
    assert last[:-1].abs().max() < 1e-4


def test_tokens_before_the_texts_differ_hold_nothing(model):
    found = patch(model, drawn_pairs())
    assert (found.values[:, :2] == 0).all() and found.values[:, 2:].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("site", "hook"), [("resid_pre", "hook_resid_pre"), ("mlp_out", "hook_mlp_out"), ("z", "attn.hook_z")]
)
@torch.no_grad()
def test_patches_are_those_of_transformer_lens(llama, site, hook):
    pairs = drawn_pairs()
    (clean, corrupt, right, wrong) = next(iter(pairs))
    bridge, rows = llama.lens(), torch.arange(len(clean))

    def metric(logits):
        return (logits[rows, -1, right] - logits[rows, -1, wrong]).sum()

    _, cache = bridge.run_with_cache(clean)
    ends = [metric(bridge(ids)) for ids in (corrupt, clean)]
    found = patch(llama, pairs, site)
    for layer, place in ((0, 3), (2, 1), (3, found.values.shape[1] - 1)):
        name = f"blocks.{layer}.{hook}"
        at = (slice(None), slice(None), place) if site == "z" else (slice(None), place)

        def put(value, at=at, name=name, **_):
            value = value.clone()
            value[at] = cache[name][at]
            return value

        with bridge.hooks(fwd_hooks=[(name, put)]):
            expected = (metric(bridge(corrupt)) - ends[0]) / (ends[1] - ends[0])
        torch.testing.assert_close(found.values[layer, place], expected, atol=1e-4, rtol=1e-3)


def test_many_places_in_a_pass_are_each_alone(llama, monkeypatch):
    pairs = drawn_pairs()
    together = patch(llama, pairs, "z").values
    monkeypatch.setattr("probe.circuits.patching._ROWS", 1)
    torch.testing.assert_close(patch(llama, pairs, "z").values, together, atol=1e-5, rtol=1e-4)


def test_states_of_the_same_model_are_its_own(llama):
    pairs = drawn_pairs()
    assert torch.equal(patch(llama, pairs, source=llama).values, patch(llama, pairs).values)


def test_the_strongest_places_come_first(llama):
    found = patch(llama, drawn_pairs(), "z")
    values = [abs(value) for *_, value in found.strongest(4)]
    assert values == sorted(values, reverse=True) and values[0] == pytest.approx(float(found.values.abs().max()))
    assert "z.0" in found._repr_html_()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"site": "resid"}, "no site to patch 'resid'"),
        ({"by": "token"}, "no way to divide a site 'token'"),
        ({"site": "mlp_out", "by": "head"}, "mlp_out has no heads"),
    ],
)
def test_what_cannot_be_patched_is_refused(llama, more, said):
    with pytest.raises(ProbeError, match=said):
        patch(llama, drawn_pairs(), **more)


def test_pairs_that_the_metric_does_not_tell_apart_are_refused(llama):
    pairs = drawn_pairs()
    with pytest.raises(ProbeError, match="do not differ in the metric"):
        patch(llama, Pairs(pairs.clean, pairs.corrupt, pairs.right, pairs.right))


@pytest.mark.parametrize("by", ["position", "head"])
def test_patches_are_the_same_in_a_small_budget(tiny_folder, by):
    model, site = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu"), "z" if by == "head" else "resid_pre"
    whole, passes = patch(model, drawn_pairs(), site, by), []
    model.memory = 3 * row_bytes(model, 9, 2)  # three texts at a time, of six
    handle = model.hf.get_input_embeddings().register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    found = patch(model, drawn_pairs(), site, by)
    handle.remove()
    assert set(passes) == {3}
    torch.testing.assert_close(found.values, whole.values, atol=1e-5, rtol=1e-4)
