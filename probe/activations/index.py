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
    model: Model, documents: Sequence[Document], unit: Unit, alone: Mapping[str, Bool[Tensor, " row"]]
) -> pa.Table:
    """Make the index of a harvest.

    Args:
        model: decodes tokens.
        unit: whether a row is a sentence or a token.
        alone: per site, True for rows that have only outlier tokens.

    Returns:
        One line for each row: ``document`` and ``span``, counted from 0; ``start`` and ``end``, the row's tokens in the
        document's ids; ``name`` of the document; ``text``; and ``outlier.SITE`` for each site.
    """
    rows = [document.rows(unit) for document in documents]
    numbers = torch.cat([torch.empty(0, 3, dtype=torch.long), *rows])
    document = torch.arange(len(documents)).repeat_interleave(
        torch.tensor([len(own) for own in rows], dtype=torch.long)
    )

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

    texts = [text for each, own in zip(documents, rows, strict=True) for text in texts_of(each, own)]
    names = [each.name for each, own in zip(documents, rows, strict=True) for _ in own]
    return pa.table(
        {
            "document": whole(document),
            "span": whole(numbers[:, 0]),
            "start": whole(numbers[:, 1]),
            "end": whole(numbers[:, 2]),
            "name": pa.array(names, pa.string()),
            "text": pa.array(texts, pa.string()),
            **{f"outlier.{site}": pa.array(flags.numpy(), pa.bool_()) for site, flags in alone.items()},
        }
    )
