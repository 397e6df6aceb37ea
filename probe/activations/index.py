"""The index of a harvest: a table that describes each row."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probe.activations.documents import Document, Unit
from probe.models import Model
from probe.traces import token_texts


def index_table(
    model: Model, documents: Sequence[Document], first: int, unit: Unit, alone: Mapping[str, Bool[Tensor, " row"]]
) -> pa.Table:
    """Make the index of a shard.

    Args:
        model: decodes tokens.
        documents: those of the shard.
        first: the number of the first of them in the harvest.
        unit: whether a row is a sentence or a token.
        alone: per site, True for rows that have only outlier tokens.

    Returns:
        One line for each row: ``document`` and ``span``, counted from 0; ``start`` and ``end``, the row's tokens in the
        document's ids; ``name`` of the document; ``text``; and ``outlier.SITE`` for each site.
    """
    rows = [document.rows(unit) for document in documents]
    numbers = torch.cat([torch.empty(0, 3, dtype=torch.long), *rows])
    lengths = torch.tensor([len(own) for own in rows], dtype=torch.long)
    document = torch.arange(first, first + len(documents)).repeat_interleave(lengths)

    def texts_of(document: Document, rows: Int[Tensor, "row 3"]) -> list[str]:
        if unit == "sentence" and document.texts:
            return [document.texts[number] for number in rows[:, 0].tolist()]
        if not len(rows):
            return []
        first, last = int(rows[:, 1].min()), int(rows[:, 2].max())
        said = token_texts(document.ids[first:last], model.decode, model.tokenizer)
        return ["".join(said[start - first : end - first]) for _, start, end in rows.tolist()]

    def whole(numbers: Tensor) -> pa.Array:
        return pa.array(numbers.numpy(), pa.int32())

    # Document by document, because the tokens of a shard would be many objects of Python at once.
    texts = [pa.array(texts_of(each, own), pa.string()) for each, own in zip(documents, rows, strict=True)]
    names = [pa.repeat(pa.scalar(each.name, pa.string()), len(own)) for each, own in zip(documents, rows, strict=True)]
    return pa.table(
        {
            "document": whole(document),
            "span": whole(numbers[:, 0]),
            "start": whole(numbers[:, 1]),
            "end": whole(numbers[:, 2]),
            "name": pa.chunked_array(names, pa.string()),
            "text": pa.chunked_array(texts, pa.string()),
            **{f"outlier.{site}": pa.array(flags.numpy(), pa.bool_()) for site, flags in alone.items()},
        }
    )
