"""Scores of latents: how much of a metric each latent of an SAE or a transcoder carries, beside the error term.

The state at a site is what the latents write, plus a remainder that the dictionary does not explain: the error. The
score of a latent is the change of its activation from the corrupt to the clean text, times the metric's slope along its
direction; the error is scored in the same way, so that nothing is hidden (Marks et al., 2403.19647). All scores
of a site add up to the fall of the metric when the whole site takes its state from the corrupt run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.adapters import Dictionary
from probe.circuits.edges.lens import ALL, Window
from probe.circuits.features.slopes import Slopes, slopes
from probe.circuits.pairs.pairs import Pairs
from probe.errors import NotApplicable, ProbeError
from probe.html import html_table
from probe.models import Model
from probe.progress import progress_bar
from probe.statistics import Interval, column_intervals, holm, mean_interval, sign_flips, write_p

if TYPE_CHECKING:
    from sae_lens import SAE

_SHOWN = 20


@dataclass(frozen=True)
class Feature:
    """A latent that was chosen on one half of the pairs and measured on the other.

    Attributes:
        dictionary: the name of its SAE or transcoder.
        site: the site that it writes.
        latent: its number.
        score: its mean score on the other half, in units of the metric.
        p: p value of that score by random sign flips, adjusted for the number of chosen latents (Holm).
        chosen: its mean score on the half on which it was chosen.
    """

    dictionary: str
    site: str
    latent: int
    score: Interval
    p: float
    chosen: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**vars(self), "score": self.score.to_dict()}


@dataclass(frozen=True)
class SiteScores:
    """The scores of one dictionary on each pair.

    Attributes:
        dictionary: the SAE or transcoder.
        latents: score of each latent.
        error: score of the part of the state that the dictionary does not explain.
        skip: score of a transcoder's skip connection; zeros where there is none.
        total: how far the metric falls when the whole site takes its state from the corrupt run, at the tokens that
            count.
    """

    dictionary: Dictionary
    latents: Float[Tensor, "pairs latents"]
    error: Float[Tensor, " pairs"]
    skip: Float[Tensor, " pairs"]
    total: Float[Tensor, " pairs"]

    def __repr__(self) -> str:
        return f"SiteScores({self.dictionary.name!r}, {len(self.error)} pairs, error {self.error_share})"

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """The shares of the site's total effect that all latents, the error and the skip connection carry together.

        They add up to 1 except for the error of the integration, and can be negative or exceed 1.
        """
        parts = {"latents": self.latents.sum(1), "error": self.error, "skip": self.skip}
        return {name: mean_interval(part.numpy(), self.total.numpy()) for name, part in parts.items()}

    @property
    def error_share(self) -> Interval:
        """The share of the site's total effect that the error carries."""
        return self.shares["error"]

    def to_dict(self) -> dict[str, Any]:
        """Site, total effect and shares, for JSON."""
        where = {"dictionary": self.dictionary.name, "reads": str(self.dictionary.reads)}
        return {
            **where,
            "writes": str(self.dictionary.writes),
            "size": self.dictionary.size,
            "total": mean_interval(self.total.numpy()).to_dict(),
            "shares": {name: share.to_dict() for name, share in self.shares.items()},
        }


