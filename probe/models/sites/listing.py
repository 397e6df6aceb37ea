"""The sites of one model as a table."""

import html
from dataclasses import dataclass
from pathlib import Path

from probe.errors import ProbeError
from probe.models.config import ModelConfig
from probe.models.loading.finding import find_source
from probe.models.loading.source import read_config
from probe.models.model import Model
from probe.models.sites.architectures import KINDS, Heads
from probe.models.sites.sites import Site, named_place


@dataclass(frozen=True, repr=False)
class SiteTable:
    """Each kind of site with its place in a model and its name in nnsight and TransformerLens.

    Jupyter shows the table; ``print`` writes it as text.
    """

    about: str
    """Description of the model in one line."""

    rows: tuple[tuple[str, str, str, str, str], ...]
    """For each kind of site: name, shape, meaning, place as nnsight writes it (or why it is lacking), TransformerLens
    hook."""

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
        ProbeError: if there is no such model, or its architecture is not in the table of sites.

    Example:
        >>> site_table("bundled:tiny-base")  # doctest: +ELLIPSIS
        SiteTable(bundled:tiny-base (llama): layers 0 to 3, d_model 128, ... 15 kinds of site)
    """
    if isinstance(model, str | Path):
        model = ModelConfig(str(model))
    name = model.name if isinstance(model, Model) else model.path
    full = model.hf.config if isinstance(model, Model) else read_config(find_source(model))
    config = full.get_text_config()
    rows = []
    for kind, about in KINDS.items():
        site = f"{kind}.i" if about.layered else kind
        try:
            # Layer 0 stands for every layer: its number is replaced by i.
            found = named_place(full, Site(kind, 0 if about.layered else None))
            where = found.nnsight.replace("[0]", "[i]", 1) + (", a part of it" if found.is_part else "")
        except ProbeError as error:
            if kind == "embed":  # then the architecture is unknown, not the site
                raise
            where = f"none: {str(error).partition(': ')[2]}"
        rows.append((site, about.shape, about.meaning, where, about.lens.replace("{i}", "i")))
    heads = Heads.of(config)
    about = (
        f"{name} ({full.model_type}): layers 0 to {config.num_hidden_layers - 1}, d_model {config.hidden_size}, "
        f"{heads.n_heads} heads of {heads.d_head}, {heads.n_kv_heads} of keys and values, vocab {config.vocab_size}"
    )
    return SiteTable(about, tuple(rows))
