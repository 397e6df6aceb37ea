"""What attribution and cut runs hold: a block and a room, whatever the number of blocks and heads; the scores stay."""

import subprocess
import sys

import pytest
import torch

from benchmarks.peak import Peak
from probe.circuits import EdgeLens, logit_difference
from probe.circuits.edges.attribution import edge_scores
from probe.circuits.pairs.pairs import Pairs
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs

LONG = 96


@pytest.fixture
def small(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    model.memory = 400_000  # so that writers are projected a few at a time, and each pair is read alone
    return model


def long_pairs(rows=1):
    return drawn_pairs(rows, LONG)


@pytest.mark.parametrize("method", ["eap", "eap-ig-inputs"])
def test_a_small_budget_changes_no_score(llama, small, method):
    pairs, small.memory = drawn_pairs(rows=2), 200_000
    roomy, tight = EdgeLens(llama), EdgeLens(small)
    assert tight.rows_that_fit(9) == 1 < roomy.rows_that_fit(9)
    assert len(list(tight.streams(pairs.clean[0]).pieces(slice(0, 21)))) > 2
    expected, found = (edge_scores(lens, pairs, method, steps=2) for lens in (roomy, tight))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    keep = torch.rand(roomy.graph.edges.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    cut = [lens.cut(pairs.clean[0], pairs.corrupt[0], keep & lens.graph.edges) for lens in (roomy, tight)]
    torch.testing.assert_close(cut[1], cut[0], atol=1e-4, rtol=1e-4)


def test_slopes_are_those_of_one_backward_pass_through_everything(llama):
    """Against leaves at every reader and no block run again."""
    lens = EdgeLens(llama)
    clean, _, right, wrong = next(iter(drawn_pairs()))
    metric, leaves = logit_difference(right, wrong), {}

    def leaf(at):
        def hook(value, **_):
            leaves[at] = torch.zeros_like(value, requires_grad=True)
            return value + leaves[at]

        return hook

    with lens.bridge.hooks(fwd_hooks=[(name, leaf(at)) for at, name in lens._readers()]):
        metric(lens.logits(clean)).sum().backward()
    _, found = lens.gradients(clean, metric)
    for at, value in leaves.items():
        expected = value.grad if at[1] in "qkv" else value.grad.unsqueeze(2)
        torch.testing.assert_close(found[lens.graph.columns(*at)], expected.movedim(2, 0), atol=1e-6, rtol=1e-5)


def test_a_window_that_covers_the_text_is_no_window(llama):
    pairs, lens = drawn_pairs(), EdgeLens(llama)
    assert torch.equal(edge_scores(lens, pairs, "eap", window=(-50, None)), edge_scores(lens, pairs, "eap"))


@pytest.mark.parametrize("what", ["scores", "cut"])
def test_what_is_held_is_no_multiple_of_writers_and_readers(small, what):
    """Both take 71 tensors of the model's width; all at once took 220 and 143."""
    lens, pairs = EdgeLens(small), long_pairs()
    clean, corrupt, *_ = next(iter(pairs))
    with Peak() as held:
        edge_scores(lens, pairs, "eap") if what == "scores" else lens.cut(clean, corrupt, lens.graph.edges)
    one = LONG * small.d_model * 4  # a tensor of the width of the model
    assert held.peak < 1.2 * 71 * one


def test_more_pairs_take_no_more_memory(small):
    lens, peaks = EdgeLens(small), []
    for rows in (1, 3):
        pairs = long_pairs(rows)
        with Peak() as held:
            edge_scores(lens, pairs, "eap")
        peaks.append(held.peak)
    assert peaks[1] < 1.1 * peaks[0]


def test_parts_of_pairs_are_the_pairs_in_order():
    pairs = Pairs(*(a + b for a, b in zip(*(list(vars(drawn_pairs(5, n)).values())[:4] for n in (7, 9)), strict=True)))
    parts = pairs.parts(lambda width: 20 // width)
    assert [len(clean) for clean, *_ in parts] == [2, 2, 1, 2, 2, 1]
    for i in range(4):
        whole = torch.cat([group[i].flatten() for group in pairs])
        assert torch.equal(torch.cat([part[i].flatten() for part in parts]), whole)


LONG_PAIR = """
import resource, sys, torch
from probe.circuits import EdgeLens, Pairs, attribute
from probe.models import load_model

model = load_model("smollm2-135m", device="cpu", memory="1GB")
clean = torch.randint(100, 40_000, (1, 600), generator=torch.Generator().manual_seed(0))
corrupt = clean.clone()
corrupt[:, 300:340] += 1
pairs = Pairs((clean,), (corrupt,), (torch.tensor([500]),), (torch.tensor([600]),))
attribute(EdgeLens(model), pairs, steps=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
@pytest.mark.long
def test_a_long_pair_takes_little_on_smollm2():
    """In a process of its own. It takes 2.0 GB, of which 1.1 GB are the weights and the packages; held at once, the
    gradients of all readers would take 1.5 GB more.
    """
    done = subprocess.run([sys.executable, "-c", LONG_PAIR], check=True, capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 2.9e9
