"""When a behaviour's concept enters: in which block and how many tokens before its sentences its words are readable."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.circuits.lenses.jacobian import JacobianLens
from probe.circuits.lenses.reading import JACOBIAN, LOGIT, decoded, lens_layers, states_at
from probe.circuits.lenses.starts import Starts, sentence_starts
from probe.errors import NotApplicable, ProbeError
from probe.html import html_table
from probe.models import Model
from probe.problems import Problem
from probe.statistics import column_intervals, interval_ends
from probe.taxonomy import Behaviour
from probe.traces import Trace, token_name

_SHUFFLES = 1000
_LEVEL = 0.05


@dataclass(frozen=True)
class ConceptEntry:
    """How readable the first words of a behaviour's sentences are before these, against other sentences.

    Attributes:
        behaviour: its name.
        models: the names of the models that read the same traces.
        words: for each model, the tokens that are looked for.
        lens: ``logit lens`` or ``Jacobian lens``.
        layers: for each model, the blocks that are read, counted from 0.
        difference: for each model, the log-probability in nats that the next token is one of the words, before the
            behaviour's sentences minus before others of the same trace, ``[layers, back]``. The last axis is 0 for the
            last token before the sentence, 1 for the one before that, and so on.
        low, high: the ends of the intervals over traces, in the same shapes.
        p: one-sided p values by shuffling within each trace which sentences show the behaviour, adjusted for the number
            of blocks and tokens by the largest value of each shuffle; NaN where a difference is not finite.
        traces: the number of traces.
    """

    behaviour: str
    models: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    lens: str
    layers: tuple[tuple[int, ...], ...]
    difference: tuple[Float[Tensor, "layers back"], ...]
    low: tuple[Float[Tensor, "layers back"], ...]
    high: tuple[Float[Tensor, "layers back"], ...]
    p: tuple[Float[Tensor, "layers back"], ...]
    traces: int

    def first(self, model: int, back: int = 0, *, level: float = _LEVEL) -> int | None:
        """The first block of a model in which the behaviour is readable at a token; None if it is in none.

        Args:
            model: the number of the model.
            back: 0 for the last token before the sentence.
            level: the largest adjusted p value.
        """
        there = (self.p[model][:, back] <= level).nonzero()
        return self.layers[model][int(there[0])] if len(there) else None

    def rows(self) -> list[dict[str, object]]:
        """One row for each model, block and token before the sentence."""
        return [
            {
                "model": name,
                "block": layer,
                "tokens before": back + 1,
                "difference": float(self.difference[i][at, back]),
                "low": float(self.low[i][at, back]),
                "high": float(self.high[i][at, back]),
                "p": float(self.p[i][at, back]),
            }
            for i, name in enumerate(self.models)
            for at, layer in enumerate(self.layers[i])
            for back in range(self.p[i].shape[1])
        ]

    def __repr__(self) -> str:
        firsts = [self.first(i) for i in range(len(self.models))]
        said = ", ".join(
            f"{name}: {'no block' if first is None else f'block {first}'}"
            for name, first in zip(self.models, firsts, strict=True)
        )
        return f"ConceptEntry({self.behaviour}, readable just before from {said}; {self.traces} traces)"

    def _repr_html_(self) -> str:
        rows = [[f"{v:.3f}" if isinstance(v, float) else v for v in row.values()] for row in self.rows()]
        return html_table(list(self.rows()[0]), rows, f"{self!r}, {self.lens}")


def concept_entry(
    models: Sequence[Model],
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    behaviour: Behaviour,
    *,
    lenses: Sequence[JacobianLens] | None = None,
    back: int = 4,
    n_words: int = 8,
    seed: int = 0,
) -> ConceptEntry:
    """Find in which block, and how many tokens before its sentences, a behaviour becomes readable.

    The words are the tokens that begin the behaviour's sentences more often than others, counted on the traces of every
    second problem; how readable they are is measured on the rest. Low blocks mostly know the tokens just read, so a
    difference there says that the texts before both sorts of sentence differ, and not that the model has chosen the
    behaviour.

    Args:
        models: the models that read the traces, each with its own prompt: a base and a thinking model, or one.
        traces: traces with sentences, in tokens that all the models share.
        problems: the problem of each trace.
        behaviour: any behaviour; its sentences are marked once.
        lenses: a Jacobian lens for each model; None for the logit lens.
        back: the number of tokens before a sentence that are read.
        n_words: the largest number of words.
        seed: seeds the shuffles and the resampling of traces.

    Raises:
        ProbeError: if a lens is of another model, there is not one for each, or ``back`` is not positive.
        NotApplicable: if too few traces have both sentences that show the behaviour and others.
    """
    if not models or back < 1 or (lenses is not None and len(lenses) != len(models)):
        raise ProbeError("concept_entry needs a model, one lens for each model if any, and back of at least 1")
    through = [None] * len(models) if lenses is None else list(lenses)
    layers = tuple(lens_layers(model, lens) for model, lens in zip(models, through, strict=True))
    marks = behaviour.marks(traces, required=True)
    marked = replace(behaviour, mark=lambda _: marks)
    found, words, number = [], [], 0
    for model, lens, read in zip(models, through, layers, strict=True):
        starts = sentence_starts(model, traces, problems, marked)
        tokens = starts.tokens(n_words)
        words.append(tuple(token_name(token, model.decode, model.tokenizer) for token in tokens))
        scores, shows, group = _scores(model, starts, lens, read, back, tokens)
        found.append(_compared(scores, shows, group, seed))
        number = int(group.max()) + 1
    difference, low, high, p = zip(*found, strict=True)
    name = LOGIT if lenses is None else JACOBIAN
    return ConceptEntry(
        behaviour.name,
        tuple(model.name for model in models),
        tuple(words),
        name,
        layers,
        difference,
        low,
        high,
        p,
        number,
    )


@torch.no_grad()
def _scores(
    model: Model, starts: Starts, lens: JacobianLens | None, layers: tuple[int, ...], back: int, tokens: list[int]
) -> tuple[Float[Tensor, "cases layers back"], Bool[Tensor, " cases"], Int[Tensor, " cases"]]:
    """The log-probability of the words before each sentence, whether it shows the behaviour, and its trace."""
    parts, shows, group = [], [], []
    for text in starts.measured:
        kept = [i for i, at in enumerate(text.places) if at >= back]
        if len({text.shows[i] for i in kept}) < 2:  # nothing to compare in this trace
            continue
        wanted = [[text.places[i] - 1 - k for k in range(back)] for i in kept]
        places = sorted({at for row in wanted for at in row})
        values = torch.zeros(len(layers), len(places))
        for layer, part, log_p in decoded(model, states_at(model, torch.tensor(text.ids), places, layers), lens):
            values[layers.index(layer), part] = log_p[:, tokens].logsumexp(-1).cpu()
        rows = torch.tensor([[places.index(at) for at in row] for row in wanted])
        parts.append(values[:, rows].movedim(1, 0))
        shows += [text.shows[i] for i in kept]
        group += [group[-1] + 1 if group else 0] * len(kept)
    if not parts:
        raise NotApplicable(f"no trace has both sorts of sentences after its first {back} tokens; give more traces")
    return torch.cat(parts), torch.tensor(shows), torch.tensor(group)


def _compared(
    scores: Float[Tensor, "cases layers back"],
    shows: Bool[Tensor, " cases"],
    group: Int[Tensor, " cases"],
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean difference over traces, the ends of its interval, and adjusted p values."""
    each = _differences(scores, shows, group)
    ends = column_intervals(each.flatten(1).double().numpy(), seed=seed)
    shape = each.shape[1:]
    low, high = (torch.tensor(each).view(shape) for each in interval_ends(ends))
    generator, null = torch.Generator().manual_seed(seed), []
    for _ in range(_SHUFFLES):
        # Sorting by trace and then at random shuffles within each trace.
        order = (group + torch.rand(len(group), generator=generator) * 0.99).argsort()
        null.append(_differences(scores, shows[order], group).mean(0))
    shuffled, observed = torch.stack(null), each.mean(0)
    spread = shuffled.std(0).clamp_min(1e-12)
    finite = each.isfinite().all(0)
    largest = (shuffled / spread).where(finite, -torch.inf).flatten(1).max(1).values
    above = (largest[:, None, None] >= observed / spread).sum(0)
    return observed, low, high, ((above + 1) / (_SHUFFLES + 1)).where(finite, torch.nan)


def _differences(
    scores: Float[Tensor, "cases layers back"], shows: Bool[Tensor, " cases"], group: Int[Tensor, " cases"]
) -> Float[Tensor, "traces layers back"]:
    """For each trace, the mean score of sentences that show the behaviour minus that of the others."""
    means = []
    for side in (shows, ~shows):
        sums = torch.zeros(int(group.max()) + 1, *scores.shape[1:]).index_add_(0, group[side], scores[side])
        means.append(sums / group[side].bincount(minlength=len(sums)).view(-1, 1, 1))
    return means[0] - means[1]
