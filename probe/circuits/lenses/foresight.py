"""Where a model holds a token that it will write: which lens reads it, in which block and how many tokens before."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.circuits.lenses.jacobian import JacobianLens
from probe.circuits.lenses.reading import JACOBIAN, LOGIT, decoded, lens_layers, states_at
from probe.circuits.pairs.equations import equations_in, is_true
from probe.errors import NotApplicable, ProbeError
from probe.html import html_table
from probe.models import Model
from probe.problems import Problem
from probe.statistics import Interval, bootstrap, column_intervals, interval_ends
from probe.traces import Trace, token_starts

_CHOICES = 500
_LEVEL = 0.95
"""The share of random choices of other texts' tokens in which no block and place exceeds the threshold."""


@dataclass(frozen=True)
class Written:
    """A text, and the tokens in it that the model should know before it writes them.

    Attributes:
        ids: token ids of the text, the prompt included.
        places: indices in ``ids`` of these tokens.
        unfair: for each place, tokens that it is not compared with, such as those that the text has just before; empty
            for none.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    unfair: tuple[frozenset[int], ...] = ()


@dataclass(frozen=True)
class Foresight:
    """How well two lenses read tokens that will be written, at the tokens before them.

    A token is compared with those that are written at the same places in other texts: the advantage is the
    log-probability of the token, among all of these, minus the mean over those of other texts. It is 0 for a state that
    knows nothing of its own text, whatever tokens a lens prefers.

    Attributes:
        advantage: mean over texts in nats by the logit lens and by the Jacobian lens,
            ``[2, layers, back]``; the last axis is 0 for the token that predicts, 1 for the one before it, and so on.
        low, high: the ends of the intervals over texts.
        right: how often the token is the likeliest of the candidates.
        of_others: how often the token of another text is.
        threshold: the advantage above which a block counts as holding the token; in 95 % of random choices of other
            texts' tokens, a lens exceeds it at no block and place.
        earlier: for each place, how many blocks earlier the Jacobian lens exceeds its threshold; a lens that never does
            counts as the number of blocks.
        layers: the blocks that are compared, counted from 0.
        n: the number of tokens looked for.
        texts: the number of texts.
    """

    advantage: Float[Tensor, "lenses layers back"]
    low: Float[Tensor, "lenses layers back"]
    high: Float[Tensor, "lenses layers back"]
    right: Float[Tensor, "lenses layers back"]
    of_others: Float[Tensor, "lenses layers back"]
    threshold: Float[Tensor, "lenses layers back"]
    earlier: tuple[Interval, ...]
    layers: tuple[int, ...]
    n: int
    texts: int

    def first(self, lens: int, back: int) -> int | None:
        """The first block at which a lens (0: logit, 1: Jacobian) exceeds its threshold; None if none does."""
        above = (self.advantage > self.threshold)[lens, :, back].nonzero()
        return self.layers[int(above[0])] if len(above) else None

    def rows(self) -> list[dict[str, object]]:
        """One row for each lens, block and place."""
        return [
            {
                "lens": (LOGIT, JACOBIAN)[lens],
                "block": layer,
                "tokens before": back + 1,
                "advantage": float(self.advantage[lens, at, back]),
                "low": float(self.low[lens, at, back]),
                "high": float(self.high[lens, at, back]),
                "right": float(self.right[lens, at, back]),
                "of others": float(self.of_others[lens, at, back]),
                "null": float(self.threshold[lens, at, back]),
            }
            for lens in range(2)
            for at, layer in enumerate(self.layers)
            for back in range(self.advantage.shape[2])
        ]

    def __repr__(self) -> str:
        ahead = "; ".join(f"{back + 1} before: {each} blocks earlier" for back, each in enumerate(self.earlier))
        return f"Foresight({self.n} tokens of {self.texts} texts; Jacobian lens {ahead})"

    def _repr_html_(self) -> str:
        head = list(self.rows()[0])
        rows = [[f"{v:.3f}" if isinstance(v, float) else v for v in row.values()] for row in self.rows()]
        return html_table(head, rows, repr(self))


def foresight(model: Model, texts: Sequence[Written], lens: JacobianLens, *, back: int = 3, seed: int = 0) -> Foresight:
    """Compare how early the logit lens and a Jacobian lens read tokens that will be written.

    Args:
        texts: texts with the tokens that are looked for, one for each problem; see :func:`equation_results`.
        lens: a Jacobian lens of the model, fitted on other texts.
        back: the number of tokens before each one at which it is looked for.
        seed: seeds the random tokens of other texts and the resampling of texts.

    Raises:
        ProbeError: if the lens is of another model, or fewer than two different tokens are looked for in two texts.
    """
    layers = lens_layers(model, lens)
    tokens = sorted({text.ids[at] for text in texts for at in text.places})
    if len(tokens) < 2 or sum(bool(text.places) for text in texts) < 2:
        raise ProbeError("foresight compares tokens of different texts; give two texts or more with different ones")
    parts, which, group, unfair = [], [], [], []
    for number, text in enumerate(text for text in texts if text.places):
        if min(text.places) < back:
            raise ProbeError(f"a token at place {min(text.places)} has no {back} tokens before it; make back smaller")
        parts.append(_candidates(model, text, lens, layers, back, tokens))
        which += [tokens.index(text.ids[at]) for at in text.places]
        group += [number] * len(text.places)
        unfair += text.unfair or [frozenset()] * len(text.places)
    log_p = torch.cat(parts, 2)  # [lenses, layers, cases, back, candidates]
    truth, groups = torch.tensor(which), torch.tensor(group)
    n_texts = int(groups.max()) + 1
    fair = torch.tensor([[token not in each for token in tokens] for each in unfair])
    others = _others(truth, groups, fair)
    advantage = _of(log_p, truth) - (log_p * others[:, None]).sum(-1)
    best = log_p.argmax(-1)
    right = (best == truth[:, None]).float()
    of_others = others[torch.arange(len(truth))[:, None], best]
    sums = [_by_group(each, groups, n_texts) for each in (advantage, right, of_others)]
    flat = sums[0].flatten(1).double().numpy()
    ends = column_intervals(flat, seed=seed)
    shape = (2, len(layers), back)
    low, high = (torch.tensor(each).view(shape) for each in interval_ends(ends))
    means = [each.mean(0) for each in sums]
    threshold = _threshold(log_p, others, groups, n_texts, seed)
    earlier = _earlier(sums[0].double().numpy(), threshold.numpy(), seed)
    return Foresight(means[0], low, high, means[1], means[2], threshold, earlier, layers, len(truth), n_texts)


def equation_results(model: Model, traces: Sequence[Trace], problems: Sequence[Problem]) -> list[Written]:
    """Find the last token of the result of each equation, such as the last digit, where the model must compute it.

    Left out are results that are wrong, repeat an earlier equation, or end in a digit that occurs in an operand. A
    result is compared only with others that do not end in such a digit either, because a model that copies an operand
    would seem to know what the result is not. All results have as many tokens, the number that is most common, so that
    the tokens before the last one are alike.

    Args:
        model: the model that reads, with its own prompt before each trace.
        traces: traces that contain equations, such as ``22 + 9 = 31``.
        problems: the problem of each trace.

    Raises:
        NotApplicable: if no trace contains such an equation.
    """
    found: list[tuple[tuple[int, ...], dict[int, str]]] = []
    sizes: dict[tuple[int, int], int] = {}
    """The number of tokens of each result, by its text and place."""
    for number, (trace, problem) in enumerate(zip(traces, problems, strict=True)):
        prompt = model.prompt_ids(problem.question)
        starts = token_starts(model.tokenizer, trace.tokens, trace.text, model.decode)
        seen, places = set[str](), dict[int, str]()
        for match in equations_in(trace.text):
            digits = match[1] + match[3]
            if match[0] not in seen and match[4][-1] not in digits and is_true(match):
                last = max(i for i, start in enumerate(starts) if start < match.end())
                first = max(i for i, start in enumerate(starts) if start <= match.start(4))
                places[len(prompt) + last] = digits
                sizes[number, len(prompt) + last] = last - first
            seen.add(match[0])
        found.append(((*prompt, *trace.tokens), places))
    if not sizes:
        raise NotApplicable("no trace has a true equation whose result ends in a digit of its own; give more traces")
    usual = Counter(sizes.values()).most_common(1)[0][0]
    kept = [
        (ids, {at: digits for at, digits in places.items() if sizes[number, at] == usual})
        for number, (ids, places) in enumerate(found)
    ]
    tokens = {ids[at] for ids, places in kept for at in places}
    ends = {token: model.decode([token])[-1:] for token in tokens}

    def with_digits(digits: str) -> frozenset[int]:
        return frozenset(token for token, end in ends.items() if end in digits)

    return [Written(ids, tuple(places), tuple(map(with_digits, places.values()))) for ids, places in kept]


@torch.no_grad()
def _candidates(
    model: Model, text: Written, lens: JacobianLens, layers: tuple[int, ...], back: int, tokens: list[int]
) -> Float[Tensor, "lenses layers cases back candidates"]:
    """Log-probabilities among the candidates by both lenses, at the tokens before each place."""
    at = [[place - 1 - k for k in range(back)] for place in text.places]
    places = sorted({each for row in at for each in row})
    states = states_at(model, torch.tensor(text.ids), places, layers)
    rows = torch.tensor([[places.index(each) for each in row] for row in at])
    found = torch.zeros(2, len(layers), len(places), len(tokens))
    for number, each in enumerate((None, lens)):
        for layer, part, log_p in decoded(model, states, each):
            found[number, layers.index(layer), part] = log_p[:, tokens].log_softmax(-1).cpu()
    return found[:, :, rows]


def _of(log_p: Tensor, truth: Int[Tensor, " cases"]) -> Float[Tensor, "lenses layers cases back"]:
    """The log-probability of each case's own token."""
    index = truth[None, None, :, None, None].expand(*log_p.shape[:2], -1, log_p.shape[3], 1)
    return log_p.gather(-1, index)[..., 0]


