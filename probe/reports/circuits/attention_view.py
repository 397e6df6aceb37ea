"""Views of attention: an interactive page of every head's pattern, and maps of attention between sentences."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from probe.errors import ProbeError
from probe.files import write_text
from probe.html import asset, trace_map_html
from probe.reports.html.filling import plain_page
from probe.reports.html.look import RISING, heatmap, short, styled

if TYPE_CHECKING:
    from IPython.display import HTML
    from jaxtyping import Float
    from plotly.graph_objects import Figure
    from torch import Tensor

    from probe.circuits import Attention, Head, Receivers, SentenceAttribution

_DASHED = ";text-decoration:underline dashed;text-underline-offset:4px"
_STRONGEST = 0.7
"""The opacity of the largest value behind a text, which stays easy to read."""
_MOST = 4_000_000
"""The largest number of values in a view; a larger page opens slowly."""


def attention_patterns(
    tokens: Sequence[str], attention: "Float[Tensor, 'heads query key']", names: Sequence[str] | None = None
) -> "HTML":
    """Show a text in which hovering over a token shows what a chosen head attends to from there.

    The arguments have the names of CircuitsVis; the view loads nothing from the network.

    Args:
        attention: the pattern of each head.
        names: a name for each head; None for their numbers.

    Raises:
        ProbeError: if there are too many values for one page.
    """
    from IPython.display import HTML

    return HTML(_view(tokens, attention, names))


def write_attention(attention: "Attention", path: str | Path) -> Path:
    """Write a page that shows all heads, see :func:`attention_patterns`.

    Raises:
        ProbeError: if there are too many values for one page.
    """
    heads = attention.patterns.flatten(0, 1)
    n_heads = attention.patterns.shape[1]
    names = [f"a{layer}.h{head}" for layer in attention.layers for head in range(n_heads)]
    body = _view(attention.names, heads, names)
    return write_text(Path(path), plain_page("attention · probe", body))


def _view(tokens: Sequence[str], attention: "Float[Tensor, 'heads query key']", names: Sequence[str] | None) -> str:
    if attention.numel() > _MOST:
        raise ProbeError(
            f"{attention.numel():,} values are too many for a view of {_MOST:,}: choose fewer layers or a shorter text"
        )
    from jinja2.utils import htmlsafe_json_dumps

    levels = (attention.clamp(0, 1) * 255).round().byte().contiguous().cpu().numpy().tobytes()
    said = list(names) if names is not None else [f"head {i}" for i in range(len(attention))]
    data = {"tokens": list(tokens), "names": said, "levels": base64.b64encode(levels).decode()}
    encoded = htmlsafe_json_dumps(data)
    script = asset(__file__, "attention_view.js")
    name = f"attention-{uuid4().hex[:8]}"
    return f'<div id="{name}"></div><script>{script}\nprobeAttention("{name}", {encoded});</script>'


def trace_map(
    attention: "Attention | None" = None,
    attribution: "SentenceAttribution | None" = None,
    *,
    heads: "Sequence[Head] | None" = None,
) -> "HTML":
    """Show which earlier sentences each sentence of a long trace attends to or depends on, beside the text.

    A matrix of sentences and the text are linked: pointing at a sentence shades those that it points to, and pointing
    at a token marks its strongest tokens. It stays quick at thousands of tokens. Without scripts it is a table.

    Args:
        attention: attention by sentence, from :func:`~probe.circuits.sentence_attention`.
        attribution: attribution of the same text, from :func:`~probe.circuits.sentence_attribution`; shown first.
        heads: the heads that can be chosen, as ``(layer, head)``; None for as many as fit, those first that concentrate
            attention on few sentences.

    Raises:
        ProbeError: if nothing is given, attention is by token, or the two are of different texts.
    """
    from IPython.display import HTML

    return HTML(_map(attention, attribution, heads))


def write_trace_map(
    path: str | Path,
    attention: "Attention | None" = None,
    attribution: "SentenceAttribution | None" = None,
    *,
    heads: "Sequence[Head] | None" = None,
) -> Path:
    """Write the view of :func:`trace_map` as a page that needs no other file.

    Raises:
        ProbeError: as :func:`trace_map`.
    """
    return write_text(Path(path), plain_page("trace map · probe", _map(attention, attribution, heads)))


def _map(
    attention: "Attention | None", attribution: "SentenceAttribution | None", heads: "Sequence[Head] | None"
) -> str:
    given = [each for each in (attribution, attention) if each is not None]
    if not given:
        raise ProbeError("a trace map needs attention by sentence, an attribution, or both")
    tokens, spans = given[0].tokens, given[0].spans
    if tokens is None or spans is None:
        raise ProbeError("a trace map needs attention by sentence: use sentence_attention")
    if any((each.tokens, each.spans) != (tokens, spans) for each in given):
        raise ProbeError("the attention and the attribution are of different texts or sentences")
    sources = [] if attribution is None else [attribution.source()]
    sources += [] if attention is None else attention.sources(heads)
    return trace_map_html(tokens, spans, sources)


def sentence_figure(attention: "Attention", layer: int, head: int) -> "Figure":
    """Plot how much each sentence attends to each earlier one, for one head.

    Args:
        attention: attention by sentence.
        layer: the block, counted from 0.
        head: the head, counted from 0.
    """
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
        hovertemplate="%{y}<br>attends to sentence %{x}: %{z:.3f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="bottom", title="earlier sentence")
    return styled(figure, f"a{layer}.h{head}: mean attention between sentences", 130 + 24 * n)


def receivers_figure(receivers: "Receivers") -> "Figure":
    """Plot the kurtosis of every head; darker heads concentrate attention on fewer sentences.

    Args:
        receivers: the result of :func:`~probe.circuits.receiver_heads`.
    """
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
        figure,
        "Receiver heads: kurtosis of attention to sentences",
        120 + min(44, 900 // len(values)) * len(values),
    )


def colored_tokens(tokens: Sequence[str], values: "Float[Tensor, ' tokens'] | Sequence[float]") -> "HTML":
    """Show a text whose tokens are shaded by a value, blue above zero, and orange and underlined below.

    The arguments have the names of CircuitsVis.
    """
    from IPython.display import HTML

    numbers = [float(each) for each in values]
    largest = max((abs(each) for each in numbers), default=1.0) or 1.0
    pieces = "".join(
        f'<span title="{number:.4f}" style="background:rgba({"47,127,193" if number > 0 else "200,100,30"},'
        f"{_STRONGEST * abs(number) / largest:.2f}){_DASHED if number < 0 else ''}"
        f'{"" if token else ";padding:0 2px"}">{escape(token)}</span>'
        for token, number in zip(tokens, numbers, strict=True)
    )
    return HTML(f'<div style="line-height:1.9;white-space:pre-wrap">{pieces}</div>')
