"""The sites of one model as a table to look at."""

import html
from dataclasses import dataclass

from probe.errors import ProbeError
from probe.models.architectures import KINDS, Heads
from probe.models.config import ModelConfig
from probe.models.loading import find_source, read_config
from probe.models.model import Model
from probe.models.sites import Site, named_place


@dataclass(frozen=True, repr=False)
class SiteTable:
    """What each kind of site is called in a model, in nnsight and in TransformerLens; shows itself in Jupyter."""

    about: str
    """The model in a line."""

    rows: tuple[tuple[str, str, str, str, str], ...]
    """Site, shape, meaning, place in the model as nnsight writes it (or why there is none), TransformerLens hook."""

    columns = ("site", "shape", "what it is", "in the model", "TransformerLens")

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self.rows)
        return "\n".join([self.about, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<p>{html.escape(self.about)}</p><table><tr>{head}</tr>{body}</table>"


def site_table(model: Model | ModelConfig | str) -> SiteTable:
    """The sites of a model; of one that is not loaded, only the config is read.

    Raises:
        ProbeError: if the model is not there or its architecture is not in the table.
    """
    if isinstance(model, str):
        model = ModelConfig(model)
    name = model.name if isinstance(model, Model) else model.path
    full = model.hf.config if isinstance(model, Model) else read_config(find_source(model))
    config = full.get_text_config()
    rows = []
    for kind, about in KINDS.items():
        site = f"{kind}.i" if about.layered else kind
        try:
            # Any layer will do: its number is put back to i.
            found = named_place(full, Site(kind, 0 if about.layered else None))
            where = found.nnsight.replace("[0]", "[i]", 1) + (", a part of it" if found.is_part else "")
        except ProbeError as error:
            if kind == "embed":  # the architecture, not the site, is unknown
                raise
            where = f"none: {str(error).partition(': ')[2]}"
        rows.append((site, about.shape, about.meaning, where, about.lens.replace("{i}", "i")))
    heads = Heads.of(config)
    about = (
        f"{name} ({full.model_type}): layers 0 to {config.num_hidden_layers - 1}, d_model {config.hidden_size}, "
        f"{heads.n_heads} heads of {heads.d_head}, {heads.n_kv_heads} of keys and values, vocab {config.vocab_size}"
    )
    return SiteTable(about, tuple(rows))
