"""Path patching: known wires carry an effect and others none, and a path of one edge equals exact patching."""

import pytest
import torch

from probe.circuits import EdgeLens, attribute, logit_difference, path_effect
from probe.errors import ProbeError
from tests.circuits.conftest import drawn_pairs


def test_a_path_of_one_edge_is_that_edge_exactly(llama):
    lens, pairs = EdgeLens(llama), drawn_pairs()
    clean, corrupt, right, wrong = next(iter(pairs))
    metric = logit_difference(right, wrong)
    with torch.no_grad():
        whole = metric(lens.logits(clean))
    for name in ("embed->logits", "a2.h1->logits", "m3->logits"):
        keep = lens.graph.edges.clone()
        keep[lens.graph.edge(name)] = False
        exact = metric(lens.cut(clean, corrupt, keep)) - whole
        torch.testing.assert_close(path_effect(lens, pairs, [name]), exact, atol=1e-4, rtol=1e-3)


def test_what_comes_through_known_wires_is_all_there_is(wired):
    lens, pairs = EdgeLens(wired), drawn_pairs(rows=12)
    exact = attribute(lens, pairs, "exact").scores
    wire = ["embed->a0.h1<v>", "a0.h1->a1.h2<v>", "a1.h2->logits"]
    through = path_effect(lens, pairs, wire)
    assert through.abs().mean() > 1e-2
    # Nothing else reads what these two write, but for the norms' scales.
    torch.testing.assert_close(through.mean(), exact[lens.graph.edge(wire[0])], atol=1e-4, rtol=0.1)
    mute = path_effect(lens, pairs, ["embed->a0.h0<v>", "a0.h0->a1.h1<v>", "a1.h1->logits"])
    assert mute.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (["embed->m0"], "does not end at the logits"),
        (["embed->m0", "m1->logits"], "does not begin where embed->m0 ends; begin it at m0"),
        (["embed->m9", "m9->logits"], "there is no 'm9'"),
    ],
)
def test_what_is_no_path_is_refused(llama, path, said):
    with pytest.raises(ProbeError, match=said):
        path_effect(EdgeLens(llama), drawn_pairs(), path)
