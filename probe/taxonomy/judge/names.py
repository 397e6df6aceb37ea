"""Titles and descriptions of behaviours by a judge that is shown their sentences.

Labels without a judge are in ``labels.py``.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations import SentenceActivations, chosen_chunks
from probe.errors import ProbeError
from probe.taxonomy.families.base import subsample
from probe.taxonomy.judge.judge import Judge, ask, without_thinking
from probe.taxonomy.labels import mask
from probe.taxonomy.taxonomy import Taxonomy

_CENTRAL, _RANDOM, _OTHERS = 20, 20, 20
_LONGEST = 300  # characters of one sentence

_HEADS = re.compile(r"^[\s*_#]*(title|description)[*_]*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Name:
    """A judge's name for a behaviour."""

    title: str | None = None
    """A few words; None if the judge was not asked or gave no name."""
    description: str | None = None
    """What its sentences do, precise enough to sort new sentences by it."""
    failed: bool = False
    """Whether the judge was asked, but its answer failed or was not a title and a description."""


def name_behaviours(
    judge: Judge,
    texts: Sequence[str],
    behaviours: Sequence[int] | Int[Tensor, " sentence"],
    strengths: Float[Tensor, "sentence behaviour"],
    *,
    seed: int = 0,
    progress: bool = False,
) -> list[Name]:
    """Ask a judge for a title and a description of each behaviour (after Venhoff et al. 2025, arXiv 2510.07364).

    The judge is shown the behaviour's strongest sentences, random ones and, unlike in the paper, sentences of other
    behaviours for contrast. Sentences that differ only in numbers are shown once. Behaviours without sentences are
    skipped.

    Args:
        judge: answers one prompt for each behaviour.
        texts: sentences.
        behaviours: the behaviour that the taxonomy assigns to each sentence.
        strengths: the taxonomy's ``pre_activations`` of each sentence.
        seed: seeds the choice of random sentences.
        progress: show a progress bar.

    Raises:
        ProbeError: if sentences, behaviours and strengths do not fit together, or strengths are not numbers.
    """
    assigned = torch.as_tensor(behaviours, dtype=torch.long).cpu()
    strengths = strengths.detach().float().cpu()
    n_behaviours = strengths.shape[1]
    if not len(texts) == len(assigned) == len(strengths):
        counts = f"{len(texts)} sentences, {len(assigned)} behaviours and {len(strengths)} rows of strengths"
        raise ProbeError(f"{counts} do not fit together; give one of each a sentence")
    if len(assigned) and not 0 <= int(assigned.min()) <= int(assigned.max()) < n_behaviours:
        raise ProbeError(f"behaviours must be 0 to {n_behaviours - 1}, one for each column of strengths")
    if not strengths.isfinite().all():
        bad = int((~strengths.isfinite()).any(1).sum())
        raise ProbeError(f"strengths of {bad} sentences are not finite numbers; leave those sentences out")
    generator = torch.Generator().manual_seed(seed)
    asked = [b for b in range(n_behaviours) if (assigned == b).any()]
    prompts = [_prompt(texts, assigned == b, strengths[:, b], generator) for b in asked]
    answers = ask(judge, prompts, name="names", progress=progress)
    names = [Name()] * n_behaviours
    for behaviour, answer in zip(asked, answers, strict=True):
        names[behaviour] = parse_name(answer) or Name(failed=True)
    return names


def name_taxonomy(
    judge: Judge,
    taxonomy: Taxonomy,
    activations: SentenceActivations,
    *,
    most_sentences: int = 50_000,
    seed: int = 0,
    progress: bool = False,
) -> list[Name]:
    """Ask a judge to name the behaviours of a taxonomy, as :func:`name_behaviours` does.

    Args:
        judge: answers one prompt for each behaviour.
        taxonomy: assigns the sentences.
        activations: harvested sentences; outliers are left out.
        most_sentences: the maximum number of sentences that are read; of more, those that a search with this maximum
            reads.
        seed: seeds the choice of random sentences.
        progress: show a progress bar.

    Raises:
        ProbeError: if an activation is not finite.
    """
    x = activations.rows(taxonomy.site)
    rows = torch.from_numpy(subsample(len(x), most_sentences, seed=0))
    rows = rows[taxonomy.normaliser.keep(x)[rows]]
    strengths = torch.cat([taxonomy.pre_activations(chunk).cpu() for chunk in chosen_chunks(x, rows)])
    texts = [activations.texts[row] for row in rows.tolist()]
    return name_behaviours(judge, texts, strengths.argmax(1), strengths, seed=seed, progress=progress)


def parse_name(answer: str | None) -> Name | None:
    """The title and the description in an answer; None if it has not just one of each, in this order.

    >>> parse_name("Title: Checking\\nDescription: Goes over a result again.")
    Name(title='Checking', description='Goes over a result again.', failed=False)
    """
    parts = _HEADS.split(without_thinking(answer) or "")
    if [head.lower() for head in parts[1::2]] != ["title", "description"]:
        return None
    title, description = (" ".join(part.split()).strip("*_ ") for part in parts[2::2])
    title = title.strip('"“”')
    # A judge that gives back the form has not filled it in.
    if not title or not description or title.startswith("<") or description.startswith("<"):
        return None
    return Name(title, description)


def _prompt(texts: Sequence[str], own: Tensor, strength: Float[Tensor, " sentence"], generator: torch.Generator) -> str:
    members, others = own.nonzero()[:, 0], (~own).nonzero()[:, 0]
    ranked = members[strength[members].argsort(descending=True, stable=True)]
    shuffled = members[torch.randperm(len(members), generator=generator)]
    contrast = others[torch.randperm(len(others), generator=generator)]
    seen: set[str] = set()
    parts = [
        ("Sentences of this kind, most typical first:", _distinct(texts, ranked.tolist(), _CENTRAL, seen)),
        ("More sentences of this kind, at random:", _distinct(texts, shuffled.tolist(), _RANDOM, seen)),
        ("Sentences of other kinds, for contrast:", _distinct(texts, contrast.tolist(), _OTHERS, seen)),
    ]
    lists = "\n\n".join("\n".join([head, *(f"- {line}" for line in lines)]) for head, lines in parts if lines)
    return (
        "The sentences of a model's written reasoning were sorted into kinds by what went on inside the model. "
        f"Find out what one kind has in common.\n\n{lists}\n\n"
        "Which job do the sentences of this kind do in the reasoning that the others do not? Look past their topic "
        "and their numbers. Answer in just this form:\n"
        "Title: <two to five words>\n"
        "Description: <two or three sentences: what such a sentence does, what belongs here and what does not, and "
        "which words are typical, so precise that someone else could sort new sentences by it>"
    )


def _distinct(texts: Sequence[str], order: Iterable[int], n: int, seen: set[str]) -> list[str]:
    """The first ``n`` sentences in this order that differ in more than numbers from those before; marks them seen."""
    lines: list[str] = []
    for i in order:
        if len(lines) == n:
            break
        line = " ".join(texts[i].split())[:_LONGEST]
        if line and mask(line) not in seen:
            seen.add(mask(line))
            lines.append(line)
    return lines
