"""The drawing of a circuit: heads and MLPs from the embedding at the bottom to the logits at the top, as HTML.

The drawing is an SVG that needs no script. With its script, the heads of a block fold into one node, a slider chooses
how many edges are shown, and pointing at a node or an edge names its edges.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape

from probe.html.assets import asset

EMBED, LOGITS = "embed", "logits"
_FIRST, _MOST = 60, 400
"""The edges that are shown at first, and those that the slider reaches."""
_FOLDED = 8
"""Models with more blocks are folded at first."""
_LEFT, _TOP, _TO_MLP, _WIDEST = 78, 22, 74, 6.0


@dataclass(frozen=True)
class CircuitEdge:
    """An edge of a drawing.

    Attributes:
        name: its name, such as ``a0.h1->a2.h3<q>``.
        writer: the node that it leaves: ``embed``, ``a0.h1`` or ``m0``.
        targets: the nodes that it reaches; several where heads share keys and values.
        score: what happens to the metric without the edge.
    """

    name: str
    writer: str
    targets: tuple[str, ...]
    score: float


def circuit_html(
    n_layers: int, n_heads: int, edges: Sequence[CircuitEdge], heading: str = "", *, total: int | None = None
) -> str:
    """Draw a circuit, with the table of its edges.

    Args:
        n_layers: number of blocks of the model.
        n_heads: number of heads of a block.
        edges: the edges, the strongest first; at most 400 are shown.
        heading: a line above the drawing.
        total: the number of edges of the circuit, if not all are given.
    """
    if not edges:
        return f"<p>{escape(heading)}: no edges</p>"
    layout = _Layout(n_layers, n_heads, edges[:_MOST])
    drawing = layout.svg()
    left = (len(edges) if total is None else total) - len(layout.edges)
    rest = f'<p class="soft">The {left:,} weakest edges are left out.</p>' if left > 0 else ""
    identity = f"probe-circuit-{sha256(drawing.encode()).hexdigest()[:12]}"
    rows = "".join(
        f'<tr data-e="{i}"><td><code>{escape(edge.name)}</code></td><td>{_signed(edge.score)}</td></tr>'
        for i, edge in enumerate(layout.edges)
    )
    body = (
        f'<div class="probe-circuit" id="{identity}"><style>{asset(__file__, "circuit_map.css")}</style>'
        f"{f'<p><b>{escape(heading)}</b></p>' if heading else ''}"
        f'<div class="canvas" tabindex="0" role="region" aria-label="The circuit">{drawing}</div>'
        '<p class="soft">Each node is a head or an MLP, and each line is what one adds to the input of another. '
        "Without a blue line the metric falls; without an orange, dashed one it rises. Wider lines have larger scores."
        "</p>"
        f'<details><summary>The edges as a table</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Edges"><table>'
        f"<tr><th>edge</th><th>score</th></tr>{rows}</table></div></details>{rest}</div>"
    )
    # A notebook may show the same output twice.
    start = f"for (const root of document.querySelectorAll('[id=\"{identity}\"]')) probeCircuit.attach(root);"
    return f"{body}<script>{asset(__file__, 'circuit_map.js')}\n{start}</script>"


class _Layout:
    """Where the nodes of a drawing are, folded and not."""

    def __init__(self, n_layers: int, n_heads: int, edges: Sequence[CircuitEdge]) -> None:
        self.edges = edges
        nodes = {EMBED, LOGITS} | {edge.writer for edge in edges} | {name for edge in edges for name in edge.targets}
        self.used = {
            layer: sorted(int(name.split(".h")[1]) for name in nodes if name.startswith(f"a{layer}.h"))
            for layer in range(n_layers)
        }
        self.mlps = {layer for layer in range(n_layers) if f"m{layer}" in nodes}
        self.folds = {layer for layer, heads in self.used.items() if len(heads) > 1}
        self.folded = self.folds if n_layers > _FOLDED else set()
        step, self.row = max(27, min(48, 620 // n_heads)), 86 if n_layers <= _FOLDED else 46
        self.span = step * (n_heads - 1)
        # Blocks that no edge touches take no room, so that a deep model fits.
        shown = [layer for layer in range(n_layers) if self.used[layer] or layer in self.mlps]
        self.heights = {layer: _TOP + self.row * (len(shown) - i) for i, layer in enumerate(shown)}
        self.height = 2 * _TOP + self.row * (len(shown) + 1)
        # Room to the right of the MLPs for the node itself, or for the widest arc from one MLP to another.
        self.width = _LEFT + self.span + _TO_MLP + max(56, 0.75 * _bow(self.height) + _WIDEST)
        middle = _LEFT + self.span / 2
        self.places = {EMBED: (middle, self.height - _TOP), LOGITS: (middle, float(_TOP))}
        for layer, y in self.heights.items():
            self.places |= {f"a{layer}.h{head}": (_LEFT + step * head, y) for head in self.used[layer]}
            self.places[f"m{layer}"] = (_LEFT + self.span + _TO_MLP, y - 0.35 * self.row)
            if layer in self.folds:
                self.places[f"a{layer}"] = (middle, y)

    def at(self, name: str) -> tuple[float, float]:
        """Where a node is while some blocks are folded."""
        block = name.partition(".")[0]
        return self.places[block if ".h" in name and int(block[1:]) in self.folded else name]

    def svg(self) -> str:
        """The drawing, with what the script needs to fold it."""
        largest = max((abs(edge.score) for edge in self.edges), default=1.0) or 1.0
        lines = "".join(
            self._line(i, edge, target, abs(edge.score) / largest)
            for i, edge in reversed(list(enumerate(self.edges)))
            for target in edge.targets
        )
        labels = "".join(
            f'<text class="label" x="4" y="{y + 4:.0f}">block {layer}</text>' for layer, y in self.heights.items()
        )
        nodes = "".join(self._node(name) for name in self.places if name[0] != "m" or int(name[1:]) in self.mlps)
        narrow, wide = min(self.width, 460.0), 1.3 * self.width
        size = (
            f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" style="min-width:{narrow:.0f}px;max-width:{wide:.0f}px"'
        )
        known = escape(json.dumps({"places": self.places, "first": _FIRST}))
        said = f"{min(_FIRST, len(self.edges))} strongest edges of a circuit, as the table below lists them"
        return (
            f'<svg {size} role="img" aria-label="{said}" data-known="{known}">{labels}'
            f'<g class="edges">{lines}</g><g class="nodes">{nodes}</g></svg>'
        )

    def _line(self, i: int, edge: CircuitEdge, target: str, share: float) -> str:
        less = edge.score < 0
        curve = _curve(self.at(edge.writer), self.at(target), -1 if less else 1)
        return (
            f'<path class="{"less" if less else "more"}{" hidden" if i >= _FIRST else ""}" data-e="{i}" '
            f'data-from="{edge.writer}" data-to="{target}" d="{curve}" stroke-width="{max(1.2, _WIDEST * share):.2f}" '
            f'opacity="{0.35 + 0.6 * share:.2f}"><title>{escape(edge.name)} {_signed(edge.score)}</title></path>'
        )

    def _node(self, name: str) -> str:
        x, y = self.places[name]
        block = name.partition(".")[0][1:]
        fold = name[0] == "a" and "." not in name
        folded = name[0] == "a" and int(block) in self.folded
        text, kind = (name, "end")
        if fold:
            heads = self.used[int(block)]
            text, kind = (f"{len(heads)} heads", "fold")
        elif name[0] == "a":
            text, kind = (name.partition(".")[2], "head")
        elif name[0] == "m":
            text, kind = (name, "mlp")
        wide = {"fold": 62, "head": 25}.get(kind, 44 if kind == "mlp" else 54)
        # Without its script the drawing stays as it is, so nothing in it may promise to be a button.
        hidden = " hidden" if kind in ("fold", "head") and folded != fold and int(block) in self.folds else ""
        return (
            f'<g class="node {kind}{hidden}" data-n="{name}" transform="translate({x:.1f} {y:.1f})">'
            f'<rect x="{-wide / 2}" y="-10" width="{wide}" height="20" rx="{9 if kind in ("mlp", "end") else 3}"/>'
            f'<text y="4">{text}</text></g>'
        )


def _curve(start: tuple[float, float], end: tuple[float, float], side: int) -> str:
    """A curve that leaves upwards and arrives from below; the script draws the same one.

    Between nodes above one another it is an arc, to the left where the score is negative, and to the right where not.
    """
    (x0, y0), (x1, y1) = start, end
    reach = max(14.0, 0.4 * (y0 - y1))
    bow = side * _bow(y0 - y1) if abs(x0 - x1) < 8 else 0.0
    return f"M{x0:.1f} {y0:.1f}C{x0 + bow:.1f} {y0 - reach:.1f} {x1 + bow:.1f} {y1 + reach:.1f} {x1:.1f} {y1:.1f}"


def _bow(height: float) -> float:
    """How far the middle points of an arc are beside its ends; the arc itself goes three quarters as far."""
    return min(150.0, 10 + 0.3 * height)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
