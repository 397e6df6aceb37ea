"""The latents of a given SAE or transcoder in the base and in the thinking model, on the same texts.

A latent of an SAE means the same in both models only as far as the SAE reconstructs both, so that is measured first.
Then each latent is compared by how often it is active and by how much, with a null that exchanges the models text by
text; and scaled to both models, which tells a latent of one model from one that is only weaker in the other (Minder et
al., 2504.02922).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probe.activations import Document, Documents, batches, fitting_tokens, read
from probe.adapters import Dictionary, outliers
from probe.diff.shared import SELDOM, Scaling, SharedLatents
from probe.errors import NotApplicable
from probe.html import html_table
from probe.models import Pair
from probe.progress import progress_bar
from probe.statistics import Interval, bootstrap, mean_interval
from probe.traces import Traces

if TYPE_CHECKING:
    from sae_lens import SAE

_GROUPS = 64
"""The most groups of texts; the models are exchanged group by group."""
_FLIPS = 500
_LEVEL = 0.05
_LEAST, _FACTOR = 0.01, 2
_SHOWN = 20
_MODELS = ("base", "thinking")


@dataclass(frozen=True)
class LatentDifference:
    """The latents of one dictionary in both models. Rows of two are the base and the thinking model.

    Attributes:
        dictionary: the SAE or transcoder.
        shared: each latent scaled to both models.
        mean: mean activation of each latent over all tokens.
        q_frequency: for each latent, the false discovery rate among all latents whose frequency differs as clearly.
        q_mean: the same for the mean activation.
        explained: share of the variance of the base's and of the thinking model's states that the dictionary explains.
        gap: the share in the thinking model minus that in the base. Far from 0, the dictionary fits one of them only.
        tokens: number of tokens.
        texts: number of texts.
    """

    dictionary: Dictionary
    shared: SharedLatents
    mean: Float[Tensor, "2 latents"]
    q_frequency: Float[Tensor, " latents"]
    q_mean: Float[Tensor, " latents"]
    explained: tuple[Interval, Interval]
    gap: Interval
    tokens: int
    texts: int

    def __repr__(self) -> str:
        return (
            f"LatentDifference({self._counts}, {len(self.thinking_only)} only in thinking, "
            f"{len(self.base_only)} only in base)"
        )

    @property
    def _counts(self) -> str:
        size = self.dictionary.size
        return f"{self.dictionary.name}: {len(self.changed)} of {size} latents differ, {len(self.doubled)} twofold"

    @cached_property
    def frequency(self) -> Float[Tensor, "2 latents"]:
        """Share of the tokens at which each latent is active."""
        return self.shared.active / self.tokens

    @cached_property
    def changed(self) -> list[int]:
        """Latents whose frequency or mean activation differs at a false discovery rate of 5 %, the clearest first.

        A latent counts only if it is active at 20 tokens or more in one of the models, and its mean activations differ
        by 1 % or more: less may be rounding.
        """
        often = self.shared.active.amax(0) >= SELDOM
        clear = (self.q_frequency.minimum(self.q_mean) <= _LEVEL / 2) & often & (self._apart >= _LEAST)
        differ = clear.nonzero()[:, 0]
        return differ[self._apart[differ].argsort(descending=True)].tolist()

    @property
    def doubled(self) -> list[int]:
        """Latents that differ and whose mean activation in one model is at least twice that in the other.

        With many texts nearly every latent differs by a little, so this is the number to look at.
        """
        return [each for each in self.changed if self._apart[each] >= 1 - 1 / _FACTOR]

    @cached_property
    def _apart(self) -> Float[Tensor, " latents"]:
        """The difference of the mean activations, as a share of the larger one."""
        return (self.mean[1] - self.mean[0]).abs() / self.mean.abs().amax(0).clamp(min=1e-12)

    @property
    def thinking_only(self) -> list[int]:
        """Latents that differ and that the base hardly uses where the thinking model does."""
        there = {*self.shared.thinking_only}
        return [each for each in self.changed if each in there]

    @property
    def base_only(self) -> list[int]:
        """Latents that differ and that the thinking model hardly uses where the base does."""
        there = {*self.shared.base_only}
        return [each for each in self.changed if each in there]

    def rows(self, n: int = _SHOWN) -> list[dict[str, Any]]:
        """The latents that differ most, for tables and JSON."""
        only = dict.fromkeys(self.thinking_only, "thinking") | dict.fromkeys(self.base_only, "base")
        q = self.q_frequency.minimum(self.q_mean)
        return [
            {
                "latent": each,
                "frequency": self.frequency[:, each].tolist(),
                "mean": self.mean[:, each].tolist(),
                "q": float(q[each]),
                "ratio": float(self.shared.ratio[each]),
                "back": float(self.shared.back[each]),
                "only in": only.get(each),
            }
            for each in self.changed[:n]
        ]

    def to_dict(self, n: int = 200) -> dict[str, Any]:
        """What a results file keeps, with the ``n`` latents that differ most."""
        return {
            "dictionary": self.dictionary.name,
            "reads": str(self.dictionary.reads),
            "writes": str(self.dictionary.writes),
            "size": self.dictionary.size,
            "tokens": self.tokens,
            "texts": self.texts,
            "variance_explained": {name: each.to_dict() for name, each in zip(_MODELS, self.explained, strict=True)},
            "gap": self.gap.to_dict(),
            "changed": len(self.changed),
            "doubled": self.doubled,
            "thinking_only": self.thinking_only,
            "base_only": self.base_only,
            "latents": self.rows(n),
        }

    def _repr_html_(self) -> str:
        said = [self._counts]
        for name, each in zip(_MODELS, self.explained, strict=True):
            said.append(f"variance explained in {name} {each.write('{:.0%}'.format)}")
        rows = [
            (
                row["latent"],
                *(f"{each:.2%}" for each in row["frequency"]),
                *(f"{each:.3g}" for each in row["mean"]),
                f"{row['q']:.2g}",
                f"{row['ratio']:.2f}",
                row["only in"],
            )
            for row in self.rows()
        ]
        head = (
            "latent",
            "active in base",
            "in thinking",
            "mean in base",
            "in thinking",
            "q",
            "β base / β thinking",
            "only in",
        )
        return html_table(head, rows, "; ".join(said))


@torch.no_grad()
def latent_difference(
    pair: Pair,
    sae: "SAE[Any] | str | Path",
    texts: Traces | Sequence[Document | str | Sequence[int]],
    *,
    seed: int = 0,
    progress: bool = False,
) -> LatentDifference:
    """Compare how both models use the latents of one SAE or transcoder, on the same tokens.

    Special tokens, the first token of each text and outliers of either model are left out, because SAEs are not trained
    on them. Nothing that grows with the number of tokens is kept.

    Args:
        sae: an object of SAELens, a folder, or ``RELEASE/SAE_ID``; usually trained on one of the two models.
        texts: traces, texts or token ids that both models read.
        seed: seeds the exchanges and the resampling.
        progress: show a progress bar.

    Returns:
        The comparison. For a model with itself no latent differs.

    Raises:
        NotApplicable: if the models differ in width, or there are fewer than two texts or no tokens.
        ProbeError: if the SAE cannot be read, or one of the models has no such site.
    """
    if pair.base.d_model != pair.thinking.d_model:
        raise NotApplicable(f"{pair.base.name} and {pair.thinking.name} differ in width, so no SAE fits both")
    dictionary = Dictionary.of(sae, pair.thinking, pair.base)
    documents = Documents(pair.thinking, texts)
    if len(documents) < 2:
        raise NotApplicable("the models are exchanged text by text: give two texts or more")
    pair.base.check_ids(each.ids for each in documents)
    sums = _Sums(dictionary, min(_GROUPS, len(documents)))
    for text, states, kept in progress_bar(
        _tokens(pair, dictionary, documents), total=len(documents), desc="latents in both models", unit="text",
        show=progress,
    ):  # fmt: skip
        for some in dictionary.chunks(int(kept.sum()), pair.thinking.budget):
            sums.add(text % sums.groups, [{site: each[kept][some] for site, each in side.items()} for side in states])
    return sums.difference(len(documents), seed)


def _tokens(
    pair: Pair, dictionary: Dictionary, documents: Sequence[Document]
) -> Iterator[tuple[int, list[dict[str, Tensor]], Bool[Tensor, " pos"]]]:
    """Go through the texts: the number of each, both models' states at each site, and the tokens that count."""
    sites = [str(site) for site in dictionary.sites]
    device = dictionary.sae.device
    special = torch.tensor(sorted({*pair.thinking.tokenizer.all_special_ids}))
    lengths = [len(each.ids) for each in documents]
    tokens = min(fitting_tokens(model, lengths, len(sites)) for model in (pair.base, pair.thinking)) // 2
    for batch in batches(lengths, tokens):  # the states of both models are held
        ids = [documents[i].ids for i in batch]
        both = [read(model, ids, sites) for model in (pair.base, pair.thinking)]
        odd = [_outliers(states[sites[0]], real) for states, real in both]
        for row, i in enumerate(batch):
            n = lengths[i]
            kept = ~torch.isin(torch.tensor(ids[row]), special)
            kept[0] = False
            for each in odd:
                kept &= ~each[row, :n].cpu()
            sides = [{site: states[site][row, :n].float().to(device) for site in sites} for states, _ in both]
            yield i, sides, kept.to(device)


