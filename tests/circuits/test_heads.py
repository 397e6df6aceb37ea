"""Heads off in the model are heads off in TransformerLens; controls are of the same layers."""

import pytest
import torch

from probe.circuits import Circuit, EdgeLens, Graph, heads_changed, matched_heads, strongest_heads, with_others
from probe.errors import ProbeError
from tests.circuits.conftest import drawn_pairs

HEADS = [(1, 2), (3, 0), (3, 1)]


def scaled(head, by):
    def hook(z, **_):
        z = z.clone()
        z[:, :, head] *= by
        return z

    return hook


def test_heads_off_are_heads_off_in_transformer_lens(llama):
    lens, clean = EdgeLens(llama), drawn_pairs().clean[0]
    for by in (0.0, 0.5):
        hooks = [(f"blocks.{layer}.attn.hook_z", scaled(head, by)) for layer, head in HEADS]
        with torch.no_grad(), lens.bridge.hooks(fwd_hooks=hooks):
            expected = lens.logits(clean)
        with torch.no_grad(), heads_changed(llama, HEADS, by):
            found = llama.hf(clean).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (llama.hf(clean).logits - found).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_controls_are_other_heads_of_the_same_layers(seed):
    drawn = matched_heads(HEADS, 4, seed)
    assert not {*drawn} & {*HEADS} and len({*drawn}) == len(HEADS)
    assert sorted(layer for layer, _ in drawn) == [1, 3, 3] and drawn == matched_heads(HEADS, 4, seed)
    with pytest.raises(ProbeError, match="3 of the 4 heads of layer 0"):
        matched_heads([(0, 0), (0, 1), (0, 2)], 4, seed)


def test_as_many_other_heads_of_a_layer_are_left():
    heads = [(0, 0), (0, 3), (0, 1), (1, 2), (1, 0), (1, 1)]
    assert with_others(heads, 4, 3) == [(0, 0), (0, 3), (1, 2)] and with_others(heads, 4, 9) == [
        *heads[:2],
        *heads[3:5],
    ]
    assert with_others(heads, 1, 3) == [] and matched_heads(with_others(heads, 4, 9), 4, 0)


def test_the_strongest_heads_come_first():
    graph = Graph(2, 4, 4)
    scores = torch.zeros(graph.edges.shape)
    for name, score in (("a0.h3->logits", -3.0), ("a1.h1->logits", 5.0), ("m0->logits", 9.0)):
        scores[graph.edge(name)] = score
    assert strongest_heads(Circuit(graph, scores), 5) == [(1, 1), (0, 3)]
