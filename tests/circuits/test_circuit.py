"""Circuits: names of edges, the strongest, whole paths, files; and pairs."""

import json

import pytest
import torch

from probe.circuits import Circuit, Graph, Reader, read_pairs
from probe.errors import ProbeError

GRAPH = Graph(2, 4, 2)


def drawn(seed=0):
    scores = torch.randn(GRAPH.edges.shape, generator=torch.Generator().manual_seed(seed)) * GRAPH.edges
    return Circuit(GRAPH, scores, {"method": "exact"})


def test_writers_and_readers_are_in_order():
    assert GRAPH.writers[:6] == ("embed", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "m0")
    assert [GRAPH.name(reader) for reader in GRAPH.readers[:9]] == [
        *(f"a0.h{head}<q>" for head in range(4)),
        *(f"a0.g{group}<{slot}>" for slot in "kv" for group in range(2)),
        "m0",
    ]
    # Of a block: its heads see what was before it, its MLP its own heads, too.
    assert len(GRAPH) == 8 * 1 + 5 + 8 * 6 + 10 + 11
    for column, reader in enumerate(GRAPH.readers):
        assert column in range(*GRAPH.columns(reader.layer, reader.slot).indices(len(GRAPH.readers)))
    assert GRAPH.written_by(Reader(1, "k", 1)) == ["a1.h2", "a1.h3"]
    assert GRAPH.name(Graph(2, 4, 4).readers[4]) == "a0.g0<k>" and Graph(2, 4, 4).name(Reader(0, "k")) == "a0.h0<k>"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a0.h9->m1", "no 'a0.h9'"),
        ("embed->a1.g0<x>", r"no 'a1\.g0<x>'"),
        ("m1->m0", "m1 does not come before m0"),
        ("a1.h0->a1.h1<q>", "does not come before"),
    ],
)
def test_edges_that_are_none_are_refused(name, said):
    with pytest.raises(ProbeError, match=said):
        GRAPH.edge(name)


def test_every_edge_has_a_name_of_its_own():
    named = {name: (row, column) for name, row, column in GRAPH.named()}
    assert len(named) == len(GRAPH) and all(GRAPH.edge(name) == at for name, at in named.items())


def test_the_strongest_edges_of_either_sign():
    circuit = drawn()
    best = circuit.top(10, whole_paths=False)
    kept = {name for name, _ in best.listed()}
    size = sorted((abs(float(circuit.scores[i, j])) for _, i, j in GRAPH.named()), reverse=True)
    assert len(kept) == 10 and all(abs(score) >= size[9] for _, score in best.listed())
    assert any(score < 0 for _, score in best.listed())
    for n in (0, len(GRAPH) + 1):
        with pytest.raises(ProbeError, match="the number of edges"):
            circuit.top(n)


def test_edges_that_lead_nowhere_are_left_out():
    scores = torch.zeros(GRAPH.edges.shape)
    names = ("embed->a0.h1<q>", "a0.h1->m1", "m1->logits", "a0.h2->m1", "embed->a1.h3<q>", "a0.h3->a1.g0<k>")
    for name in names:
        scores[GRAPH.edge(name)] = 1.0
    circuit = Circuit(GRAPH, scores).top(len(names))
    assert {name for name, _ in circuit.listed()} == set(names[:3])
    assert circuit.heads()[0].tolist() == pytest.approx([0, 1 / 3, 0, 0]) and circuit.heads()[1].sum() == 0


def test_a_circuit_is_saved_loaded_and_shown(tmp_path):
    circuit = drawn().top(20)
    again = Circuit.load(circuit.save(tmp_path / "circuit.json"))
    torch.testing.assert_close(again.scores, circuit.scores * GRAPH.edges)
    assert torch.equal(again.edges, circuit.edges) and again.about == circuit.about and again.graph == GRAPH
    data = json.loads((tmp_path / "circuit.json").read_text())
    assert {node["node_id"] for node in data["nodes"]} == {*GRAPH.writers, "logits"}
    assert f"{len(circuit)} of {len(GRAPH)} edges" in circuit._repr_html_() and "&lt;q&gt;" in drawn()._repr_html_()
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ProbeError, match="is not a circuit"):
        Circuit.load(tmp_path / "no.json")


def test_pairs_of_ones_own(llama, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"clean": "Mia has 2", "corrupt": "Tom has 3", "right": "4", "wrong": "5"}\n')
    (group,) = read_pairs(llama, path)
    assert group[0].shape == group[1].shape and len(group[0]) == 1
    assert llama.decode(group[2].tolist()).strip() == "4"
    path.write_text(2 * path.read_text())
    some = read_pairs(llama, path, n_pairs=1)
    assert len(some) == 1 and some.about["left out"] == 1 and len(read_pairs(llama, path)) == 2
    path.write_text('{"clean": "Mia has 2", "corrupt": "So Mia Tom and Tom has 3", "right": "4", "wrong": "5"}\n')
    (cut,) = read_pairs(llama, path, context=100)
    clean, corrupt = (llama.encode(text) for text in ("Mia has 2", "So Mia Tom and Tom has 3"))
    assert cut[0][0].tolist() == clean
    assert cut[1][0].tolist() == [*corrupt[: len(clean) // 2], *corrupt[-(len(clean) - len(clean) // 2) :]]
    for text, said in (
        ('{"clean": "Mia has 2 3", "corrupt": "Tom has", "right": "4", "wrong": "5"}', "1: clean has"),
        ('{"clean": "Mia", "corrupt": "Tom", "right": "4", "wrong": "4"}', "begin with the same token"),
        ('{"clean": " Mia", "corrupt": " Mia", "right": "4", "wrong": "5"}', "are the same text"),
        ('{"clean": "Mia"}', "has no text 'corrupt'"),
        ("[]", "not a JSON object"),
        ("", "has no pairs"),
    ):
        path.write_text(text)
        with pytest.raises(ProbeError, match=said):
            read_pairs(llama, path)
