"""The sites of one model as a table."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.models.config import ModelConfig
from probe.models.loading.finding import find_source
from probe.models.loading.source import read_config
from probe.models.model import Model
from probe.models.sites.kinds import KINDS, RESIDUAL, Kind
from probe.models.sites.places import Heads, Place
from probe.models.sites.resolved import Resolved, is_known, on_meta


@dataclass(frozen=True, repr=False)
class SiteTable:
    """Each kind of site with its place in a model and its name in nnsight and TransformerLens.

    Jupyter shows the table; ``print`` writes it as text.
    """

    about: str
    """Description of the model in one line."""

    rows: tuple[tuple[str, str, str, str, str], ...]
    """For each kind of site: name, shape, meaning, place as nnsight writes it and the layers that have it (or why there
    is none), TransformerLens hook."""

    columns = ("site", "shape", "what it is", "in the model", "TransformerLens")

    def __repr__(self) -> str:
        return f"SiteTable({self.about}; {len(self.rows)} kinds of site)"

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self.rows)
        return "\n".join([self.about, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<p>{html.escape(self.about)}</p><table><tr>{head}</tr>{body}</table>"


def site_table(model: Model | ModelConfig | str | Path) -> SiteTable:
    """List the sites of a model.

    Args:
        model: a loaded model, or the folder, hub id or settings of one, of which only the config is read.

    Raises:
        ProbeError: if there is no such model, or if the architecture of a loaded model is not in the table of sites and
            a trial finds no residual stream.

    Example:
        >>> site_table("bundled:tiny-base")  # doctest: +ELLIPSIS
        SiteTable(bundled:tiny-base (llama): layers 0 to 3, d_model 128, ... 21 kinds of site)
    """
    if isinstance(model, str | Path):
        model = ModelConfig(str(model))
    name = model.name if isinstance(model, Model) else model.path
    full: Any = model.hf.config if isinstance(model, Model) else read_config(find_source(model))
    text = full.get_text_config(decoder=True)
    known = isinstance(model, Model) or is_known(full)
    found = Resolved.of(model.hf if isinstance(model, Model) else on_meta(full)) if known else None
    rows = tuple(
        (f"{kind}.i" if about.layered else kind, about.shape, about.meaning, _where(found, kind), _lens(about))
        for kind, about in KINDS.items()
    )
    heads = Heads.of(text)
    about = (
        f"{name} ({full.model_type}): layers 0 to {text.num_hidden_layers - 1}, d_model {text.hidden_size}, "
        f"{heads.n_heads} heads of {heads.d_head}, {heads.n_kv_heads} of keys and values, vocab {text.vocab_size}"
    )
    return SiteTable(about, rows)


def _where(found: Resolved | None, kind: str) -> str:
    """The place of a kind of site as nnsight writes it, and the layers that have it; or why there is none."""
    if found is None:
        return "found by a trial when the model is loaded" if kind in RESIDUAL else "none: not a known architecture"
    if not KINDS[kind].layered:
        return _written(found.place(kind, None))
    there = found.layers(kind)
    if not there:
        why = found.lacks(kind, 0) or f"{found.model_type} models have none"
        return f"none: {why.replace('layer 0', 'every layer')}"
    groups: dict[str, list[int]] = {}
    for layer in there:
        # One layer stands for all whose place differs by its number alone.
        place = _written(found.place(kind, layer)).replace(f"[{layer}]", "[i]", 1)
        groups.setdefault(place, []).append(layer)
    if len(groups) == 1 and len(there) == len(found.blocks):
        return next(iter(groups))
    return "; ".join(
        f"{place} in layer{'s' if len(layers) > 1 else ''} {ranges(layers)}" for place, layers in groups.items()
    )


def _written(place: Place) -> str:
    factor = f", times {place.times:g}" if place.times != 1 else ""
    return place.nnsight + (", a part of it" if place.is_part else "") + factor


def _lens(about: Kind) -> str:
    return "none" if about.lens is None else about.lens.replace("{i}", "i")


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers in a short form.

    >>> ranges([0, 1, 2, 5, 7, 8]), ranges([3, 7, 11])
    ('0 to 2, 5, 7, 8', '3, 7, 11')
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    written = (f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts)
    return ", ".join(written)