@dataclass(frozen=True)
class FeatureScores:
    """The scores of the latents of several dictionaries.

    Attributes:
        sites: the scores of each dictionary.
        second: the pairs on which chosen latents are measured; they are chosen on the others.
        about: metric, number of pairs and steps, window, and the model's name.
    """

    sites: tuple[SiteScores, ...]
    second: Bool[Tensor, " pairs"]
    about: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = sum(each.dictionary.size for each in self.sites)
        return f"FeatureScores({sizes} latents at {len(self.sites)} sites, {self.about.get('pairs')} pairs)"

    def top(self, n: int = 10) -> list[Feature]:
        """The latents with the largest scores, in either direction, of all sites.

        They are chosen on one half of the pairs and measured on the other, so that the choice does not flatter them.
        Where the pairs know their problems, the halves share none.

        Args:
            n: number of latents; those without any score are left out.
        """
        means = torch.cat([each.latents[~self.second].mean(0) for each in self.sites])
        order = means.abs().argsort(descending=True)[:n]
        order = order[means[order] != 0].tolist()
        ends = np.cumsum([each.dictionary.size for each in self.sites])
        places = [int(np.searchsorted(ends, at, side="right")) for at in order]
        numbers = [at - int(ends[i]) + self.sites[i].dictionary.size for at, i in zip(order, places, strict=True)]
        if not order:
            return []
        columns = [self.sites[i].latents[self.second, k] for i, k in zip(places, numbers, strict=True)]
        rows = torch.stack(columns, 1).double().numpy()
        adjusted = holm({str(i): p for i, p in enumerate(sign_flips(rows, two_sided=True).tolist())})
        return [
            Feature(
                self.sites[place].dictionary.name,
                str(self.sites[place].dictionary.writes),
                number,
                interval,
                adjusted[str(i)],
                float(means[at]),
            )
            for i, (at, place, number, interval) in enumerate(
                zip(order, places, numbers, column_intervals(rows), strict=True)
            )
        ]

    def to_dict(self, n: int = _SHOWN) -> dict[str, Any]:
        """What ``results.json`` keeps: the sites with their shares, and the top latents."""
        return {
            "about": self.about,
            "sites": [each.to_dict() for each in self.sites],
            "top": [each.to_dict() for each in self.top(n)],
        }

    def _repr_html_(self) -> str:
        percent = "{:.0%}".format
        sites = [
            (
                each.dictionary.name,
                each.dictionary.size,
                mean_interval(each.total.numpy()),
                *(each.shares[name].write(percent) for name in ("latents", "error", "skip")),
            )
            for each in self.sites
        ]
        top = [(each.dictionary, each.latent, each.score, write_p(each.p)) for each in self.top(_SHOWN)]
        return html_table(
            ("SAE or transcoder", "latents", "effect of the site", "by latents", "by the error", "by the skip"),
            sites,
            "What the metric owes to each site",
        ) + html_table(
            ("SAE or transcoder", "latent", "score", "p (Holm)"),
            top,
            "Latents, chosen on half of the pairs and measured on the others",
        )


def feature_scores(
    model: Model,
    saes: "SAE[Any] | str | Path | Dictionary | Sequence[SAE[Any] | str | Path | Dictionary]",
    pairs: Pairs,
    *,
    metric: str = "logit-difference",
    steps: int = 8,
    window: Window = ALL,
    progress: bool = False,
) -> FeatureScores:
    """Score every latent of SAEs and transcoders on pairs of texts (Marks et al., 2403.19647).

    Nothing is inserted into the model: gradients are those of the model itself along the way from the corrupt to the
    clean state of each site, and each site is treated on its own. Only one number for each pair and latent is kept.

    Args:
        saes: one or several SAEs or transcoders: objects of SAELens, folders, or ``RELEASE/SAE_ID``.
        metric: one of :data:`~probe.circuits.METRICS`, as in :func:`~probe.circuits.attribute`.
        steps: number of points at which the gradients of each site are taken.
        window: tokens at which latents count, as the ends of a slice: ``(-64, None)`` is the last 64. The site keeps
            its clean state at the other tokens, so that the scores add up to the effect of the window.
        progress: show a progress bar.

    Returns:
        The scores. A latent with a positive score carries the metric: without it the metric falls.

    Raises:
        ProbeError: for an unknown metric, or an SAE or a transcoder that is not of this model.
        NotApplicable: if either half of the pairs is empty.
    """
    found = dictionaries_of(model, saes)
    second = second_half(pairs)
    made = []
    for each in progress_bar(found, desc="latents", unit="site", show=progress):
        parts = [
            _scores(model, each, part) for part in slopes(model, pairs, each, metric=metric, steps=steps, window=window)
        ]
        made.append(SiteScores(each, *(torch.cat(column) for column in zip(*parts, strict=True))))
    about = {"metric": metric, "pairs": len(pairs), "steps": steps, "window": list(window), "model": model.name}
    return FeatureScores(tuple(made), second, about)


