"""Activations of a model at each sentence or token: harvested, streamed to disk and read back."""

from probe.activations.documents import Document as Document, Documents as Documents, documents_of as documents_of
from probe.activations.harvesting import harvest as harvest
from probe.activations.outliers import OutlierReport as OutlierReport
from probe.activations.passes import batches as batches, fitting_tokens as fitting_tokens, read as read
from probe.activations.rows import (
    Rows as Rows,
    by_rows as by_rows,
    chosen_chunks as chosen_chunks,
    in_chunks as in_chunks,
)
from probe.activations.sentences import SentenceActivations as SentenceActivations
from probe.activations.store import ActivationStore as ActivationStore
from probe.activations.training import whole_batches as whole_batches
