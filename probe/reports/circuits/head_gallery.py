"""The head gallery: a card for each head with its scores, its attention between sentences, and what it attends to."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from probe.errors import ProbeError
from probe.reports.html.filling import numbers_behind
from probe.reports.html.numbers import number, p_value, percent

if TYPE_CHECKING:
    from IPython.display import HTML
    from torch import Tensor

    from probe.circuits import Attention, Head, HeadTable

_BLUE = bytes((47, 127, 193))
_TOKENS, _LARGEST = 5, 200
"""The tokens on a card, and the largest side of a card's matrix in pixels."""

_STYLE = """
.probe-heads { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 18px 18px;
  font-size: 13.5px; line-height: 1.45; max-width: 1100px; }
.probe-heads article { border: 0; border-top: 2px solid #2f7fc1; padding-top: 8px; min-width: 0; }
.probe-heads h4 { margin: 0 0 6px; font-size: 15px; }
.probe-heads img { display: block; width: 100%; max-width: 210px; aspect-ratio: 1; image-rendering: pixelated;
  border: 1px solid rgba(128, 128, 128, 0.3); }
.probe-heads dl { display: grid; grid-template-columns: 1fr auto; gap: 0 10px; margin: 8px 0 4px; }
.probe-heads dt { color: inherit; opacity: 0.75; font-size: 13px; }
.probe-heads dd { margin: 0; font-variant-numeric: tabular-nums; }
.probe-heads p { margin: 4px 0; overflow-wrap: anywhere; } .probe-heads small { color: inherit; opacity: 0.75; }
.probe-heads code { background: rgba(128, 128, 128, 0.16); border-radius: 3px; padding: 0 3px; white-space: pre; }
"""


def head_gallery(
    attention: "Attention",
    scores: "HeadTable | Mapping[str, Mapping[Head, float]] | None" = None,
    *,
    heads: "Sequence[Head] | None" = None,
    n: int = 12,
) -> "HTML":
    """Show heads as cards: their scores, their attention between sentences, and the tokens that they attend to most.

    Args:
        attention: attention by sentence, from :func:`~probe.circuits.sentence_attention`; with ``n_links``, the cards
            name tokens.
        scores: the table of :func:`~probe.circuits.find_heads`, whose cards say the p value too; or for each score,
            such as the share of a circuit, its value for each head.
        heads: the heads, as ``(layer, head)``; None for those with the largest first score, or else for those that
            concentrate attention on few sentences.
        n: the largest number of cards, if ``heads`` is None.

    Raises:
        ProbeError: if attention is by token, or a head is not in it.
    """
    from IPython.display import HTML

    from probe.circuits import peaked_heads

    if attention.spans is None:
        raise ProbeError("a head gallery needs attention by sentence: use sentence_attention")
    given, p_values = _columns(scores)
    n_heads = attention.patterns.shape[1]
    first = next(iter(given.values()), None)
    if heads is None and first is not None:
        heads = sorted((at for at in first if at[0] in attention.layers), key=lambda at: -first[at])[:n]
    elif heads is None:
        heads = peaked_heads(attention)[:n]
    for layer, head in heads:
        if layer not in attention.layers or not 0 <= head < n_heads:
            raise ProbeError(f"there is no head a{layer}.h{head} in this attention: choose from its layers and heads")
    names = [f"a{layer}.h{head}" for layer, head in heads]
    tokens = [_tokens(attention, at) for at in heads]
    said = [{key: _value(values, at, p_values.get(key)) for key, values in given.items()} for at in heads]
    cards = [
        _card(name, _picture(attention.head(*at)), values, most)
        for name, at, values, most in zip(names, heads, said, tokens, strict=True)
    ]
    rows = [
        (name, *values.values(), ", ".join(f"{token!r} {percent(share)}" for token, share in most))
        for name, values, most in zip(names, said, tokens, strict=True)
    ]
    table = numbers_behind(["head", *given, "tokens with most attention"], rows)
    return HTML(f'<style>{_STYLE}</style><div class="probe-heads">{"".join(cards)}</div>{table}')


def _card(name: str, picture: str, scores: Mapping[str, str], tokens: Sequence[tuple[str, float]]) -> str:
    shown = "".join(f"<dt>{escape(key)}</dt><dd>{value}</dd>" for key, value in scores.items())
    most = " ".join(f"<code>{escape(token)}</code> <small>{percent(share)}</small>" for token, share in tokens)
    return (
        f'<article><h4>{name}</h4><img alt="attention of {name} between sentences" src="{picture}">'
        f"{f'<dl>{shown}</dl>' if shown else ''}{f'<p>{most}</p>' if most else ''}</article>"
    )


def _columns(
    scores: "HeadTable | Mapping[str, Mapping[Head, float]] | None",
) -> "tuple[Mapping[str, Mapping[Head, float]], Mapping[str, Mapping[Head, float]]]":
    """Each score by head, and its p value by head where it is known."""
    if scores is None or isinstance(scores, Mapping):
        return scores or {}, {}
    return scores.scores(), scores.scores("p")


def _value(values: "Mapping[Head, float]", at: "Head", p: "Mapping[Head, float] | None") -> str:
    if at not in values:
        return "–"
    return number(values[at]) + (f" (p {p_value(p[at])})" if p is not None else "")


def _tokens(attention: "Attention", at: "Head") -> list[tuple[str, float]]:
    """The tokens that get the largest shares of a head's attention, over all queries.

    The text's first token is left out, because most heads attend to it by default. Of each query, only the tokens that
    it attends to most are known.
    """
    if attention.links is None or attention.tokens is None:
        return []
    row = attention.layers.index(at[0])
    to, weight = attention.links.to[row, at[1]].flatten(), attention.links.weight[row, at[1]].flatten()
    total: Counter[str] = Counter()
    for key, amount in zip(to.tolist(), weight.tolist(), strict=True):
        if key:
            total[attention.tokens[key]] += amount
    queries = attention.links.to.shape[2]
    return [(token, amount / queries) for token, amount in total.most_common(_TOKENS)]


def _picture(pattern: "Tensor") -> str:
    """A matrix of sentences as a PNG, transparent where there is no attention; long texts lose detail."""
    from PIL import Image
    from torch.nn.functional import max_pool2d

    step = -(-len(pattern) // _LARGEST)
    earlier = max_pool2d(pattern.float().tril(-1)[None], step, ceil_mode=True)[0]
    # The first sentence gets most of the attention of most heads, and would leave the others without colour.
    largest = float(earlier[:, 1:].max()) if len(earlier) > 2 else float(earlier.max())
    levels = (earlier / (largest or 1.0)).clamp(0, 1).sqrt().mul(255).round().byte().cpu().numpy()
    picture = Image.fromarray(levels)  # each level is an entry of a palette that has one colour
    picture.putpalette(_BLUE * 256)
    stream = BytesIO()
    picture.save(stream, "PNG", optimize=True, transparency=bytes(range(256)))
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
