"""Ablation replaces heads' outputs by the right values at the right tokens, and resampling depends on the seed only."""

import pytest
import torch

from probe.circuits import Reference, heads_changed, reference, start_tokens
from probe.errors import ProbeError
from probe.hooks import Tokens, capture
from tests.circuits.conftest import drawn_pairs

HEADS = [(1, 2), (3, 0)]


@torch.no_grad()
def z_under(model, ids, by, of=None, **more):
    with heads_changed(model, HEADS, by, reference=of, **more), capture(model, ["z.1", "z.3", "z.2"]) as acts:
        model.hf(ids)
    return {layer: acts[f"z.{layer}"].clone() for layer in (1, 2, 3)}


@pytest.fixture
def known(llama):
    return reference(llama, drawn_pairs(seed=5).clean[0].tolist())


def test_the_reference_is_what_heads_write(llama, known):
    texts = drawn_pairs(seed=5).clean[0]
    with torch.no_grad(), capture(llama, "z.1") as acts:
        llama.hf(texts)
    torch.testing.assert_close(known.z[1], acts["z.1"].flatten(0, 1), atol=1e-5, rtol=1e-4)
    some = Tokens(ids=[int(texts[0, 0])])
    here = reference(llama, [texts[0].tolist()], tokens=some)
    torch.testing.assert_close(here.z[1], known.z[1][: len(texts[0])][texts[0] == texts[0, 0]], atol=1e-5, rtol=1e-4)


def test_each_way_puts_in_what_it_says(llama, known):
    ids = drawn_pairs().clean[0]
    plain = z_under(llama, ids, "mean", known)
    assert torch.allclose(plain[1][:, :, 2], known.z[1].mean(0)[2].expand_as(plain[1][:, :, 2]), atol=1e-6)
    assert z_under(llama, ids, "zero")[3][:, :, 0].abs().max() == 0
    drawn = z_under(llama, ids, "resample", known)[1][:, :, 2].flatten(0, 1)
    apart = (drawn[:, None] - known.z[1][:, 2][None]).abs().amax(-1)
    assert apart.min(1).values.max() < 1e-6, "each is of some token of the reference"
    assert len(set(apart.argmin(1).tolist())) > 5, "and not of one alone"
    again, other = (z_under(llama, ids, "resample", known, seed=seed)[1][:, :, 2].flatten(0, 1) for seed in (0, 1))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)


def test_only_where_it_is_told(llama):
    ids = drawn_pairs().clean[0]
    where = Tokens(ids=[int(ids[0, 4])])
    with torch.no_grad(), capture(llama, "z.1") as acts:
        llama.hf(ids)
    left = z_under(llama, ids, "zero", tokens=where)[1]
    hit = ids == ids[0, 4]
    assert left[:, :, 2][hit].abs().max() == 0
    torch.testing.assert_close(left[:, :, 2][~hit], acts["z.1"][:, :, 2][~hit], atol=1e-5, rtol=1e-4)


def test_what_cannot_be_ablated_is_refused(llama, known):
    for by, of, said in (
        ("means", None, "did you mean 'mean'"),
        ("mean", None, "needs a reference"),
        ("resample", Reference({1: known.z[1]}), "needs a reference"),
    ):
        with pytest.raises(ProbeError, match=said), heads_changed(llama, HEADS, by, reference=of):
            pass


def test_sentences_begin_after_full_stops():
    import probe

    pair, problems = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    traces = probe.generate_traces(pair.base, problems, problems.take("train", 2), max_new_tokens=40)
    stops = pair.base.tokenizer(".", add_special_tokens=False).input_ids
    assert start_tokens(traces).ids == stops
