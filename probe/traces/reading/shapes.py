"""The known shapes of records, and the search for the shape of a source."""

from collections import Counter
from collections.abc import Mapping, Sequence

from probe.errors import ProbeError
from probe.traces.reading.own import OWN
from probe.traces.reading.plain import PLAIN, mapped
from probe.traces.reading.published import CONVERSATIONS, OPENR1, OPENTHOUGHTS, ROLLOUTS, S1K, S1K_1_1
from probe.traces.reading.raw import Record, Shape
from probe.traces.reading.servers import COMPLETION, MESSAGES, VLLM

SHAPES = (
    OWN,
    VLLM,
    COMPLETION,
    OPENTHOUGHTS,
    S1K_1_1,
    S1K,
    OPENR1,
    ROLLOUTS,
    CONVERSATIONS,
    MESSAGES,
    PLAIN,
)
"""Every known shape; the first one that fits a record is used."""


def shape_of(records: Sequence[Record], columns: Mapping[str, str] | None, where: str) -> Shape:
    """Find the shape of a source.

    Args:
        records: its first records.
        columns: a column map, which replaces the search.
        where: the source, as error messages name it.

    Raises:
        ProbeError: if no shape fits a record.
    """
    if columns is not None:
        return mapped(columns)
    found = Counter(next((shape.name for shape in SHAPES if shape.fits(record)), None) for record in records)
    found.pop(None, None)
    if not found:
        keys = ", ".join(sorted({key for record in records for key in record})[:12]) or "none"
        raise ProbeError(
            f"no known shape of traces fits the records of {where}, whose columns are {keys}; name the columns, such "
            "as --columns question=COLUMN,text=COLUMN,answer=COLUMN"
        )
    most = found.most_common(1)[0][0]
    return next(shape for shape in SHAPES if shape.name == most)
