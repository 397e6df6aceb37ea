"""A base model and a thinking model that read the same emitted text, each after its own prompt."""

import html
from pathlib import Path
from typing import Any

import torch

from probe.config import byte_size
from probe.models.config import PairConfig
from probe.models.loading.bundled import find_pair
from probe.models.loading.devices import as_dtype
from probe.models.loading.finding import find_source
from probe.models.loading.placement import Where, as_placement, check_placement
from probe.models.loading.reading import check_source, finished, read_tokenizer, read_weights
from probe.models.loading.source import Source, dtype_of, read_config
from probe.models.model import Model
from probe.models.prompts.thinking import find_tags
from probe.models.prompts.tokenizers import check_tokenizers
from probe.models.sharing import twin


class Pair:
    """A base and a thinking model; ``load_pair`` loads one, ``Pair(config, base, thinking)`` wraps loaded models.

    Attributes:
        name: The name of the pair in tables.
        config: The settings of the pair.
        base: The model before training.
        thinking: The model after training.
        think_tags: The tags around the thinking; both models mark thinking with them from now on.
        differing_tokens: Added tokens, such as ``<think>``, that differ between the two tokenizers.

    Raises:
        ProbeError: if the two tokenizers give different ids for the same text.
    """

    def __init__(self, config: PairConfig, base: Model, thinking: Model) -> None:
        self.name = config.name
        self.config = config
        self.base = base
        self.thinking = thinking
        member = thinking.config
        self.think_tags = find_tags(
            thinking.tokenizer,
            member.think_close if config.think_close is None else config.think_close,
            member.think_open if config.think_open is None else config.think_open,
        )
        base.think_tags = thinking.think_tags = self.think_tags
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
    pair: str | Path | PairConfig,
    *,
    device: Where = "auto",
    dtype: str | torch.dtype = "float32",
    base_device: Where | None = None,
    thinking_device: Where | None = None,
    memory: int | str | None = None,
) -> Pair:
    """Load both models of a pair.

    Both models are found, their tokenizers compared and their configs checked before any weights are read. Models with
    the same weights, which differ in their prompts or in an adapter that is not merged, share them in memory. Each has
    its own modules, so a hook, an edit or an adapter of one takes no part in the passes of the other.

    Args:
        pair: The name of a bundled pair (see `list_pairs`), the path of a ``pair.yaml`` file, or a `PairConfig`.
        device: As in `load_model`: a device, ``balanced``, several GPUs or a device for each module. ``auto`` takes a
            GPU if there is one.
        dtype: The number format of the weights: ``float32``, ``bfloat16`` or ``float16``; ``auto`` takes that of each
            checkpoint.
        base_device: The device of the base model, if it is another.
        thinking_device: The device of the thinking model, if it is another.
        memory: The bytes that work on a model may take besides its weights, or a text such as ``40GB``; None for half
            of what is free.

    Raises:
        ProbeError: for an unknown name, a missing or incomplete model, or tokenizers that differ.

    >>> pair = load_pair("tiny-rl")  # doctest: +SKIP
    >>> own = PairConfig("mine", base=ModelConfig("./base"), thinking=ModelConfig("org/name"))  # doctest: +SKIP
    """
    config = pair if isinstance(pair, PairConfig) else find_pair(pair)
    places = [as_placement(device if own is None else own) for own in (base_device, thinking_device)]
    if dtype != "auto":
        as_dtype(dtype)  # before anything is read
    sources = find_source(config.base), find_source(config.thinking)
    tokenizers = read_tokenizer(sources[0]), read_tokenizer(sources[1])
    check_tokenizers(*tokenizers)
    for source, where in zip(sources, places, strict=True):
        check_source(source, where)
        check_placement(source, where)
    numbers = [dtype_of(read_config(source), dtype) for source in sources]
    first = read_weights(sources[0], places[0], numbers[0])
    shared = _weights_of(sources[0]) == _weights_of(sources[1]) and places[0] == places[1] and numbers[0] == numbers[1]
    second = twin(first) if shared else read_weights(sources[1], places[1], numbers[1])
    base = finished(first, sources[0], tokenizers[0])
    thinking = finished(second, sources[1], tokenizers[1])
    base.memory = thinking.memory = byte_size(memory)
    return Pair(config, base, thinking)


def shares_weights(pair: PairConfig) -> bool:
    """Whether both models of a pair have the same weights, which are then loaded once if they are on one device.

    Raises:
        ProbeError: if a model is missing or incomplete.
    """
    base, thinking = pair.base, pair.thinking
    if base.merge and thinking.merge:  # then their settings tell, and a folder needs no weights
        one, other = (
            (each.same_weights, each.path.removeprefix("bundled:"), each.attention, each.quantization)
            for each in (base, thinking)
        )
        return one == other
    return _weights_of(find_source(base)) == _weights_of(find_source(thinking))


def _weights_of(source: Source) -> tuple[Any, ...]:
    """What the weights of a model in memory depend on; an adapter that is not merged is no part of them."""
    config = source.config
    merged = None if source.adapter is None or source.switched else source.adapter.folder.resolve()
    path = Path(source.path).resolve() if Path(source.path).is_dir() else source.path
    return path, source.options, config.attention, config.quantization, merged
