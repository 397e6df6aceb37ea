"""A base model and a thinking model that read the same emitted text, each with its own prompt."""

import html

import torch

from probe.models.bundled import find_pair
from probe.models.config import PairConfig
from probe.models.loading import as_device, as_dtype, find_source, read_model, read_tokenizer
from probe.models.model import Model
from probe.models.tokenizers import check_tokenizers


class Pair:
    """Two models to compare. ``load_pair`` makes one; from models of your own: ``Pair(config, base, thinking)``.

    Attributes:
        name: What it is called in tables.
        config: Its settings.
        base: The model before training.
        thinking: The model after it.
        differing_tokens: Added tokens (as ``<think>``) that are not the same in both tokenizers.

    Raises:
        ProbeError: if the two tokenizers give different ids for the same text.
    """

    def __init__(self, config: PairConfig, base: Model, thinking: Model) -> None:
        self.name = config.name
        self.config = config
        self.base = base
        self.thinking = thinking
        self.differing_tokens = check_tokenizers(base.tokenizer, thinking.tokenizer)

    def __repr__(self) -> str:
        return f"Pair({self.name}: base={self.base!r}, thinking={self.thinking!r})"

    def _repr_html_(self) -> str:
        tokens = ", ".join(self.differing_tokens) or "none"
        return (
            f"<p><b>{html.escape(self.name)}</b>, problems: {html.escape(self.config.problems or 'not set')}, "
            f"tokens that differ: {html.escape(tokens)}</p>"
            f"<table><tr><td>{self.base._repr_html_()}</td><td>{self.thinking._repr_html_()}</td></tr></table>"
        )


def load_pair(
    pair: str | PairConfig, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "float32"
) -> Pair:
    """Load both models of a pair.

    Both models are found and their tokenizers compared before the weights of either are read.

    Args:
        pair: The name of a bundled pair (`list_pairs`), the path of a ``pair.yaml`` of your own, or a `PairConfig`.
        device: ``auto`` takes a GPU if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ProbeError: for an unknown name, a model that is not there or not whole, or tokenizers that differ.

    >>> pair = load_pair("tiny-rl")  # doctest: +SKIP
    >>> own = PairConfig("mine", base=ModelConfig("./base"), thinking=ModelConfig("org/name"))  # doctest: +SKIP
    """
    config = pair if isinstance(pair, PairConfig) else find_pair(pair)
    where, number = as_device(device), as_dtype(dtype)
    sources = find_source(config.base), find_source(config.thinking)
    tokenizers = read_tokenizer(sources[0]), read_tokenizer(sources[1])
    check_tokenizers(*tokenizers)
    base, thinking = (
        read_model(source, tokenizer, where, number) for source, tokenizer in zip(sources, tokenizers, strict=True)
    )
    return Pair(config, base, thinking)
