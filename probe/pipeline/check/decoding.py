"""The check of greedy decoding against transformers."""

from typing import Any

import torch
from transformers import GenerationConfig

from probe.pipeline.check.bench import Bench, judged
from probe.pipeline.check.checks import Check
from probe.traces import decode_greedy

_NEW = 16


def generate(bench: Bench) -> Check:
    """Greedy decoding of a batch gives the tokens of ``transformers.generate`` for each row."""
    model = bench.model
    hf: Any = model.hf
    rows = list(bench.rows)
    if window := bench.fillable_window:
        rows.append(bench.row(window + 4))
    wrong, first, compared = 0, "", 0
    for number, (ids, emission) in enumerate(zip(rows, decode_greedy(model, rows, _NEW), strict=True)):
        row = torch.tensor([ids], device=model.device)
        settings = GenerationConfig(
            max_new_tokens=_NEW,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=list(model.eos_ids) or None,
            pad_token_id=model.pad_id,
        )
        with torch.no_grad():
            made = hf.generate(row, attention_mask=torch.ones_like(row), generation_config=settings)
        wanted = [token for token in made[0, len(ids) :].tolist() if token not in model.eos_ids]
        got = list(emission.tokens)
        compared += max(len(wanted), 1)
        if got == wanted:
            continue
        at = next(
            (i for i, (one, two) in enumerate(zip(got, wanted, strict=False)) if one != two), min(len(got), len(wanted))
        )
        if _tied(bench, ids + wanted[:at], [tokens[at] for tokens in (got, wanted) if at < len(tokens)]):
            continue  # rounding decides, and every later token depends on it
        wrong += 1
        first = first or f"row {number}, new token {at}: {_said(got, at)} and not {_said(wanted, at)}"
    return judged(
        "decoding",
        "decoding = generate",
        wrong,
        0,
        f"{compared} greedy tokens of {len(rows)} prompts in one batch are those of transformers.generate"
        + (f", past the window of {window} tokens" if window else ""),
        f"{wrong} of {len(rows)} greedy texts differ from transformers.generate ({first}); positions, masks or the "
        "cache are wrong in the model's code, see the checks of passes",
    )


def _tied(bench: Bench, ids: list[int], tokens: list[int]) -> bool:
    """Whether the difference of two tokens is one of rounding."""
    logits = bench.plain(ids)[-1].float()
    chosen = tokens or [int(logits.argmax())]
    gap = float(logits.max() - logits[chosen].min())
    return gap <= 2 * bench.rounding * float(logits.std())


def _said(tokens: list[int], at: int) -> str:
    return f"id {tokens[at]}" if at < len(tokens) else "the end"