def feature_places(
    model: Model,
    sae: "SAE[Any] | str | Path | Dictionary",
    pairs: Pairs,
    latents: Sequence[int],
    *,
    last: int = 32,
    metric: str = "logit-difference",
    steps: int = 8,
) -> Float[Tensor, "latents last"]:
    """Score some latents at each of the last tokens, averaged over pairs; the scores of all tokens add up.

    Args:
        latents: the numbers of the latents.
        last: number of tokens, counted from the end of the texts.
        metric, steps: as in :func:`feature_scores`.

    Returns:
        The scores; the last column is the last token. Columns before the beginning of a text count as zero.

    Raises:
        ProbeError: for a latent that does not exist, or as :func:`feature_scores`.
    """
    (dictionary,) = dictionaries_of(model, sae)
    chosen = checked(dictionary, latents)
    found = torch.zeros(len(chosen), last)
    for part in slopes(model, pairs, dictionary, metric=metric, steps=steps):
        for _, places, apart, slope in _changes(model, dictionary, part):
            at = last - part.differ.shape[1] + places.cpu()
            scores = (apart[:, chosen] * (slope @ dictionary.directions[chosen].T)).cpu()
            found.index_add_(1, at[at >= 0], scores[at >= 0].T)
    return found / len(pairs)


def second_half(pairs: Pairs) -> Bool[Tensor, " pairs"]:
    """The pairs of the second half, in the order of the pairs; every second one, where their problems are unknown.

    Raises:
        NotApplicable: if either half is empty.
    """
    found = (
        torch.cat([each.cpu().bool() for each in pairs.second]) if pairs.second else torch.arange(len(pairs)) % 2 == 1
    )
    if found.all() or not found.any():
        raise NotApplicable("latents are chosen on some pairs and measured on others: give pairs of more problems")
    return found


def dictionaries_of(model: Model, saes: Any) -> list[Dictionary]:
    """Find the places of one or several SAEs and transcoders in a model.

    Raises:
        ProbeError: if none is given, or one cannot be read or used.
    """
    several = list(saes) if isinstance(saes, list | tuple) else [saes]
    if not several:
        raise ProbeError("no SAE was given: give a folder, RELEASE/SAE_ID, or an object of SAELens")
    found: list[Dictionary] = []
    for each in several:
        made = each if isinstance(each, Dictionary) else Dictionary.of(each, model)
        same = sum(made.name == before.name.partition(" #")[0] for before in found)
        found.append(replace(made, name=f"{made.name} #{same + 1}") if same else made)
    return found


def checked(dictionary: Dictionary, latents: Sequence[int]) -> list[int]:
    """The numbers as a list.

    Raises:
        ProbeError: if there are none, or one is not a latent of the dictionary.
    """
    numbers = [int(each) for each in latents]
    if not numbers:
        raise ProbeError("no latent was named: give at least one number")
    if wrong := [each for each in numbers if not 0 <= each < dictionary.size]:
        raise ProbeError(f"{dictionary.name} has no latent {wrong[0]}; its numbers are 0 to {dictionary.size - 1}")
    return numbers


def _changes(
    model: Model, dictionary: Dictionary, part: Slopes
) -> Iterator[tuple[int, Tensor, Float[Tensor, "token latents"], Float[Tensor, "token d_out"]]]:
    """Go through the tokens of each row that differ, a few at a time.

    Yields:
        The row, the tokens' places, what each latent gains from the corrupt to the clean text, and the slope there.
    """
    for row, differ in enumerate(part.differ):
        places = differ.nonzero()[:, 0]
        for some in dictionary.chunks(len(places), model.budget):
            at = places[some]
            apart = dictionary.encode(part.clean[dictionary.reads][row, at])
            apart -= dictionary.encode(part.corrupt[dictionary.reads][row, at])
            yield row, at, apart, part.slope[row, at]


@torch.no_grad()
def _scores(model: Model, dictionary: Dictionary, part: Slopes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of the latents, the error and the skip connection on each pair, and the total, on the CPU."""
    rows, directions = len(part.total), dictionary.directions
    latents = torch.zeros(rows, dictionary.size, device=directions.device)
    error, skip = torch.zeros(2, rows, device=directions.device)
    reads, writes = dictionary.reads, dictionary.writes
    for row, at, apart, slope in _changes(model, dictionary, part):
        by_latent = apart.mul(slope @ directions.T).sum(0)
        latents[row] += by_latent
        whole = ((part.clean[writes][row, at].float() - part.corrupt[writes][row, at].float()) * slope).sum()
        skipped = dictionary.skip(part.clean[reads][row, at].float() - part.corrupt[reads][row, at].float())
        by_skip = 0.0 if skipped is None else (skipped * slope).sum()
        skip[row] += by_skip
        error[row] += whole - by_latent.sum() - by_skip
    return latents.cpu(), error.cpu(), skip.cpu(), part.total.cpu()
