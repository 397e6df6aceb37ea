"""Scores against exact patching, against a known circuit, and against scores from more steps."""

import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import probe
from probe.circuits import METHODS, EdgeLens, attribute, faithfulness, kept_by, operand_pairs
from probe.errors import ProbeError
from tests.circuits.conftest import WIRES, drawn_pairs

GRADIENTS = [name for name in METHODS if name != "exact"]


def scores(lens, pairs, method, **more):
    return attribute(lens, pairs, method, **more).scores[lens.graph.edges]


@pytest.mark.parametrize("method", ["exact", *GRADIENTS])
def test_a_known_circuit_is_found(wired, method):
    lens, pairs = EdgeLens(wired), drawn_pairs(rows=12)
    found = attribute(lens, pairs, method)
    true = {lens.graph.edge(name) for name in WIRES}
    labels = [(row, column) in true for _, row, column in lens.graph.named()]
    size = [abs(found.scores[row, column]) for _, row, column in lens.graph.named()]
    assert roc_auc_score(labels, size) >= 0.95
    mute = lens.graph.edge("a0.h0->logits"), lens.graph.edge("m1->logits"), lens.graph.edge("embed->a1.h0<q>")
    assert all(abs(found.scores[at]) < 1e-5 for at in mute)


def test_integrated_gradients_rank_edges_as_exact_patching_does(wired):
    lens, pairs = EdgeLens(wired), drawn_pairs(rows=12)
    exact = scores(lens, pairs, "exact")
    for method in ("eap-ig-inputs", "eap-ig-activations"):
        assert spearmanr(scores(lens, pairs, method).abs(), exact.abs()).statistic >= 0.8, method


def test_the_way_from_corrupt_to_clean_adds_up(llama):
    """Completeness: the scores of the embedding's edges converge to the whole fall of the metric."""
    lens, pairs = EdgeLens(llama), drawn_pairs()
    clean, corrupt, right, wrong = next(iter(pairs))
    metric = probe.circuits.logit_difference(right, wrong)
    with torch.no_grad():
        fall = float((metric(lens.logits(corrupt)) - metric(lens.logits(clean))).mean())
    off = [abs(float(attribute(lens, pairs, steps=steps).scores[0].sum()) - fall) for steps in (2, 8, 32)]
    assert off[2] < off[1] < off[0] and off[2] < 0.01 * abs(fall)


def test_shared_keys_and_values_score_as_those_of_every_head_together(llama, without_groups):
    pairs = drawn_pairs()
    shared, own = EdgeLens(llama), EdgeLens(without_groups)
    torch.testing.assert_close(shared.logits(pairs.clean[0]), own.logits(pairs.clean[0]), atol=1e-4, rtol=1e-4)
    for method in ("eap", "eap-ig-inputs"):
        a, b = attribute(shared, pairs, method).scores, attribute(own, pairs, method).scores
        for column, reader in enumerate(shared.graph.readers):
            members = [
                own.graph.readers.index(type(reader)(reader.layer, reader.slot, head))
                for head in (shared.graph.heads_of(reader) if reader.slot in "qkv" else [0])
            ]
            torch.testing.assert_close(a[:, column], b[:, members].sum(1), atol=1e-4, rtol=1e-3)


def test_a_divergence_has_no_slope_at_the_clean_run(wired):
    lens, pairs = EdgeLens(wired), drawn_pairs()
    assert scores(lens, pairs, "eap", metric="divergence").abs().max() < 1e-4
    found, exact = (scores(lens, pairs, name, metric="divergence") for name in ("eap-ig-inputs", "exact"))
    assert found.abs().max() > 1e-2 and exact.max() <= 1e-5, "to cut an edge cannot bring the run nearer to itself"


@pytest.mark.parametrize(
    ("more", "said"), [({"method": "eap-ig"}, "no method 'eap-ig'"), ({"metric": "kl"}, "no metric")]
)
def test_unknown_names_are_refused(llama, more, said):
    with pytest.raises(ProbeError, match=said):
        attribute(EdgeLens(llama), drawn_pairs(), **more)


def test_more_edges_keep_more(wired):
    lens, pairs = EdgeLens(wired), drawn_pairs(rows=12)
    circuit = attribute(lens, pairs, "exact")
    curve = faithfulness(lens, circuit, drawn_pairs(rows=12, seed=1), shares=(0.02, 0.06, 0.12, 1.0))
    assert curve.values[-1] == pytest.approx(1.0, abs=1e-3)
    assert curve.at(0.12) > 0.8 and curve.cmd < 0.5
    wires = circuit.top(6)
    assert {name for name, _ in wires.listed()} <= {name for name, _, _ in lens.graph.named()}
    assert kept_by(lens, circuit.top(len(lens.graph)), pairs) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("method", GRADIENTS)
def test_windows_side_by_side_add_up(wired, method):
    lens, pairs = EdgeLens(wired), drawn_pairs(rows=4)
    whole = scores(lens, pairs, method, steps=2)
    parts = [scores(lens, pairs, method, steps=2, window=window) for window in ((0, 4), (4, -2), (-2, None))]
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-3)


def test_exact_patching_in_a_window_cuts_there_alone(wired):
    lens, pairs = EdgeLens(wired), drawn_pairs(rows=3)
    whole = scores(lens, pairs, "exact")
    torch.testing.assert_close(scores(lens, pairs, "exact", window=(0, 9)), whole)
    assert scores(lens, pairs, "exact", window=(0, 2)).abs().max() < 1e-5, "the texts are the same there"
    some = scores(lens, pairs, "exact", window=(2, 5))
    row, column = lens.graph.edge("embed->a0.h1<v>")
    at = int(lens.graph.edges[: row + 1].sum()) - int(lens.graph.edges[row, column:].sum())
    torch.testing.assert_close(some[at], whole[at], atol=1e-5, rtol=1e-3)  # all that differs of the embedding is there


@pytest.mark.slow
@pytest.mark.long
def test_on_the_bundled_base_integrated_gradients_rank_edges_as_exact_patching_does():
    """The texts of each pair differ only in an operand."""
    pair, problems = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    train = problems.take("train", 20)
    traces = probe.generate_traces(pair.base, problems, train, max_new_tokens=60)
    pairs, lens = operand_pairs(pair.base, traces, train, n_pairs=2), EdgeLens(pair.base)
    exact = scores(lens, pairs, "exact").abs()
    strong = exact >= exact.quantile(0.9)
    for method in GRADIENTS:
        found = scores(lens, pairs, method).abs()
        assert spearmanr(found, exact).statistic >= 0.8, method
        assert roc_auc_score(strong, found) >= 0.95, method
