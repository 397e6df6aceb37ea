"""The settings of checking a model; this file needs no torch."""

from dataclasses import dataclass

from probe.models import ModelConfig
from probe.pipeline.checks import check_inputs


@dataclass(frozen=True)
class CheckConfig:
    """How a model is checked."""

    model: ModelConfig
    """The model."""
    texts: str | None = None
    """JSONL file of texts that the model was trained to predict; None for a few sentences of English."""
    device: str = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "float32"
    """The number format of the weights."""

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)
