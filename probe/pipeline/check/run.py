"""Makes every check of a model."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from probe.errors import NotApplicable, ProbeError
from probe.models import PLAIN_PROMPT, Model, ModelConfig, load_model
from probe.pipeline.adapter.inputs import texts_of
from probe.pipeline.check import decoding, language, passes, settings, sites, tokenizer, weights
from probe.pipeline.check.bench import Bench
from probe.pipeline.check.checks import Check, Checks
from probe.pipeline.check.texts import Text

Made = Callable[[Bench], Check]
_TOKENS = 400
"""About so many tokens of the user's texts are predicted."""

_CHECKS: dict[tuple[str, str], Made] = {
    ("tokenizer", "token offsets"): tokenizer.offsets,
    ("tokenizer", "decode(encode(text)) = text"): tokenizer.round_trip,
    ("tokenizer", "ids have rows"): tokenizer.rows,
    ("tokenizer", "special tokens"): tokenizer.special,
    ("tokenizer", "thinking tags"): tokenizer.thinking,
    ("tokenizer", "chat template"): tokenizer.template,
    ("weights", "finite, filled, distinct"): weights.values,
    ("weights", "tied unembedding"): weights.tied,
    ("passes", "finite logits"): passes.finite,
    ("passes", "causal attention"): passes.causal,
    ("passes", "batched = single"): passes.batched,
    ("passes", "left = right padding"): passes.padded,
    ("passes", "cached = uncached"): passes.cached,
    ("passes", "past the sliding window"): passes.past_window,
    ("passes", "attention kinds agree"): passes.attention_kinds,
    ("passes", "number formats"): passes.dtypes,
    ("decoding", "decoding = generate"): decoding.generate,
    ("sites", "hook = hidden states"): sites.hidden_states,
    ("sites", "residual identities"): sites.residual,
    ("sites", "norm + unembedding = logits"): sites.unembedded,
    ("sites", "edits"): sites.edited,
    ("language", "predicts text"): language.predicts,
    ("language", "long context helps"): language.context,
    ("language", "repeated text is easier"): language.repetition,
    ("language", "rotary base"): settings.rotary_base,
    ("language", "norm epsilon"): settings.norm_epsilon,
    ("language", "attention scale"): settings.attention_scale,
    ("language", "activation"): settings.activation,
    ("language", "unembedding"): settings.unembedding,
    ("language", "order of blocks"): settings.order,
}
"""Every check by its group and name, in order."""


def run_checks(
    model: Model | ModelConfig | str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    texts: str | Path | None = None,
    progress: Callable[[str], object] | None = None,
) -> Checks:
    """Check on a user's own model what probe relies on, in about a minute for a model of 1B on a CPU.

    The checks compare the model with itself and with transformers: tokens with characters, sites with hidden states,
    batches and caches with single passes, decoding with ``generate``. A trained model is also compared with itself
    under other settings: the loss on a text it was trained to predict is near its minimum at the right rotary base,
    norm epsilon, activation and order of blocks, so a config with a wrong value shows itself without a reference.

    Args:
        model: a loaded model, or the folder, hub id or settings of one.
        device, dtype: as in :func:`~probe.load_model`; not used for a loaded model.
        texts: a JSONL file of texts that the model was trained to predict, each line with ``text`` and, for a beginning
            that does not count, ``prompt``; None for a few sentences of English.
        progress: called with the name of each check before it is made.

    Returns:
        A verdict for each check. Whether all is well is ``not checks.failed``.

    Raises:
        ProbeError: if the model cannot be loaded, or the file of texts is missing or wrong.

    Example:
        >>> run_checks("bundled:tiny-base").failed  # doctest: +SKIP
        ()
    """
    if not isinstance(model, Model):
        asked = model if isinstance(model, ModelConfig) else ModelConfig(str(model))
        if not (asked.prompt or asked.chat_settings):  # a base model may have a template that it was not trained on
            asked = replace(asked, prompt=PLAIN_PROMPT)
        model = load_model(asked, device=device, dtype=dtype)
    began = time.perf_counter()
    bench = Bench(model, None if texts is None else _read(model, Path(texts).expanduser()))
    made = []
    for (group, name), check in _CHECKS.items():
        if progress is not None:
            progress(name)
        made.append(_made(group, name, check, bench))
    return Checks(repr(model).removeprefix("Model(").removesuffix(")"), tuple(made), time.perf_counter() - began)


def _read(model: Model, path: Path) -> list[Text]:
    """The first texts of a file, as many tokens as the check of a model needs."""
    found: list[Text] = []
    for example in texts_of(model, path):
        before, ids = list(example.ids[: example.start]), list(example.ids[example.start :])
        if ids and sum(len(each) for _, each in found) < _TOKENS:
            found.append((before[-_TOKENS:], ids[:_TOKENS]))
    if not found:
        raise ProbeError(f"{path} has no text of two tokens or more; give a longer one")
    return found


def _made(group: str, name: str, check: Made, bench: Bench) -> Check:
    try:
        found = check(bench)
    except NotApplicable as error:
        return Check(group, name, "not applicable", _line(error))
    except Exception as error:  # the code of a model may raise anything, and the other checks say more
        return Check(group, name, "failed", f"the check ended with {type(error).__name__}: {_line(error)}")
    assert (found.group, found.name) == (group, name)
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
