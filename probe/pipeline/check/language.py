"""Checks of what a trained model must show: it predicts text, a longer context helps, repeated text becomes easier.

No reference is needed. A model whose positions, masks or weights are damaged a little still writes text, but these
properties of trained language models suffer first.
"""

import torch

from probe.errors import NotApplicable
from probe.pipeline.check.bench import Bench, judged
from probe.pipeline.check.checks import Check
from probe.pipeline.check.texts import Text

_GROUP = "language"
_MARGIN = 0.05
"""A loss may be worse by so much, in nats for each token, before it counts."""
_EASY = 1.0
"""A text with fewer nats a token leaves nothing to gain by looking back."""
_NEAR = 32
"""The number of tokens of a short context, and of the tokens that are compared after it."""
_SURE = 3.0
"""How many standard errors a difference must be away from zero."""


def predicts(bench: Bench) -> Check:
    """The loss on ordinary text is far below that of a uniform guess."""
    loss, tokens = bench.loss, len(bench.own_losses)
    return judged(
        _GROUP,
        "predicts text",
        loss,
        bench.loss_limit,
        f"{loss:.2f} nats a token over {tokens} tokens, where a uniform guess has {bench.loss_limit / 0.7:.1f}",
        f"{loss:.2f} nats a token over {tokens} tokens, hardly better than a uniform guess "
        f"({bench.loss_limit / 0.7:.1f}): the weights are random or damaged, belong to another config or tokenizer, or "
        "the model writes other texts (name some with --texts)",
    )


def context(bench: Bench) -> Check:
    """The same tokens are predicted no worse after a long context than after a short one."""
    if not bench.predicts:
        raise NotApplicable("the model does not predict the texts")
    short: list[Text] = []
    places: list[tuple[int, int]] = []
    for number, (before, ids) in enumerate(bench.texts):
        for start in range(3 * _NEAR, len(ids) - _NEAR, _NEAR):
            whole = [*before, *ids]
            at = len(before) + start
            short.append((whole[at - _NEAR : at], ids[start : start + _NEAR]))
            places.append((number, start))
    if not short:
        raise NotApplicable("the texts are too short")
    per_text = bench.own_losses.split([len(ids) for _, ids in bench.texts])
    long = torch.cat([per_text[number][start : start + _NEAR] for number, start in places])
    worse, limit = worse_by(long, bench.losses(short), _MARGIN)
    return judged(
        _GROUP,
        "long context helps",
        worse,
        limit,
        f"{len(long)} tokens are predicted {-worse:.2f} nats better with all that precedes them than with {_NEAR} "
        "tokens of it",
        f"{len(long)} tokens are predicted {worse:.2f} nats worse with all that precedes them than with {_NEAR} tokens "
        "of it: positions beyond a few tokens are wrong; check rope_theta, rope_scaling and sliding_window in "
        "config.json",
    )


def repetition(bench: Bench) -> Check:
    """A text that stands there for the second time is predicted better than the first time."""
    if not bench.predicts:
        raise NotApplicable("the model does not predict the texts")
    before, ids = bench.texts[0]
    part = ids[:64]
    first, second = bench.losses([(before, [*part, *part])]).split(len(part))
    if float(first.mean()) < _EASY:
        raise NotApplicable(f"the text has only {first.mean():.2f} nats a token the first time")
    # The first token of the second time is a surprise.
    worse, limit = worse_by(second[1:], first[1:], _MARGIN)
    said = f"a text of {len(part)} tokens has {first.mean():.2f} nats a token, and repeated {second.mean():.2f}"
    return judged(
        _GROUP,
        "repeated text is easier",
        worse,
        limit,
        said,
        f"{said}: the model cannot look back; check its attention mask, rope_theta and sliding_window",
    )


def worse_by(losses: torch.Tensor, others: torch.Tensor, margin: float) -> tuple[float, float]:
    """By how much losses are worse than others of the same tokens, and how much may be chance.

    Args:
        losses, others: one loss for each token, in nats.
        margin: a difference that does not count, however sure it is.

    Returns:
        The mean difference, and the margin or, if that is larger, three standard errors of the difference.
    """
    gaps = losses - others
    return float(gaps.mean()), max(margin, _SURE * float(gaps.std()) / len(gaps) ** 0.5)
