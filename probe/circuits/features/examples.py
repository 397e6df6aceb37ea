"""What a latent is: the sentences and tokens where it is strongest, and how well it tells a behaviour's sentences."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats

from probe.activations import Documents, batches, fitting_tokens, read
from probe.adapters import Dictionary
from probe.circuits.features.scores import checked, dictionaries_of
from probe.errors import NotApplicable
from probe.html import html_table
from probe.models import Model
from probe.problems import ProblemSet
from probe.progress import progress_bar
from probe.statistics import Interval, bootstrap, write_p
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Traces

if TYPE_CHECKING:
    from sae_lens import SAE

_SHUFFLES = 999


@dataclass(frozen=True)
class Example:
    """A sentence in which a latent is active.

    Attributes:
        before, token, after: the sentence, divided at the token where the latent is strongest.
        activation: how much of its direction the latent writes there.
        problem: the id of the trace's problem.
        shows: whether the sentence shows the behaviour; None without one.
    """

    before: str
    token: str
    after: str
    activation: float
    problem: str
    shows: bool | None


@dataclass(frozen=True)
class Telling:
    """How well a latent tells a behaviour's sentences from others, on every second trace.

    Attributes:
        auroc: area under the ROC curve: 0.5 says nothing, below 0.5 the latent is weaker in these sentences. Its
            interval resamples traces.
        p: two-sided p value, by shuffling within each trace which sentences show the behaviour.
        other_half: the area on the other traces.
    """

    auroc: Interval
    p: float
    other_half: float | None


@dataclass(frozen=True)
class LatentExamples:
    """A latent in some traces.

    Attributes:
        dictionary: the name of its SAE or transcoder.
        latent: its number.
        frequency: share of the sentences' tokens at which it is active.
        examples: the sentences in which it is strongest, the strongest first.
        inside: how well its largest value in a sentence tells the behaviour; None without a behaviour.
        ahead: how well its value at the token before a sentence does: whether the behaviour is coming.
    """

    dictionary: str
    latent: int
    frequency: float
    examples: tuple[Example, ...]
    inside: Telling | None = None
    ahead: Telling | None = None

    def __repr__(self) -> str:
        told = "" if self.inside is None else f", AUROC {self.inside.auroc.write('{:.2f}'.format)}"
        return f"LatentExamples({self.dictionary!r}, latent {self.latent}, active at {self.frequency:.2%}{told})"

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        tellings = {
            name: None if each is None else {**vars(each), "auroc": each.auroc.to_dict()}
            for name, each in (("inside", self.inside), ("ahead", self.ahead))
        }
        return {**vars(self), "examples": [vars(each) for each in self.examples], **tellings}

    def _repr_html_(self) -> str:
        said = [f"Latent {self.latent} of {self.dictionary}, active at {self.frequency:.2%} of tokens"]
        for name, each in (("in the sentence", self.inside), ("before it", self.ahead)):
            if each is not None:
                said.append(f"AUROC {name} {each.auroc.write('{:.2f}'.format)} ({write_p(each.p)})")
        rows = [
            (
                f"{each.activation:.2f}",
                f"{each.before}«{each.token}»{each.after}",
                {None: "", True: "✓"}.get(each.shows, "–"),
            )
            for each in self.examples
        ]
        return html_table(("activation", "sentence", "behaviour"), rows, "; ".join(said))


@torch.no_grad()
def latent_examples(
    model: Model,
    sae: "SAE[Any] | str | Path | Dictionary",
    traces: Traces,
    latents: Sequence[int],
    *,
    behaviour: Behaviour | str | None = None,
    problem_set: ProblemSet | None = None,
    n: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> list[LatentExamples]:
    """Find where latents are strongest in traces, and how well each tells the sentences of a behaviour.

    Args:
        traces: traces that the model reads. What is known of the behaviour is measured on every second one.
        latents: the numbers of the latents.
        behaviour: the behaviour, or its name as :func:`~probe.find_behaviour` reads it; None for examples alone.
        problem_set: the problem set whose sentence types a name may mean.
        n: the largest number of examples of each latent.
        seed: seeds the shuffles and the resampling.
        progress: show a progress bar.

    Raises:
        ProbeError: for a latent or a behaviour that does not exist, or that no sentence shows.
        NotApplicable: if the traces have no sentences.
    """
    (dictionary,) = dictionaries_of(model, sae)
    chosen = checked(dictionary, latents)
    wanted = find_behaviour(behaviour, problem_set=problem_set) if isinstance(behaviour, str) else behaviour
    marks = None if wanted is None else wanted.marks(traces, required=True)
    documents = Documents(model, traces)
    spans, lengths = _spans(documents)
    if not len(spans):
        raise NotApplicable("the traces have no sentences: give others")
    of_trace = spans[:, 0]
    starts = np.searchsorted(of_trace, np.arange(len(documents) + 1))
    largest, ahead = torch.zeros(2, len(spans), len(chosen))
    where = torch.zeros(len(spans), len(chosen), dtype=torch.long)
    active, tokens = torch.zeros(len(chosen)), 0
    site = str(dictionary.reads)
    parts = list(batches(lengths, fitting_tokens(model, lengths)))
    for batch in progress_bar(parts, desc="latents in traces", show=progress):
        states, _ = read(model, [documents[i].ids for i in batch], [site])
        for row, i in enumerate(batch):
            chunks = dictionary.chunks(lengths[i], model.budget)
            acts = torch.cat([dictionary.encode(states[site][row, some])[:, chosen].cpu() for some in chunks])
            for at in range(starts[i], starts[i + 1]):
                _, _, first, last = spans[at]
                value, place = acts[first:last].max(0)
                largest[at], where[at] = value, place + first
                ahead[at] = acts[first - 1] if first else 0.0
                active += (acts[first:last] != 0).sum(0)
                tokens += last - first
    shown = None if marks is None else np.array([marks[i][j] for i, j, *_ in spans])
    made = []
    for k, latent in enumerate(chosen):
        order = [at for at in largest[:, k].argsort(descending=True)[:n].tolist() if largest[at, k] > 0]
        examples = []
        for at in order:
            i, j, first, last = spans[at]
            document, place = documents[int(i)], int(where[at, k])
            before, token, after = (
                model.decode(list(document.ids[slice(*ends)]))
                for ends in ((first, place), (place, place + 1), (place + 1, last))
            )
            shows = None if marks is None else bool(marks[i][j])
            examples.append(Example(before, token, after, float(largest[at, k]), document.name, shows))
        told = [
            None if shown is None else _telling(values[:, k].numpy(), shown, of_trace, seed)
            for values in (largest, ahead)
        ]
        made.append(LatentExamples(dictionary.name, latent, float(active[k]) / int(tokens), tuple(examples), *told))
    return made


def _spans(documents: Documents) -> tuple[Int[np.ndarray, "sentence 4"], list[int]]:
    """The trace, number, first and last token of each sentence, and the length of each document."""
    numbers, lengths = array("q"), []
    for i, each in enumerate(documents):
        lengths.append(len(each.ids))
        for j, (first, last) in enumerate(each.spans):
            if first < last:
                numbers.extend((i, j, first, last))
    return np.array(numbers, dtype=np.int64).reshape(-1, 4), lengths


def _telling(
    values: Float[np.ndarray, " sentence"],
    shown: Bool[np.ndarray, " sentence"],
    trace: Int[np.ndarray, " sentence"],
    seed: int,
) -> Telling | None:
    """Measured on the odd traces; None if those have no sentence that shows the behaviour, or no other."""
    odd = trace % 2 == 1
    value, low, high, n = _auroc(values[odd], shown[odd], trace[odd], seed)
    if value is None:
        return None
    rng, ranks, hits = np.random.default_rng(seed), stats.rankdata(values[odd]), shown[odd]
    beyond, far = 0, abs(value - 0.5) - 1e-9
    for _ in range(_SHUFFLES):
        # A random order within each trace.
        shuffled = hits[np.lexsort((rng.random(len(hits)), trace[odd]))]
        beyond += abs(_of_ranks(ranks, shuffled) - 0.5) >= far
    other, *_ = _auroc(values[~odd], shown[~odd], trace[~odd], None)
    return Telling(Interval.of(n, value, low, high), (beyond + 1) / (_SHUFFLES + 1), other)


def _of_ranks(ranks: Float[np.ndarray, " sentence"], hits: Bool[np.ndarray, " sentence"]) -> float:
    positive = int(hits.sum())
    return float((ranks[hits].sum() - positive * (positive + 1) / 2) / (positive * (len(hits) - positive)))


def _auroc(
    values: Float[np.ndarray, " sentence"],
    hits: Bool[np.ndarray, " sentence"],
    trace: Int[np.ndarray, " sentence"],
    seed: int | None,
) -> tuple[float | None, float, float, int]:
    """The area, its interval over traces (none without a seed), and the number of traces."""
    if hits.all() or not hits.any():
        return None, np.nan, np.nan, 0
    value = _of_ranks(stats.rankdata(values), hits)
    if seed is None:
        return value, np.nan, np.nan, 0
    names, own = np.unique(trace, return_inverse=True)
    n = len(names)
    # How often a sentence of trace i that shows the behaviour exceeds one of trace j that does not; ties count half.
    wins = np.zeros((n, n))
    for j in range(n):
        others = np.sort(values[(own == j) & ~hits])
        below = (np.searchsorted(others, values[hits], "left") + np.searchsorted(others, values[hits], "right")) / 2
        wins[:, j] = np.bincount(own[hits], below, minlength=n)
    positive, negative = np.bincount(own[hits], minlength=n), np.bincount(own[~hits], minlength=n)

    def area(items: Int[np.ndarray, "resamples traces"]) -> Float[np.ndarray, " resamples"]:
        weights = np.zeros((len(items), n))
        np.add.at(weights, (np.arange(len(items))[:, None], items), 1)
        return ((weights @ wins) * weights).sum(1) / ((weights @ positive) * (weights @ negative))

    low, high = bootstrap(area, n, width=n, seed=seed)
    return value, float(low), float(high), n
