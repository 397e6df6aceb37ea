"""Checks of forward passes: causality, padding, batches, caches, and kinds of attention."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from probe.errors import NotApplicable
from probe.hooks import Runner, capture, edit, force, forced_pass
from probe.models import Model
from probe.pipeline.check.bench import Bench, difference, judged, padded_left
from probe.pipeline.check.checks import Check

_GROUP = "passes"
_STEPS = 4


def finite(bench: Bench) -> Check:
    """Logits of ordinary text are finite."""
    wrong = sum(int((~bench.plain(row).isfinite()).sum()) for row in bench.rows)
    return judged(
        _GROUP,
        "finite logits",
        wrong,
        0,
        "all logits of a few texts are finite",
        f"{wrong} logits are infinite or NaN; load the model with dtype bfloat16 or float32, or check its weights",
    )


def batched(bench: Bench) -> Check:
    """A right-padded batch of probe gives what the model alone gives for single rows."""
    return _batched(bench, "batched = single", bench.rows)


def _batched(bench: Bench, name: str, rows: list[list[int]]) -> Check:
    model = bench.model
    got = forced_pass(model, force(model, [row[:1] for row in rows], [row[1:] for row in rows])).logits
    value = max(difference(got[i, : len(row) - 1], bench.plain(row)[:-1]) for i, row in enumerate(rows))
    return judged(
        _GROUP,
        name,
        value,
        bench.rounding,
        f"{len(rows)} rows of {', '.join(str(len(row)) for row in rows)} tokens give the logits of single passes",
        "a padded batch gives other logits than each row alone: the model's code does not use the attention mask or "
        "the positions it is given; use batch sizes of 1, or another implementation of the model",
    )


def padded(bench: Bench) -> Check:
    """Padding on the left, with transformers' own masks, changes no logits."""
    model, rows = bench.model, bench.rows
    ids, mask = (each.to(model.device) for each in padded_left(rows, model.pad_id))
    positions = mask.cumsum(1).sub(1).clamp(min=0)
    with torch.no_grad():
        got = model.hf(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    value = max(difference(got[i, -len(row) :], bench.plain(row)) for i, row in enumerate(rows))
    return judged(
        _GROUP,
        "left = right padding",
        value,
        bench.rounding,
        "rows padded on the left give the logits of rows without padding",
        "padding on the left changes the logits: the model's code does not use the attention mask or the positions it "
        "is given, so batches decode wrongly; decode with batch size 1, or use another implementation of the model",
    )


def cached(bench: Bench) -> Check:
    """A batch that is decoded with a key/value cache gives the logits of whole passes."""
    return _cached(bench, "cached = uncached", bench.rows)


def _cached(bench: Bench, name: str, rows: list[list[int]]) -> Check:
    model = bench.model
    runner = Runner(model, [row[:-_STEPS] for row in rows], _STEPS)
    steps = [runner.prefill().logits]
    for at in range(-_STEPS, 0):
        steps.append(runner.step(torch.tensor([row[at] for row in rows], device=model.device)).logits)
    got = torch.stack(steps, 1)
    value = max(difference(got[i], bench.plain(row)[-_STEPS - 1 :]) for i, row in enumerate(rows))
    return judged(
        _GROUP,
        name,
        value,
        bench.rounding,
        f"{_STEPS} steps on a key/value cache give the logits of whole passes",
        "decoding with a key/value cache gives other logits than whole passes: positions or masks of single tokens are "
        "wrong in the model's code; try another attention kind (--attention eager) or implementation",
    )


def past_window(bench: Bench) -> Check:
    """Texts longer than the sliding window give the same logits in a batch, and with a cache."""
    if not bench.windows:
        raise NotApplicable("no block has a sliding window")
    window = bench.fillable_window
    if window is None:
        raise NotApplicable(f"its sliding window of {bench.windows[0]} tokens is longer than the texts of this check")
    rows = [bench.row(window + 9), bench.row(window // 2 + 6)]
    both = [_batched(bench, "past the sliding window", rows), _cached(bench, "past the sliding window", rows)]
    worst = max(both, key=lambda check: check.value or 0.0)
    if worst.verdict == "failed":
        return worst
    return Check(
        _GROUP,
        worst.name,
        "passed",
        f"beyond {window} tokens, batches and caches still give the logits of single passes",
        worst.value,
        worst.limit,
    )


def attention_kinds(bench: Bench) -> Check:
    """Fused and step-by-step attention give the same logits."""
    hf: Any = bench.model.hf
    own = hf.config._attn_implementation
    other = "eager" if own != "eager" else "sdpa"
    if other == "sdpa" and not getattr(hf, "_supports_sdpa", False):
        raise NotApplicable("this architecture has eager attention only")
    before = [bench.plain(row) for row in bench.rows]
    try:
        hf.set_attn_implementation(other)
        after = [bench.plain(row) for row in bench.rows]
    except (ValueError, ImportError) as error:
        raise NotApplicable(f"it cannot be run with {other} attention: {' '.join(str(error).split())}") from error
    finally:
        hf.set_attn_implementation(own)
    value = max(difference(two, one) for one, two in zip(before, after, strict=True))
    return judged(
        _GROUP,
        "attention kinds agree",
        value,
        bench.rounding,
        f"{own} and {other} attention give the same logits",
        f"{own} and {other} attention give different logits, so patterns and circuits, which need eager attention, are "
        "of another model than the one that decodes; load it with --attention eager, or update transformers",
    )


def causal(bench: Bench) -> Check:
    """Each token is seen by itself and by later tokens within the window, and by no others."""
    name, model = "causal attention", bench.model
    window = bench.fillable_window
    width = max(24, 0 if window is None else window + 8)
    ids, at = bench.row(width), 7
    seen = list(_reaches(model, ids, at))
    if not seen:
        return _causal_by_logits(bench, ids, at)
    layer_of: dict[str, list[int]] = {}
    for layer, reached, allowed in seen:
        for position in (reached & ~allowed).nonzero()[:, 0].tolist():
            where = "an earlier token sees it" if position < at else "a token beyond the sliding window sees it"
            layer_of.setdefault(where, []).append(layer)
    together = torch.stack([reached for _, reached, _ in seen]).any(0)
    if not together[at]:
        layer_of["it does not see itself"] = [layer for layer, _, _ in seen]
    if not together[at + 1]:
        layer_of["the next token does not see it"] = [layer for layer, _, _ in seen]
    wrong = len({layer for layers in layer_of.values() for layer in layers})
    said = "; ".join(f"{what} in {_layers(layers)}" for what, layers in layer_of.items())
    return judged(
        _GROUP,
        name,
        wrong,
        0,
        f"in each of {len(seen)} layers, a token is seen by itself and later tokens only"
        + (f", within a window of {window}" if window else ""),
        f"the value of token {at} was changed in each layer: {said}; the attention mask is shifted, so check the "
        "model's code, its sliding_window and layer_types, and the attention kind (try --attention eager)",
    )


def _reaches(model: Model, ids: list[int], at: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each layer whose values can be changed: the tokens that the value of a token reaches, and those it may."""
    config: Any = model.hf.config.get_text_config()
    kinds = list(getattr(config, "layer_types", None) or [None] * model.n_layers)
    row = torch.tensor([ids], device=model.device)
    position = torch.arange(len(ids))
    for layer in range(model.n_layers):
        try:
            with torch.no_grad(), capture(model, [f"v.{layer}", f"z.{layer}"]) as before:
                model.hf(input_ids=row, use_cache=False)
            # Large, because a token may attend little to it.
            shift = torch.zeros(len(ids), 1, 1, dtype=model.dtype, device=before[f"v.{layer}"].device)
            shift[at] = 1e3 * before[f"v.{layer}"].float().std() + 1.0
            with (
                torch.no_grad(),
                edit(model, {f"v.{layer}": shift}),
                capture(model, f"z.{layer}") as after,
            ):
                model.hf(input_ids=row, use_cache=False)
        except NotApplicable:
            continue
        changed = (after[f"z.{layer}"] != before[f"z.{layer}"])[0].flatten(1).any(1).cpu()
        windows = model.mask_windows
        window = windows.get(kinds[layer], windows.get(None))
        yield layer, changed, (position >= at) & (position < at + (window or len(ids)))


def _causal_by_logits(bench: Bench, ids: list[int], at: int) -> Check:
    """The check where the values of layers have no site: another token changes no earlier logits, and later ones."""
    other = next((i for i in bench.pool if i != ids[at]), None)
    if other is None:
        raise NotApplicable("the tokenizer has only one token")
    before, after = bench.plain(ids), bench.plain([*ids[:at], other, *ids[at + 1 :]])
    early = difference(after[:at], before[:at])
    late = difference(after[at + 1 :], before[at + 1 :])
    passed = early <= bench.rounding and late > 0
    return Check(
        _GROUP,
        "causal attention",
        "passed" if passed else "failed",
        "another token changes later logits and no earlier ones"
        if passed
        else "another token changes earlier logits, so tokens see later ones; check the model's code"
        if early > bench.rounding
        else "another token changes no later logits, so tokens see no earlier ones; check the model's code",
        early,
        bench.rounding,
    )


def _layers(layers: list[int]) -> str:
    few = sorted(set(layers))
    if len(few) == 1:
        return f"layer {few[0]}"
    return f"{len(few)} layers ({', '.join(map(str, few[:4]))}{' ...' if len(few) > 4 else ''})"


def dtypes(bench: Bench) -> Check:
    """How much another number format changes what the model predicts."""
    model = bench.model
    other = torch.float32 if model.dtype != torch.float32 else torch.bfloat16
    ids = bench.row(128)
    twin = Bench(bench.copy_as(other))
    own, there = (each.plain(ids).float().log_softmax(-1) for each in (bench, twin))
    exact, rough = (there, own) if other == torch.float32 else (own, there)
    kl = float((exact.exp() * (exact - rough)).sum(-1).mean())
    same = float((exact.argmax(-1) == rough.argmax(-1)).double().mean())
    names = [str(each).removeprefix("torch.") for each in (model.dtype, other)]
    return Check(
        _GROUP,
        "number formats",
        "measured",
        f"{names[0]} against {names[1]}: KL {kl:.2g} nats a token, the likeliest token agrees at {same:.0%} of "
        f"{len(ids)} tokens"
        + (
            "; greedy texts will differ after a few tokens, so compare arms in one number format" if same < 0.99 else ""
        ),
        kl,
    )
