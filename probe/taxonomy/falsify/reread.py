"""Reading a changed sentence in its context: the prompt, the trace before it, then the new words.

The text before keeps the trace's own token ids, and a sentence's vector is the mean over its tokens, as in the harvest.
The text of the sentence's own tokens is what changes, so white space that a tokenizer joins to a full stop stays in
place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import Document, SentenceActivations, documents_of, harvest
from probe.errors import ProbeError
from probe.models import Model
from probe.traces import Traces, encode_exactly, text_after

#: Tokens of context that a new sentence is encoded with if it cannot be encoded alone.
_TAIL = 8
#: The largest distance between a vector and the harvested one, relative to its length; dtypes differ by less.
_SAME = 0.05


@dataclass(frozen=True)
class ContextReader:
    """Reads the sentences of some traces, changed or not, in their context."""

    model: Model
    site: str
    documents: Sequence[Document]
    """One for each trace."""
    index: Sequence[tuple[int, int]]
    """The trace and the sentence of each row of the activations."""
    batch_tokens: int

    @classmethod
    def of(
        cls, model: Model, traces: Traces, activations: SentenceActivations, site: str, batch_tokens: int
    ) -> "ContextReader":
        """Make a reader, and check on a few rows that the activations are this model's on these traces.

        Args:
            traces: the traces that were harvested.
            activations: what was harvested from them.
            site: the site to read.
            batch_tokens: the maximum number of tokens that the model reads at once.

        Raises:
            ProbeError: if they are not.
        """
        documents = documents_of(model, traces)
        for trace, sentence in activations.index:
            if trace >= len(documents) or sentence >= len(documents[trace].spans):
                raise ProbeError(
                    f"the activations have a row for sentence {sentence} of trace {trace}, which the {len(traces)} "
                    "traces do not hold; give the traces that were harvested"
                )
        reader = cls(model, site, documents, activations.index, batch_tokens)
        some = torch.linspace(0, len(activations) - 1, min(8, len(activations))).long().tolist()
        if some:
            before = activations.rows(site)[some].float().cpu()
            now = reader._read([reader._document(row, reader.own_ids(row)) for row in some])
            off = ((now - before).norm(dim=1) / before.norm(dim=1).clamp(min=1e-9)).max().item()
            if not off <= _SAME:
                raise ProbeError(
                    f"the activations at {site} are not those of {model.name} on these traces (vectors differ by "
                    f"{off:.0%}); harvest these traces with this model"
                )
        return reader

    def prefix(self, row: int) -> tuple[int, ...]:
        """Return the token ids before a sentence, the prompt included."""
        trace, sentence = self.index[row]
        return self.documents[trace].ids[: self.documents[trace].spans[sentence][0]]

    def own_ids(self, row: int) -> tuple[int, ...]:
        """Return the token ids of a sentence."""
        trace, sentence = self.index[row]
        return self.documents[trace].ids[slice(*self.documents[trace].spans[sentence])]

    def text(self, row: int) -> str:
        """What the tokens of a sentence say in their place."""
        return text_after(self._before(row), self.own_ids(row), self.model.decode)

    def _before(self, row: int) -> tuple[int, ...]:
        """A few tokens of the trace before a sentence, from the beginning of a character."""
        trace, sentence = self.index[row]
        document = self.documents[trace]
        prefix = document.ids[document.spans[0][0] : document.spans[sentence][0]]
        for length in range(_TAIL, 2 * _TAIL):
            if not self.model.decode(prefix[-length:]).startswith("\N{REPLACEMENT CHARACTER}"):
                return prefix[-length:]
        return prefix[-_TAIL:]

    def encode(self, row: int, text: str) -> tuple[int, ...] | None:
        """Encode ``text`` for a sentence's place; None if no token ids decode to exactly this text there."""
        ids = encode_exactly(self._before(row), text, self.model.decode, self.model.tokenizer)
        return None if not ids or self._unknown(ids, row) else tuple(ids)

    def _unknown(self, ids: Sequence[int], row: int) -> bool:
        unknown = self.model.tokenizer.unk_token_id
        return unknown is not None and unknown in ids and unknown not in self.own_ids(row)

    def read(self, rows: Sequence[int], ids: Sequence[tuple[int, ...]]) -> Float[Tensor, "sentence d_model"]:
        """Compute the vector of each sentence with other tokens in its place.

        Args:
            rows: rows of the activations.
            ids: the token ids that replace each sentence.
        """
        return self._read([self._document(row, own) for row, own in zip(rows, ids, strict=True)])

    def _document(self, row: int, ids: tuple[int, ...]) -> Document:
        prefix = self.prefix(row)
        return Document((*prefix, *ids), ((len(prefix), len(prefix) + len(ids)),))

    def _read(self, documents: list[Document]) -> Float[Tensor, "sentence d_model"]:
        # Equal sentences in the same place are read once.
        unique = list(dict.fromkeys(documents))
        read = harvest(self.model, unique, [self.site], batch_tokens=self.batch_tokens).vectors[self.site].float()
        where = {document: i for i, document in enumerate(unique)}
        return read[[where[document] for document in documents]].cpu()
