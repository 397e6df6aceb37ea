"""Edges with scores: the strongest of them, how much of the model's behaviour they keep, and where they are written."""

from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.circuits.graph import EMBED, LOGITS, Graph
from probe.errors import ProbeError
from probe.files import read_json, write_json


@dataclass(frozen=True)
class Circuit:
    """A graph whose edges are scored, and of which some are kept.

    Attributes:
        scores: change of the metric when the edge is cut, zero where there is no edge.
        about: how it was found: method, metric, pairs.
        kept: the circuit's edges; of a fresh attribution all.
    """

    graph: Graph
    scores: Float[Tensor, "writers readers"]
    about: dict[str, Any] = field(default_factory=dict)
    kept: Bool[Tensor, "writers readers"] | None = None

    def __len__(self) -> int:
        return int(self.edges.sum())

    @property
    def edges(self) -> Bool[Tensor, "writers readers"]:
        """Those that are kept."""
        return self.graph.edges if self.kept is None else self.kept

    def top(self, n: int, *, whole_paths: bool = True) -> "Circuit":
        """The ``n`` edges of the largest scores, either sign.

        Args:
            whole_paths: leave out those that lead from nothing the embedding reaches, or to nothing that reaches the
                logits; they change nothing. Fewer than ``n`` may be left.

        Raises:
            ProbeError: if ``n`` is not between 1 and the number of edges.
        """
        if not 1 <= n <= len(self.graph):
            raise ProbeError(f"a circuit of {n} edges was asked for; the graph has {len(self.graph)}")
        size = self.scores.abs().masked_fill(~self.graph.edges, -1.0).flatten()
        kept = torch.zeros_like(size, dtype=torch.bool)
        kept[size.topk(n).indices] = True
        kept = kept.view_as(self.graph.edges)
        return replace(self, kept=_on_paths(self.graph, kept) if whole_paths else kept)

    def heads(self) -> Float[Tensor, "layers heads"]:
        """How much of all scores leaves each head along the circuit's edges; sums to at most 1 (embedding and MLPs)."""
        out = (self.scores.abs() * self.edges).sum(1)
        names = self.graph.writers
        total = out.sum().clamp(min=1e-12)
        rows = [
            [out[names.index(f"a{layer}.h{head}")] for head in range(self.graph.n_heads)]
            for layer in range(self.graph.n_layers)
        ]
        return torch.tensor(rows) / total

    def listed(self, n: int | None = None) -> list[tuple[str, float]]:
        """The circuit's edges by name, the strongest first."""
        found = [(name, float(self.scores[i, j])) for name, i, j in self.graph.named() if self.edges[i, j]]
        return sorted(found, key=lambda each: -abs(each[1]))[:n]

    def save(self, path: str | Path) -> Path:
        """Write it as JSON: ``metadata``, ``nodes`` and ``links``, as circuit-tracer's graph files name them."""
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
        """Read what :meth:`save` wrote.

        Raises:
            ProbeError: if the file is no circuit.
        """
        data = read_json(path)
        try:
            told = dict(data["metadata"])
            about = told.pop("about")
            graph = Graph(**told)
            scores, kept = torch.zeros(graph.edges.shape), torch.zeros_like(graph.edges)
            for link in data["links"]:
                at = graph.edge(f"{link['source']}->{link['target']}")
                scores[at], kept[at] = link["weight"], link["kept"]
        except (KeyError, TypeError) as error:
            raise ProbeError(f"{path} is no circuit of probe's ({error} is missing)") from error
        return cls(graph, scores, about, kept)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{score:+.4f}</td></tr>" for name, score in self.listed(12))
        told = ", ".join(f"{key} {value}" for key, value in self.about.items())
        return (
            f"<p>{len(self):,} of {len(self.graph):,} edges ({escape(told)})</p>"
            f"<table><tr><th>edge</th><th>score</th></tr>{rows}</table>"
        )


def _on_paths(graph: Graph, kept: Bool[Tensor, "writers readers"]) -> Bool[Tensor, "writers readers"]:
    """Without edges that lead from nothing or to nothing."""
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
