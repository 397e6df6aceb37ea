"""The work that the stages of ``probe run`` and ``probe discover`` have in common."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.activations import SentenceActivations, harvest
from probe.errors import ProbeError
from probe.models import GREEDY, Model, Sampling
from probe.problems import Problem, ProblemSet
from probe.servers import Servers, ServersConfig
from probe.taxonomy import Taxonomy
from probe.traces import Traces, generate_traces, is_served, open_servers, served_shards, served_traces

Splits = tuple[SentenceActivations, SentenceActivations]
"""Activations of the train traces and of the validation traces."""


def roll_out_splits(
    splits: Mapping[str, "Split"],
    problem_set: ProblemSet,
    *,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
    folder: Path,
    finished: bool,
    progress: bool,
    config: ServersConfig | None = None,
) -> dict[str, Traces]:
    """Roll out a model on the problems of each split; traces that are already in the folder are read.

    Args:
        splits: the model and the problems by name. The traces are kept in the subfolder of that name.
        finished: whether all traces are there; then they are read, no matter who wrote them.
        config: how servers are asked.
    """
    how = {"max_new_tokens": max_new_tokens, "seed": seed}
    written = {name: is_served(folder / name) if finished else bool(split.urls) for name, split in splits.items()}
    opened: dict[tuple[str, ...], Servers] = {}
    for name, split in splits.items():
        # Servers of splits that are complete need not answer, and those of all others answer before any trace is made.
        if written[name] and split.urls not in opened and not split.complete(folder / name, how):
            asked = [problem for each in splits.values() if each.urls == split.urls for problem in each.problems]
            opened[split.urls] = open_servers(
                split.urls,
                split.model,
                asked,
                max_new_tokens=max_new_tokens,
                sampling=split.sampling,
                config=config,
                setting=split.setting,
            )

    def rolled(name: str, split: Split) -> Traces:
        sampled = {"sampling": split.sampling, "samples": split.samples}
        kept = {**how, **sampled, "folder": folder / name, "progress": progress}
        if written[name]:
            return served_traces(split.model, problem_set, split.problems, opened.get(split.urls), **kept)
        return generate_traces(split.model, problem_set, split.problems, batch_size=batch_size, **kept)

    return {name: rolled(name, split) for name, split in splits.items()}


@dataclass(frozen=True)
class Split:
    """The problems of a split, and how a model answers them."""

    model: Model
    problems: Sequence[Problem]
    sampling: Sampling = GREEDY
    samples: int = 1
    urls: tuple[str, ...] = ()
    """Servers that write the answers; none decodes them here."""
    setting: str = "urls"
    """The name of the setting that holds the addresses of the servers."""

    def complete(self, folder: Path, how: Mapping[str, int]) -> bool:
        """Whether servers have written all answers."""
        sampled = {"sampling": self.sampling, "samples": self.samples}
        shards = served_shards(self.model, None, self.problems, **how, **sampled, folder=folder)
        return is_served(folder) and not shards.missing()


def problems_of(traces: Traces, problems: Sequence[Problem]) -> list[Problem]:
    """The problem of each trace; imported traces may be several of one problem.

    Args:
        traces: the traces.
        problems: the problems that they answer, each once.
    """
    by_id = {problem.id: problem for problem in problems}
    return [by_id[name] for name in traces.column("problem_id")]


def harvest_splits(
    model: Model,
    train: Traces,
    validation: Traces,
    sites: Sequence[str],
    *,
    folder: Path,
    finished: bool,
    progress: bool,
) -> Splits:
    """Harvest the mean activation of every sentence at all sites, or load what a finished stage has kept."""
    first, second = (
        _harvested(folder / name, traces, sites)
        if finished
        else harvest(model, traces, sites, folder=folder / name, progress=progress)
        for name, traces in (("train", train), ("validation", validation))
    )
    return first, second


def _harvested(folder: Path, traces: Traces, sites: Sequence[str]) -> SentenceActivations:
    """Load a finished harvest, and refuse one of other sites or other sentences."""
    found = SentenceActivations.load(folder)
    sizes = [len(trace.sentences) for trace in traces]
    if not set(sites) <= set(found.sites) or any(
        not (0 <= trace < len(sizes) and 0 <= sentence < sizes[trace]) for trace, sentence in found.index
    ):
        raise ProbeError(
            f"{folder} holds the activations of other sites or traces; remove that folder and run the same command "
            "again"
        )
    return found


def taxonomy_of(folder: Path, acts: SentenceActivations) -> Taxonomy:
    """Load the taxonomy of a finished stage.

    Args:
        acts: the activations that it was learned from.

    Raises:
        ProbeError: if it is damaged, or is of another site or width.
    """
    taxonomy = Taxonomy.load(folder)
    width = acts.rows(taxonomy.site).shape[1] if taxonomy.site in acts.sites else None
    if width != taxonomy.directions.shape[1]:
        raise ProbeError(
            f"{folder} holds a taxonomy of {taxonomy.site}, width {taxonomy.directions.shape[1]}, which is not that of "
            "these activations; remove that folder and run the same command again"
        )
    return taxonomy


def describe_behaviours(
    taxonomy: Taxonomy,
    texts: Sequence[str],
    assigned: Sequence[int | None],
    sentence_type: Callable[[str], str | None] | None,
) -> list[dict[str, Any]]:
    """Describe each behaviour by the sentences that are assigned to it.

    Args:
        assigned: the behaviour of each sentence; None where it has none.
        sentence_type: gives the true label of a sentence; None if the problem set has no labels.

    Returns:
        For each behaviour its number, its share of the assigned sentences, its most common true label with the share
        of its sentences that have it, and its examples.
    """
    known = sum(each is not None for each in assigned)
    rows = []
    for k in range(taxonomy.n_behaviours):
        members = [text for text, each in zip(texts, assigned, strict=True) if each == k]
        types = Counter(sentence_type(text) or "none" for text in members) if sentence_type else Counter[str]()
        true_type, count = types.most_common(1)[0] if types else (None, 0)
        rows.append(
            {
                "behaviour": k,
                "share": len(members) / known if known else None,
                "true_type": true_type,
                "true_share": count / len(members) if types else None,
                "examples": taxonomy.examples[k],
            }
        )
    return rows