def _outliers(state: Tensor, real: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    rows = torch.arange(len(real), device=real.device)[:, None].expand_as(real)
    return outliers(state, torch.where(real, rows, -1))


class _Sums:
    """Sums over tokens, for each group of texts, of both models."""

    def __init__(self, dictionary: Dictionary, groups: int) -> None:
        self.groups, self._dictionary = groups, dictionary
        where = {"device": dictionary.sae.device, "dtype": torch.float64}
        size, width = dictionary.size, dictionary.directions.shape[1]
        self._scaling = Scaling(dictionary.directions)
        self._apart = torch.zeros(2, groups, size, **where)  # of the counts and of the activations, thinking − base
        self._total = torch.zeros(2, size, **where)
        self._error, self._square = torch.zeros(2, groups, **where), torch.zeros(2, groups, **where)
        self._sum = torch.zeros(2, groups, width, **where)
        self._tokens = torch.zeros(groups, **where)

    def add(self, group: int, states: Sequence[dict[str, Tensor]]) -> None:
        reads, writes = str(self._dictionary.reads), str(self._dictionary.writes)
        codes = [self._dictionary.encode(side[reads]) for side in states]
        left = [side[writes] - self._dictionary.reconstruct(side[reads]) for side in states]
        self._scaling.add(codes, left)
        counts = [(code != 0).sum(0) for code in codes]
        sums = [code.sum(0) for code in codes]
        for row, (base, thinking) in enumerate((counts, sums)):
            self._apart[row, group] += thinking - base
        for i, side in enumerate(states):
            exact = side[writes].double()
            self._total[i] += sums[i]
            self._error[i, group] += left[i].double().square().sum()
            self._square[i, group] += exact.square().sum()
            self._sum[i, group] += exact.sum(0)
        self._tokens[group] += len(codes[0])

    def difference(self, texts: int, seed: int) -> LatentDifference:
        tokens = int(self._tokens.sum())
        if not tokens:
            raise NotApplicable("no token is left beside special tokens and outliers: give longer texts")
        mean = self._sum.sum(1) / tokens
        varies = (
            self._square - 2 * (self._sum * mean[:, None]).sum(-1) + self._tokens * mean.square().sum(-1, keepdim=True)
        )
        error, whole = self._error.cpu().numpy(), varies.cpu().numpy()
        explained = [_one_minus(mean_interval(e, w, seed=seed)) for e, w in zip(error, whole, strict=True)]
        q = [_q_values(each.float().cpu(), seed) for each in self._apart]
        overall = 1 - float(error.sum() / whole.sum()) if whole.sum() > 0 else float("nan")
        return LatentDifference(
            self._dictionary,
            self._scaling.latents(self._dictionary.sae, overall),
            (self._total / tokens).float().cpu(),
            q[0],
            q[1],
            (explained[0], explained[1]),
            _gap(error, whole, seed),
            tokens,
            texts,
        )


def _one_minus(share: Interval) -> Interval:
    if share.value is None:
        return share
    ends = (None, None) if share.ci is None else (1 - share.ci[1], 1 - share.ci[0])
    return Interval(share.n, 1 - share.value, *ends)


def _gap(error: Float[np.ndarray, "2 groups"], whole: Float[np.ndarray, "2 groups"], seed: int) -> Interval:
    """Variance explained in the thinking model minus that in the base, over the same resamples of groups."""

    def gap(items: np.ndarray) -> np.ndarray:
        lost = error[:, items].sum(-1) / whole[:, items].sum(-1)
        return lost[0] - lost[1]

    n = error.shape[1]
    low, high = bootstrap(gap, n, width=4, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(gap(np.arange(n)[None])[0])
    return Interval.of(n, value, float(low), float(high))


def _q_values(apart: Float[Tensor, "groups latents"], seed: int) -> Float[Tensor, " latents"]:
    """False discovery rates from random exchanges of the models, whose differences are pooled over all latents.

    A latent's statistic is the sum of its differences over their root sum of squares, which no exchange changes. Its
    rate is the mean number of latents beyond it under exchanges, over their number in the data (Tusher et al., 2001).
    """
    length = apart.square().sum(0).sqrt()
    some = length > 0
    q = torch.ones(apart.shape[1])
    if not some.any():
        return q
    unit = apart[:, some] / length[some]
    seen = unit.sum(0).abs()
    signs = torch.randint(0, 2, (_FLIPS, len(apart)), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
    order = seen.argsort()
    edges = seen[order].contiguous() - 1e-6
    beyond = torch.zeros(len(edges), dtype=torch.float64)
    for part in signs.split(32):
        null = (part @ unit).abs().flatten().sort().values
        beyond += len(null) - torch.searchsorted(null, edges)
    observed = torch.arange(len(edges), 0, -1)
    rates = (beyond + 1) / _FLIPS / observed
    q[some.nonzero()[:, 0][order]] = rates.cummin(0).values.clamp(max=1).float()
    return q
