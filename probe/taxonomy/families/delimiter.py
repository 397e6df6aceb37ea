"""The baseline that reads a sentence at its last token instead of its mean (RISE, arXiv 2512.23988)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from probe.activations import Document, documents_of
from probe.models import Model
from probe.taxonomy.families.base import VectorsError
from probe.taxonomy.families.saelens import SAEFamily
from probe.traces import Traces

if TYPE_CHECKING:
    from sae_lens import TrainingSAE


def delimiter_documents(model: Model, traces: Traces) -> list[Document]:
    """Turn traces into documents whose spans are the last token of each sentence, to be harvested.

    The rows of their harvest match those of a harvest of ``traces``: a sentence without tokens has a row in neither.

    Args:
        model: the model that will read them.

    Returns:
        A document for each trace.
    """
    return [
        replace(each, spans=tuple((max(start, end - 1), end) for start, end in each.spans))
        for each in documents_of(model, traces)
    ]


class DelimiterSAE(SAEFamily):
    """A ReLU SAE with an L1 penalty, SAELens's standard architecture, as in RISE (arXiv 2512.23988).

    RISE learns thousands of latents and lets a judge sort them into behaviours; here a latent is a behaviour, so that
    the family is comparable with the others. It is meant for a harvest of :func:`delimiter_documents`, but can also be
    fitted to sentence means.

    Args:
        n_behaviours: the number of latents.
        l1_coefficient: the weight of the sum of the latents against the squared error.
        steps: the number of Adam steps, on 512 sentences each.
        random_state: seeds the initial weights and the order of sentences.
    """

    def __init__(
        self, n_behaviours: int = 8, *, l1_coefficient: float = 0.1, steps: int = 400, random_state: int = 0
    ) -> None:
        super().__init__(n_behaviours, steps=steps, random_state=random_state)
        self.l1_coefficient = l1_coefficient

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.l1_coefficient < 0:
            raise VectorsError(f"l1_coefficient is {self.l1_coefficient}; it must be at least 0")

    def _untrained(self, d_model: int) -> "TrainingSAE[Any]":
        from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig

        return StandardTrainingSAE(
            StandardTrainingSAEConfig(d_in=d_model, d_sae=self.n_behaviours, l1_coefficient=float(self.l1_coefficient))
        )
