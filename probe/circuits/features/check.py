"""Latents one by one, exactly: each is set to its value in the corrupt text, and everything else is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from probe.adapters import Dictionary
from probe.circuits.edges.lens import ALL, Window
from probe.circuits.features.scores import FeatureScores, checked, dictionaries_of
from probe.circuits.features.slopes import states_at
from probe.circuits.pairs.pairs import Pairs, end_logits, metric_of, rows_that_fit
from probe.errors import NotApplicable, ProbeError
from probe.hooks import Apply, edit
from probe.html import html_table
from probe.models import Model
from probe.progress import progress_bar
from probe.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from sae_lens import SAE

_ROWS = 64
"""The most rows in one pass."""


@dataclass(frozen=True)
class FeatureCheck:
    """Scores of latents beside their exact effects.

    Attributes:
        names: dictionary and number of each latent: first those with the largest scores, then random others.
        top: how many of them have the largest scores.
        scores: mean score of each.
        effects: mean fall of the metric when the latent takes its value from the corrupt text.
        spearman: rank correlation of scores and effects over all of them.
        same_sign: share of the top latents whose effect has the sign of their score.
        size: mean absolute effect of the top latents, and of the random others.
    """

    names: tuple[tuple[str, int], ...]
    top: int
    scores: Float[Tensor, " latents"]
    effects: Float[Tensor, " latents"]
    spearman: float
    same_sign: float
    size: tuple[Interval, Interval]

    def __repr__(self) -> str:
        return f"FeatureCheck({len(self.names)} latents, Spearman {self.spearman:.2f}, same sign {self.same_sign:.0%})"

    def _repr_html_(self) -> str:
        rows = [
            (name, latent, "top" if i < self.top else "random", f"{score:.4f}", f"{effect:.4f}")
            for i, ((name, latent), score, effect) in enumerate(
                zip(self.names, self.scores.tolist(), self.effects.tolist(), strict=True)
            )
        ]
        said = f"Scores and exact effects: Spearman {self.spearman:.2f}, same sign {self.same_sign:.0%}"
        return html_table(("SAE or transcoder", "latent", "chosen as", "score", "exact effect"), rows, said)


@torch.no_grad()
def feature_effects(
    model: Model,
    sae: "SAE[Any] | str | Path | Dictionary",
    pairs: Pairs,
    latents: Sequence[int],
    *,
    metric: str = "logit-difference",
    window: Window = ALL,
) -> Float[Tensor, "pairs latents"]:
    """Set each latent in turn to its value in the corrupt text, and measure how far the metric falls.

    The other latents and the error keep their values of the clean text. Each latent takes a pass of its own.

    Args:
        latents: the numbers of the latents.
        metric, window: as in :func:`feature_scores`.

    Raises:
        ProbeError: for a latent that does not exist, or as :func:`feature_scores`.
    """
    (dictionary,) = dictionaries_of(model, sae)
    chosen = checked(dictionary, latents)
    directions, site = dictionary.directions[chosen], dictionary.writes
    rows, found = rows_that_fit(model, 4), []
    for clean, corrupt, right, wrong in pairs.on(model.device).parts(lambda width: min(_ROWS, rows(width))):
        measure = metric_of(metric, partial(end_logits, model), clean, right, wrong)
        whole = measure(end_logits(model, clean))
        width = clean.shape[1]
        apart = torch.zeros(*clean.shape, len(chosen), device=model.device)
        clean_states, corrupt_states = (states_at(model, ids, (dictionary.reads,)) for ids in (clean, corrupt))
        after, before = (each[dictionary.reads] for each in (clean_states, corrupt_states))
        for row in range(len(clean)):
            for some in dictionary.chunks(width, model.budget):
                apart[row, some] = (dictionary.encode(after[row, some]) - dictionary.encode(before[row, some]))[
                    :, chosen
                ]
        inside = torch.zeros(width, 1, device=model.device)
        inside[slice(*window)] = 1
        several = max(1, min(_ROWS, rows(width)) // len(clean))
        effects = []
        for first in range(0, len(chosen), several):
            these = slice(first, first + several)

            def without(state: Tensor, these: slice = these, apart: Tensor = apart * inside) -> Tensor:
                gone = apart[..., these].movedim(-1, 0)[..., None] * directions[these, None, None]
                return state - gone.flatten(0, 1).to(state.dtype)

            count = len(range(len(chosen))[these])
            with edit(model, {site: Apply(without)}):
                logits = end_logits(model, clean.repeat(count, 1))
            effects += [whole - measure(part) for part in logits.split(len(clean))]
        found.append(torch.stack(effects, 1).float().cpu())
    return torch.cat(found)


def feature_check(
    model: Model, scores: FeatureScores, pairs: Pairs, *, n: int = 16, seed: int = 0, progress: bool = False
) -> FeatureCheck:
    """Compare the scores of the top latents, and of as many random ones, with their exact effects.

    Args:
        scores: the result of :func:`feature_scores` on the same pairs.
        n: number of top latents, and of random ones that are active somewhere.
        seed: seeds the choice of the random ones.
        progress: show a progress bar.

    Raises:
        NotApplicable: if no latent has a score.
        ProbeError: if the scores are of other pairs.
    """
    if len(pairs) != scores.about["pairs"]:
        raise ProbeError(f"the scores are of {scores.about['pairs']} pairs, and {len(pairs)} were given: give the same")
    means = torch.cat([each.latents.mean(0) for each in scores.sites])
    order = means.abs().argsort(descending=True)
    order = order[means[order] != 0]
    if not len(order):
        raise NotApplicable(
            "no latent changes between the clean and the corrupt texts: give other pairs or another SAE"
        )
    top, rest = order[:n], order[n:]
    rest = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:n]]
    chosen = torch.cat([top, rest])
    effects, names, end = torch.zeros(len(pairs), len(chosen)), [("", 0)] * len(chosen), 0
    first, last = scores.about["window"]
    for each in progress_bar(scores.sites, desc="exact effects", unit="site", show=progress):
        begin, end = end, end + each.dictionary.size
        mine = ((begin <= chosen) & (chosen < end)).nonzero()[:, 0]
        if len(mine):
            numbers = (chosen[mine] - begin).tolist()
            effects[:, mine] = feature_effects(
                model, each.dictionary, pairs, numbers, metric=scores.about["metric"], window=(first, last)
            )
            for at, number in zip(mine.tolist(), numbers, strict=True):
                names[at] = (each.dictionary.name, number)
    mean = effects.mean(0)
    parts = (mean[: len(top)], mean[len(top) :])
    return FeatureCheck(
        tuple(names),
        len(top),
        means[chosen],
        mean,
        _rank_correlation(means[chosen], mean),
        float((parts[0].sign() == means[top].sign()).float().mean()),
        (mean_interval(parts[0].abs().numpy()), mean_interval(parts[1].abs().numpy())),
    )


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """NaN where there are fewer than three values."""
    found: Any = stats.spearmanr(a, b) if len(a) > 2 else None
    return float("nan") if found is None else float(found.statistic)
