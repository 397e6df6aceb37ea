"""Attention as it can be read: every head's pattern in one view that stands alone, and sentences as a map."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from probe.errors import ProbeError
from probe.files import write_text
from probe.reports.html.look import RISING, heatmap, short, styled

if TYPE_CHECKING:
    from IPython.display import HTML
    from jaxtyping import Float
    from plotly.graph_objects import Figure
    from torch import Tensor

    from probe.circuits import Attention, Receivers

_HERE = Path(__file__).parent
_MOST = 4_000_000
"""Numbers that a view may hold; a page of more is slow to open."""


def attention_patterns(
    tokens: Sequence[str], attention: "Float[Tensor, 'heads query key']", names: Sequence[str] | None = None
) -> "HTML":
    """Heads to choose from, and a text in which pointing at a token shows what it looks at.

    The names of the arguments are those of CircuitsVis; nothing is fetched from elsewhere.

    Args:
        tokens: the text.
        attention: each head's pattern.
        names: of the heads; their numbers unless given.

    Raises:
        ProbeError: if there are too many numbers for a page: choose fewer layers or a shorter text.
    """
    from IPython.display import HTML

    return HTML(_view(tokens, attention, names))


def write_attention(attention: "Attention", path: str | Path) -> Path:
    """All heads of an :class:`~probe.circuits.Attention` as a page of its own."""
    heads = attention.patterns.flatten(0, 1)
    n_heads = attention.patterns.shape[1]
    names = [f"a{layer}.h{head}" for layer in attention.layers for head in range(n_heads)]
    body = _view(attention.names, heads, names)
    head = '<meta charset="utf-8"><title>attention · probe</title>'
    return write_text(Path(path), f'<!doctype html><html lang="en">{head}<body>{body}</body></html>')


def _view(tokens: Sequence[str], attention: "Float[Tensor, 'heads query key']", names: Sequence[str] | None) -> str:
    if attention.numel() > _MOST:
        raise ProbeError(
            f"{attention.numel():,} numbers are too many for a view ({_MOST:,}): choose fewer layers or a shorter text"
        )
    levels = (attention.clamp(0, 1) * 255).round().byte().contiguous().cpu().numpy().tobytes()
    said = list(names) if names is not None else [f"head {i}" for i in range(len(attention))]
    data = {"tokens": list(tokens), "names": said, "levels": base64.b64encode(levels).decode()}
    # A closing tag inside a token must not end the script.
    told = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    script = (_HERE / "attention_view.js").read_text(encoding="utf-8")
    name = f"attention-{uuid4().hex[:8]}"
    return f'<div id="{name}"></div><script>{script}\nprobeAttention("{name}", {told});</script>'


def sentence_figure(attention: "Attention", layer: int, head: int) -> "Figure":
    """How much each sentence looks at each earlier one, for one head."""
    pattern = attention.head(layer, head)
    n = len(attention.names)
    rows = [[float(pattern[i, j]) if j < i else None for j in range(n)] for i in range(n)]
    labels = [f"{i} {short(name, 34)}" for i, name in enumerate(attention.names)]
    figure = heatmap(
        rows,
        x=[str(i) for i in range(n)],
        y=labels,
        colorscale=RISING,
        zmin=0,
        hovertemplate="%{y}<br>looks at sentence %{x}: %{z:.3f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="bottom", title="earlier sentence")
    return styled(figure, f"a{layer}.h{head}: mean attention between sentences", 130 + 24 * n)


def receivers_figure(receivers: "Receivers") -> "Figure":
    """Kurtosis of every head: the darker, the fewer sentences it narrows attention to."""
    values = receivers.kurtosis
    figure = heatmap(
        values.tolist(),
        x=[f"h{i}" for i in range(values.shape[1])],
        y=[f"block {i}" for i in receivers.layers],
        colorscale=RISING,
        text=[[f"{float(each):.1f}" for each in row] for row in values],
        written=values.numel() <= 128,
        gap=2,
        hovertemplate="%{y}, %{x}: %{z:.2f}<extra></extra>",
    )
    return styled(
        figure, "Receiver heads: kurtosis of what sentences get", 120 + min(44, 900 // len(values)) * len(values)
    )


def colored_tokens(tokens: Sequence[str], values: "Float[Tensor, ' tokens'] | Sequence[float]") -> "HTML":
    """A text whose tokens are shaded by a value: blue above zero, orange below; the names are those of CircuitsVis."""
    from IPython.display import HTML

    numbers = [float(each) for each in values]
    largest = max((abs(each) for each in numbers), default=1.0) or 1.0
    pieces = "".join(
        f'<span title="{number:.4f}" style="background:rgba({"47,127,193" if number > 0 else "200,100,30"},'
        f'{abs(number) / largest:.2f})">{escape(token)}</span>'
        for token, number in zip(tokens, numbers, strict=True)
    )
    return HTML(f'<div style="line-height:1.9;white-space:pre-wrap">{pieces}</div>')