def _others(
    truth: Int[Tensor, " cases"], groups: Int[Tensor, " cases"], fair: Bool[Tensor, "cases candidates"]
) -> Float[Tensor, "cases candidates"]:
    """For each case, how often each fair candidate is the token of a case of another text.

    Raises:
        NotApplicable: if a case has nothing to be compared with.
    """
    own = torch.nn.functional.one_hot(truth, fair.shape[1]).float()
    mine = torch.zeros(int(groups.max()) + 1, fair.shape[1]).index_add_(0, groups, own)
    left = (own.sum(0) - mine[groups]) * fair
    if not left.sum(1).min() > 0:
        raise NotApplicable("a token has no token of another text to be compared with; give more texts")
    return left / left.sum(1, keepdim=True)


def _by_group(
    values: Float[Tensor, "lenses layers cases back"], groups: Int[Tensor, " cases"], n: int
) -> Float[Tensor, "texts lenses layers back"]:
    """The mean over the cases of each text."""
    moved = values.movedim(2, 0)
    sums = torch.zeros(n, *moved.shape[1:]).index_add_(0, groups, moved)
    return sums / groups.bincount(minlength=n).view(-1, 1, 1, 1)


def _threshold(
    log_p: Tensor, others: Float[Tensor, "cases candidates"], groups: Int[Tensor, " cases"], n: int, seed: int
) -> Float[Tensor, "lenses layers back"]:
    """The advantage that tokens of other texts stay below in 95 % of random choices, over all blocks and places.

    Each block and place is in units of its own spread over random choices, because lenses are surer in the last blocks.
    """
    generator, means = torch.Generator().manual_seed(seed), []
    middle = (log_p * others[:, None]).sum(-1)
    for _ in range(_CHOICES):
        token = torch.multinomial(others, 1, generator=generator)[:, 0]
        means.append(_by_group(_of(log_p, token) - middle, groups, n).mean(0))
    found = torch.stack(means)
    spread = found.std(0).clamp_min(1e-12)
    largest = (found / spread).flatten(2).max(2).values.quantile(_LEVEL, dim=0)
    return largest[:, None, None] * spread


def _earlier(
    rows: Float[np.ndarray, "texts lenses layers back"], threshold: Float[np.ndarray, "lenses layers back"], seed: int
) -> tuple[Interval, ...]:
    """How many blocks earlier the second lens exceeds its threshold, for each place, over resamples of texts."""
    n, _, layers, back = rows.shape

    def gain(items: Int[np.ndarray, "resamples texts"]) -> Float[np.ndarray, "back resamples"]:
        above = rows[items].mean(1) > threshold
        first = np.where(above.any(2), above.argmax(2), layers)
        return (first[:, 0] - first[:, 1]).T.astype(float)

    low, high = bootstrap(gain, n, width=rows[0].size, seed=seed)
    value = gain(np.arange(n)[None])[:, 0]
    return tuple(Interval.of(n, value[at], low[at], high[at]) for at in range(back))
