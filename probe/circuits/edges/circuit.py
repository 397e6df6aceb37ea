"""A circuit: edges with scores, of which the strongest are kept, and its file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.circuits.edges.graph import EMBED, LOGITS, Graph
from probe.config import read_as
from probe.errors import ProbeError
from probe.files import write_json
from probe.html import CircuitEdge, circuit_html


@dataclass(frozen=True)
class Circuit:
    """A graph with a score for each edge, some of whose edges are kept.

    Attributes:
        graph: the model's writers, readers and edges.
        scores: change of the metric when the edge is cut; zero where there is no edge.
        about: how the circuit was found: method, metric, number of pairs.
        kept: True for the edges of the circuit; None keeps all edges, as after attribution.
    """

    graph: Graph
    scores: Float[Tensor, "writers readers"]
    about: dict[str, Any] = field(default_factory=dict)
    kept: Bool[Tensor, "writers readers"] | None = None

    def __len__(self) -> int:
        return int(self.edges.sum())

    @property
    def edges(self) -> Bool[Tensor, "writers readers"]:
        """The edges that are kept."""
        return self.graph.edges if self.kept is None else self.kept

    def top(self, n: int, *, whole_paths: bool = True) -> "Circuit":
        """Keep the ``n`` edges with the largest absolute scores.

        Args:
            whole_paths: drop edges that are on no path from the embedding to the logits, because they change nothing.
                Fewer than ``n`` edges may remain.

        Raises:
            ProbeError: if ``n`` is not between 1 and the number of edges.
        """
        if not 1 <= n <= len(self.graph):
            raise ProbeError(f"cannot keep {n} edges: give a number from 1 to {len(self.graph)}, the number of edges")
        size = self.scores.abs().masked_fill(~self.graph.edges, -1.0).flatten()
        kept = torch.zeros_like(size, dtype=torch.bool)
        kept[size.topk(n).indices] = True
        kept = kept.view_as(self.graph.edges)
        return replace(self, kept=_on_paths(self.graph, kept) if whole_paths else kept)

    def heads(self) -> Float[Tensor, "layers heads"]:
        """Each head's share of the absolute scores of the circuit's edges, by the head that writes.

        The shares sum to at most 1; the rest belongs to the embedding and the MLPs.
        """
        out = (self.scores.abs() * self.edges).sum(1)
        names = self.graph.writers
        total = out.sum().clamp(min=1e-12)
        rows = [
            [out[names.index(f"a{layer}.h{head}")] for head in range(self.graph.n_heads)]
            for layer in range(self.graph.n_layers)
        ]
        return torch.tensor(rows) / total

    def listed(self, n: int | None = None) -> list[tuple[str, float]]:
        """The names and scores of the circuit's edges, the strongest first; at most ``n`` unless it is None."""
        return [(name, float(self.scores[i, j])) for name, i, j in self._ranked(n)]

    def strongest(self, n: int = 400) -> list[CircuitEdge]:
        """The circuit's ``n`` strongest edges as :func:`~probe.html.circuit_html` draws them, the strongest first."""
        graph = self.graph
        return [
            CircuitEdge(name, graph.writers[i], tuple(graph.written_by(graph.readers[j])), float(self.scores[i, j]))
            for name, i, j in self._ranked(n)
        ]

    def _ranked(self, n: int | None) -> list[tuple[str, int, int]]:
        """The name, row and column of the circuit's edges, the strongest first."""
        scores, kept = self.scores.abs().tolist(), self.edges.tolist()
        found = [(name, i, j) for name, i, j in self.graph.named() if kept[i][j]]
        return sorted(found, key=lambda each: -scores[each[1]][each[2]])[:n]

    def save(self, path: str | Path) -> Path:
        """Write the circuit as JSON with ``metadata``, ``nodes`` and ``links``, as in circuit-tracer's graph files."""
        nodes = [
            {"node_id": name, "layer": _layer(name, self.graph), "feature_type": _kind(name)}
            for name in (*self.graph.writers, LOGITS)
        ]
        links = [
            {
                "source": self.graph.writers[i],
                "target": self.graph.name(self.graph.readers[j]),
                "weight": float(self.scores[i, j]),
                "kept": bool(self.edges[i, j]),
            }
            for _, i, j in self.graph.named()
        ]
        graph = {"n_layers": self.graph.n_layers, "n_heads": self.graph.n_heads, "n_groups": self.graph.n_groups}
        return write_json(path, {"metadata": {**graph, "about": self.about}, "nodes": nodes, "links": links})

    @classmethod
    def load(cls, path: str | Path) -> "Circuit":
        """Read a file that :meth:`save` wrote.

        Raises:
            ProbeError: if the file is missing or is not a circuit.
        """
        data = read_as(dict[str, Any], path)
        try:
            metadata = dict(data["metadata"])
            about = metadata.pop("about")
            graph = Graph(**metadata)
            scores, kept = torch.zeros(graph.edges.shape), torch.zeros_like(graph.edges)
            places = {name: (i, j) for name, i, j in graph.named()}
            for link in data["links"]:
                at = places[f"{link['source']}->{link['target']}"]
                scores[at], kept[at] = link["weight"], link["kept"]
        except (KeyError, TypeError) as error:
            raise ProbeError(f"{path} is not a circuit file: {error} is missing") from error
        return cls(graph, scores, about, kept)

    def __repr__(self) -> str:
        about = ", ".join(f"{key} {value}" for key, value in self.about.items())
        return f"Circuit({len(self):,} of {len(self.graph):,} edges{about and f', {about}'})"

    def _repr_html_(self) -> str:
        return circuit_html(self.graph.n_layers, self.graph.n_heads, self.strongest(), repr(self), total=len(self))


def _on_paths(graph: Graph, kept: Bool[Tensor, "writers readers"]) -> Bool[Tensor, "writers readers"]:
    """Keep only edges on a path from the embedding to the logits."""
    kept = kept.clone()
    targets = [graph.written_by(reader) for reader in graph.readers]
    while True:
        fed = {EMBED} | {name for j in range(len(targets)) if kept[:, j].any() for name in targets[j]}
        used = {LOGITS} | {name for i, name in enumerate(graph.writers) if kept[i].any()}
        rows = torch.tensor([name in fed for name in graph.writers])
        columns = torch.tensor([any(name in used for name in names) for names in targets])
        left = kept & rows[:, None] & columns[None]
        if torch.equal(left, kept):
            return kept
        kept = left


def _layer(name: str, graph: Graph) -> int:
    if name == EMBED:
        return -1
    return graph.n_layers if name == LOGITS else int(name.split(".")[0][1:])


def _kind(name: str) -> str:
    return {"e": "embedding", "l": "logit", "a": "attention head", "m": "mlp"}[name[0]]
