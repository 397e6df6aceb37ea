"""The trace map: a text whose sentences point to earlier ones, as HTML that needs no other file.

Attention and attribution have the same form: a matrix of sentences by sentences, and for each token a few others. The
map shows one such source at a time, beside the text. A value takes two bytes, and later sentences are left out, so
that a text of thousands of tokens fits. Without scripts it is a table.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from probe.errors import ProbeError
from probe.html.assets import asset
from probe.html.marks import html_table

if TYPE_CHECKING:
    from torch import Tensor

_LIMIT = 3_000_000
"""The most bytes of matrices and links in a map, before they are written as text; the page is then below 5 MB."""
_STEPS = 32767
"""The steps of a value's size; its root is stored, so that small values keep their order."""
_COLUMNS, _CUT = 6, 90
"""The sources in the table of a map, and the characters of a sentence in it."""


@dataclass(frozen=True)
class MapSource:
    """One thing that a trace map can show, such as a head.

    Attributes:
        name: what the list of sources calls it.
        matrix: how much each sentence (row) points to each (column); later ones are not shown.
        links: for each token the numbers of others and the strength of each link, two tensors ``[tokens, some]``.
    """

    name: str
    matrix: "Tensor"
    links: "tuple[Tensor, Tensor] | None" = None


def trace_map_html(
    tokens: Sequence[str],
    spans: Sequence[tuple[int, int]],
    sources: Sequence[MapSource],
    heading: str = "",
    *,
    limit: int = _LIMIT,
) -> str:
    """Write a trace map.

    Args:
        tokens: the tokens of the text.
        spans: for each sentence, the index of its first token and of the one after its last; in order and apart.
        sources: what can be shown, the first one at first; those that do not fit are left out and counted.
        heading: a line above the map.
        limit: the most bytes of matrices and links.

    Raises:
        ProbeError: if sentences overlap, there is nothing to show, or not even one source fits.
    """
    if not sources or not spans:
        raise ProbeError("a trace map needs at least one sentence and one source, such as a head")
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise ProbeError("the sentences of a trace map must be in order and must not overlap")
    parts: list[dict[str, object]] = []
    used = 0
    for source in sources:
        part, size = _packed(source)
        if used + size > limit:
            break
        parts.append(part)
        used += size
    if not parts:
        raise ProbeError(f"{len(spans)} sentences are too many for one trace map: show a part of the text")
    left = len(sources) - len(parts)
    rest = (
        f"{left:,} of {len(sources):,} sources are left out, because they do not fit: name the ones you need"
        if left
        else ""
    )
    known = {"tokens": list(tokens), "spans": [list(each) for each in spans], "sources": parts}
    data = escape(json.dumps(known, separators=(",", ":")))
    table = _table(tokens, spans, sources[: len(parts)])
    identity = f"probe-map-{sha256(data.encode()).hexdigest()[:12]}"
    return "".join(
        (
            f'<div class="probe-map" id="{identity}" data-map="{data}">',
            f"<style>{asset(__file__, 'trace_map.css')}</style>",
            f"<p><b>{escape(heading)}</b></p>" if heading else "",
            f"<details open><summary>The numbers as a table</summary>{table}</details>",
            f'<p class="soft">{escape(rest)}</p>' if rest else "",
            "</div>",
            f"<script>{asset(__file__, 'trace_map.js')}\n",
            # A notebook may show the same output twice.
            f"for (const root of document.querySelectorAll('[id=\"{identity}\"]')) probeMap.attach(root);</script>",
        )
    )


def _packed(source: MapSource) -> tuple[dict[str, object], int]:
    """A source as texts for the script, and its size in bytes."""
    n = len(source.matrix)
    levels, largest = _levels(source.matrix[source.matrix.new_ones(n, n).tril() > 0])  # row by row
    part: dict[str, object] = {"name": source.name, "max": largest, "levels": _text(levels)}
    size = len(levels)
    if source.links is not None:
        to, weight = source.links
        strength, strongest = _levels(weight)
        places = to.int().contiguous().cpu().numpy().astype("<u2" if to.shape[0] <= 2**16 else "<u4").tobytes()
        part["links"] = {
            "some": to.shape[1], "wide": to.shape[0] > 2**16, "to": _text(places), "max": strongest,
            "levels": _text(strength),
        }  # fmt: skip
        size += len(places) + len(strength)
    return part, size


def _levels(values: "Tensor") -> tuple[bytes, float]:
    """Signed levels of values in two bytes each, and the largest absolute value, to which the largest level belongs."""
    values = values.float().flatten()
    largest = float(values.abs().max()) if len(values) else 0.0
    levels = (values.abs() / (largest or 1.0)).sqrt().mul(_STEPS).round() * values.sign()
    return levels.cpu().numpy().astype("<i2").tobytes(), largest


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _table(tokens: Sequence[str], spans: Sequence[tuple[int, int]], sources: Sequence[MapSource]) -> str:
    """Each sentence, and the earlier one that it points to most by each of the first sources."""
    rows = []
    for i, (start, end) in enumerate(spans):
        said = " ".join("".join(tokens[start:end]).split())
        row = [str(i + 1), said if len(said) <= _CUT else f"{said[: _CUT - 1]}…"]
        for source in sources[:_COLUMNS]:
            earlier = source.matrix[i, :i]
            j = int(earlier.abs().argmax()) if i else 0
            row.append(f"{j + 1} ({float(earlier[j]):.3g})" if i else "")
        rows.append(row)
    head = ["", "sentence", *(f"{source.name}: most to" for source in sources[:_COLUMNS])]
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Numbers">{html_table(head, rows)}</div>'
