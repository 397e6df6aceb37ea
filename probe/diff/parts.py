"""How each part of a comparison is computed."""

from collections.abc import Callable, Mapping
from typing import Any

from probe.circuits import Pairs, operand_pairs, statement_pairs
from probe.diff.directions import DirectionTransfer, direction_transfer
from probe.diff.heads import head_shift
from probe.diff.knowledge import knowledge_maps
from probe.diff.latents import latent_difference
from probe.diff.massive import massive_activations
from probe.diff.neurons import entropy_overlap
from probe.diff.shared import shared_latents
from probe.diff.steered import SteeredTexts, steer_with_difference
from probe.diff.texts import Texts
from probe.diff.tokens import TokenShift, token_trace

_MASSIVE_TEXTS = 10
"""Number of texts that are searched for massive activations."""
_LATENT_TEXTS = 512
"""The most texts that SAEs read."""
_STEERED = 12
"""Number of problems on which texts are written with the mean difference added."""
_STEERED_TOKENS = 96
"""The largest number of tokens of such a text."""


def _transfer(texts: Texts, fitted: Pairs, test: Pairs) -> DirectionTransfer:
    return direction_transfer(texts.pair, fitted, test, seed=texts.seed)


def _knowledge(texts: Texts) -> Any:
    pairs = texts.equations(operand_pairs, slice(None), max(4, texts.n_pairs // 3))
    return knowledge_maps(texts.pair, pairs, progress=texts.progress)


def _latents(texts: Texts) -> Any:
    documents = texts.ids(_LATENT_TEXTS)
    return shared_latents(texts.pair, documents, layer=texts.middle, seed=texts.seed, progress=texts.progress)


def _steering(texts: Texts) -> SteeredTexts:
    """Steer the base where the difference says most, on problems that it was not averaged over."""
    found = texts.difference
    place = found.clearest or "traces"
    return steer_with_difference(
        texts.pair.base,
        found,
        texts.problem_set,
        texts.problems[texts.halves[1]][:_STEERED],
        place=place,
        ends=texts.traces[texts.halves[0]] if place == "sentence ends" else None,
        behaviour=texts.found,
        max_new_tokens=min(_STEERED_TOKENS, texts.max_new_tokens),
        seed=texts.seed,
    )


MADE_BY: Mapping[str, Callable[[Texts], Any]] = {
    "tokens": lambda texts: TokenShift.of(
        token_trace(texts.pair, *each) for each in zip(texts.problems, texts.traces, strict=True)
    ),
    "heads": lambda texts: head_shift(
        texts.pair.base, texts.pair.thinking, texts.behaviours(slice(None)), progress=texts.progress
    ),
    "direction": lambda texts: _transfer(texts, *(texts.behaviours(half) for half in texts.halves)),
    "truth": lambda texts: _transfer(
        texts, *(texts.equations(statement_pairs, half, texts.n_pairs) for half in texts.halves)
    ),
    "knowledge": _knowledge,
    "neurons": lambda texts: entropy_overlap(texts.pair),
    "latents": _latents,
    "difference": lambda texts: texts.difference,
    "steering": _steering,
    "dictionary": lambda texts: latent_difference(
        texts.pair, texts.sae, texts.traces[:_LATENT_TEXTS], seed=texts.seed, progress=texts.progress
    ),
    "massive": lambda texts: tuple(
        massive_activations(model, texts.ids(_MASSIVE_TEXTS)) for model in (texts.pair.base, texts.pair.thinking)
    ),
}
"""The function that computes each key of :data:`~probe.diff.PARTS`."""
