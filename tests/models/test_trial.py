"""Decoders that are not in the table: the residual stream that a trial finds, and what it refuses."""

import pytest
import torch

from probe.errors import NotApplicable
from probe.hooks import capture, edit
from probe.models import ARCHITECTURES, Site, all_sites, place
from probe.models.sites.kinds import RESIDUAL
from tests.tiny_models import VOCAB, tiny_config, tiny_model

IDS = torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["gptj", "mpt", "nemotron", "codegen", "exaone4", "persimmon", "apertus", "falcon"])
@torch.no_grad()
def test_another_decoder_has_its_residual_sites(kind):
    hf = tiny_model(tiny_config(kind))
    assert kind not in ARCHITECTURES
    assert {site.kind for site in all_sites(hf)} == set(RESIDUAL)
    with capture(hf, all_sites(hf), stop=False) as acts:
        plain = hf(input_ids=IDS, use_cache=False, output_hidden_states=True)
    last = len(plain.hidden_states) - 2
    for i in range(last + 1):
        assert torch.equal(acts[f"resid_pre.{i}"], plain.hidden_states[i])
    assert torch.equal(acts["final_norm"], plain.hidden_states[-1])
    shift = torch.randn(acts["embed"].shape[-1], generator=torch.Generator().manual_seed(1))
    with edit(hf, {"resid_post.1": shift}), capture(hf, "resid_pre.2", stop=False) as shifted:
        logits = hf(input_ids=IDS, use_cache=False).logits
    assert torch.equal(shifted["resid_pre.2"], acts["resid_post.1"] + shift) and not torch.equal(logits, plain.logits)
    assert torch.equal(hf(input_ids=IDS, use_cache=False).logits, plain.logits)


def test_the_trial_of_a_known_architecture_finds_the_places_of_the_table(monkeypatch):
    for kind in ("llama", "gpt2", "granite", "gemma2", "cohere", "gemma3"):
        hf = tiny_model(tiny_config(kind))
        wanted = {site: place(hf, site) for site in all_sites(hf, *RESIDUAL)}
        with monkeypatch.context() as without:
            without.delitem(ARCHITECTURES, hf.config.get_text_config().model_type)
            assert {site: place(hf, site).module for site in all_sites(hf)} == {
                site: each.module for site, each in wanted.items()
            }


def around(module, call) -> None:
    """Let a module's output be what a function makes of it and of its input, unseen by hooks."""
    own = type(module)

    def changed(self, hidden, *args, **kwargs):
        return call(hidden, own.__call__(self, hidden, *args, **kwargs))

    module.__class__ = type(own.__name__, (own,), {"__call__": changed})


def broken(how: str):
    """A decoder that breaks one promise of a residual stream."""
    hf = tiny_model(tiny_config("nemotron"))
    if how == "norm":
        around(hf.model.norm, lambda _, out: out + 1)
    elif how == "between":
        around(hf.model.layers[1], lambda _, out: out + 1)
    elif how == "in place":
        around(hf.model.layers[2], lambda hidden, out: (out, hidden.add_(1))[0])
    elif how == "logits":
        forward = hf.forward

        def other(*args, **kwargs):
            out = forward(*args, **kwargs)
            out.logits = -out.logits
            return out

        hf.forward = other
    return hf


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("norm", "no norm takes what the last block returns"),
        ("between", "block 2 does not begin with what block 1 returns"),
        ("in place", "a state that block 1 takes or returns is changed in place"),
        ("logits", "its logits are not what the unembedding returns"),
    ],
)
def test_a_decoder_without_a_residual_stream_is_refused_in_one_line(how, said):
    hf = broken(how)
    with pytest.raises(NotApplicable, match=f"a trial of this one found that {said}") as caught:
        place(hf, "resid_post.1")
    assert "\n" not in str(caught.value) and "name a module by its path" in str(caught.value)
    assert place(hf, "model.layers.1").module == "model.layers.1"


def test_the_trial_runs_once_and_leaves_nothing():
    hf = tiny_model(tiny_config("nemotron"))
    runs = []
    around(hf.model.layers[0], lambda _, out: runs.append(1) or out)
    for _ in range(3):
        place(hf, Site("resid_post", 1))
    assert runs == [1] and not any(module._forward_hooks for module in hf.modules())


def test_a_trial_in_an_open_block_is_not_seen_by_it():
    hf = tiny_model(tiny_config("nemotron"))
    with torch.no_grad(), capture(hf, "model.layers.1.mlp", stop=False) as acts:
        hf(input_ids=IDS, use_cache=False)
        before = acts["model.layers.1.mlp"]
        place(hf, "resid_post.1")
        assert acts["model.layers.1.mlp"] is before
        hf(input_ids=IDS[:1], use_cache=False)
        assert len(acts["model.layers.1.mlp"]) == 1
