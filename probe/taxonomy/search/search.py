"""Fitting and scoring every candidate of a taxonomy: each site, family, size and seed."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from probe.activations import SentenceActivations
from probe.config import read_as
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.files import object_hash, write_json, write_tensors
from probe.models import content_hash
from probe.taxonomy.config import TaxonomyConfig, sizes_for
from probe.taxonomy.families import make_family
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.sae.train import train_saes
from probe.taxonomy.sae.weights import Weights
from probe.taxonomy.search.grid import Candidate, Grid
from probe.taxonomy.search.scores import AssignmentScores, SentenceType, agreement, mean, stability


@dataclass(frozen=True)
class Split:
    """The normalised training and validation sentences of one site, without outliers."""

    normaliser: Normaliser
    x: Float[Tensor, "sentence d_model"]
    x_validation: Float[Tensor, "validation d_model"]
    texts: list[str]
    texts_validation: list[str]
    outliers: int

    @classmethod
    def of(cls, train: SentenceActivations, validation: SentenceActivations, site: str, multiple: float) -> "Split":
        """Normalise what was harvested at one site.

        Args:
            train, validation: the harvested sentences.
            site: which site.
            multiple: a sentence whose norm is more than this many times the median is an outlier.

        Raises:
            ProbeError: if the site was not harvested, there are too few sentences, or a number is not finite.
        """
        parts = []
        for name, part in (("training", train), ("validation", validation)):
            if site not in part.vectors:
                raise ProbeError(f"site {site} was not harvested for {name}; harvested: {', '.join(part.sites)}")
            if len(part) < 2:
                raise ProbeError(f"{len(part)} {name} sentences are too few for a taxonomy; give at least 2")
            x = part.vectors[site].float()
            broken = (~x.isfinite()).any(1)
            if broken.any():
                first = part.index[int(broken.nonzero()[0])]
                raise ProbeError(
                    f"{int(broken.sum())} of {len(x)} {name} sentences have NaN or infinite activations at {site} "
                    f"(first: trace {first[0]}, sentence {first[1]}); harvest in float32, or leave these traces out"
                )
            parts.append((x, part.texts))
        normaliser = Normaliser.fit(parts[0][0], multiple)
        kept = [normaliser.keep(x) for x, _ in parts]
        z = [normaliser(x[keep]) for (x, _), keep in zip(parts, kept, strict=True)]
        texts = [
            [text for text, here in zip(some, keep.tolist(), strict=True) if here]
            for (_, some), keep in zip(parts, kept, strict=True)
        ]
        return cls(normaliser, z[0], z[1], texts[0], texts[1], sum(int((~keep).sum()) for keep in kept))

    def scores(self, sentence_type: SentenceType | None) -> AssignmentScores:
        """Return the scores of assignments of these sentences."""
        return AssignmentScores(self.x, self.x_validation, self.texts, self.texts_validation, sentence_type)


def explore(
    train: SentenceActivations,
    validation: SentenceActivations,
    config: TaxonomyConfig,
    *,
    sentence_type: SentenceType | None = None,
    delimiters: tuple[SentenceActivations, SentenceActivations] | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Grid:
    """Fit and score every candidate: each site, family and size.

    Args:
        train: the training sentences, harvested at ``config.sites``.
        validation: the validation sentences, of other problems.
        config: sites (empty: all that were harvested), sizes, family, baselines and seeds.
        sentence_type: gives the true type of a sentence, where it is known. It is only reported.
        delimiters: training and validation activations of :func:`probe.taxonomy.delimiter_documents`, which the
            ``delimiter`` family reads.
        folder: each finished site is saved here; a later call with the same arguments computes only what is missing.
        progress: show progress bars.

    Raises:
        ProbeError: if a site was not harvested, a number is not finite, there are fewer sentences than behaviours, the
            delimiter family has nothing to read, or ``folder`` holds another search. All this is checked before
            training.
    """
    if "delimiter" in config.rivals and delimiters is None:
        raise ProbeError(
            "the delimiter family reads each sentence's last token; harvest probe.taxonomy.delimiter_documents of the "
            "traces and pass it as delimiters, or leave delimiter out of taxonomy.rivals"
        )
    sites = config.sites or train.sites
    splits = {site: Split.of(train, validation, site, config.outlier_multiple) for site in sites}
    sizes = {site: sizes_for(config, split.x.shape[1], len(split.x)) for site, split in splits.items()}

    @cache
    def ends_of(site: str) -> Split | None:
        return None if delimiters is None else Split.of(*delimiters, site, config.outlier_multiple)

    candidates: list[Candidate] = []
    weights: dict[tuple[str, int, int], Weights] = {}
    for site, split in splits.items():
        kept = None if folder is None else Path(folder) / site
        keys = ("", "") if kept is None else _keys(config, split, ends_of(site), sentence_type)
        found = None if kept is None else _load(kept, keys)
        if found is None:
            found = _explore_site(site, sizes[site], split, ends_of(site), config, sentence_type, progress=progress)
            if kept is not None:
                with FolderLock(kept.parent):
                    _save(kept, keys[0], *found)
        candidates += found[0]
        weights |= {(site, size, seed): each for (size, seed), each in found[1].items()}
    return Grid(tuple(candidates), weights, config)


SiteSearch = tuple[list[Candidate], dict[tuple[int, int], Weights]]
"""The candidates of one site, and the weights of each size and seed of the taxonomy's own family."""


def _explore_site(
    site: str,
    sizes: Sequence[int],
    split: Split,
    ends: Split | None,
    config: TaxonomyConfig,
    sentence_type: SentenceType | None,
    *,
    progress: bool,
) -> SiteSearch:
    names = dict.fromkeys((config.family, *config.rivals))
    sentence_scores = split.scores(sentence_type)
    candidates, own = [], {}
    total = len(names) * len(sizes)
    with tqdm(total=total, desc=f"taxonomies at {site}", unit="candidate", disable=not progress) as bar:
        for name in names:
            read, scores = split, sentence_scores
            if name == "delimiter":
                assert ends is not None
                read, scores = ends, ends.scores(sentence_type)
            trained = train_saes(read.x, read.x_validation, sizes, config) if name == "topk" else {}
            for size in sizes:
                fitted = [trained.get((size, seed)) or _fit(name, size, seed, read.x) for seed in config.seeds]
                candidates.append(_score(scores, fitted, site=site, family=name, size=size, seeds=config.seeds))
                if name == config.family:
                    own |= {(size, seed): each for seed, each in zip(config.seeds, fitted, strict=True)}
                bar.update()
    return candidates, {at: _as_weights(each) for at, each in own.items()}


def _fit(name: str, size: int, seed: int, x: Tensor) -> Any:
    return make_family(name, size, seed).fit(x)


def _as_weights(each: Any) -> Weights:
    if isinstance(each, Weights):
        return each
    # The nearest centre by cosine is the one active latent of a top-1 SAE whose encoder is its decoder.
    return Weights(each.directions_.T.contiguous(), each.directions_, 1)


def _score(
    scores: AssignmentScores, fitted: Sequence[Any], *, site: str, family: str, size: int, seeds: Sequence[int]
) -> Candidate:
    def assigned(each: Any, x: Tensor) -> np.ndarray:
        return each.pre_activations(x).argmax(-1).numpy() if isinstance(each, Weights) else each.predict(x)

    train = [assigned(each, scores.x) for each in fitted]
    validation = [assigned(each, scores.x_validation) for each in fitted]
    pairs = list(zip(train, validation, strict=True))

    def by(metric: Any) -> float | None:
        return mean([mean(metric(*pair, size)) for pair in pairs])

    return Candidate(
        site=site,
        family=family,
        size=size,
        seeds=tuple(seeds),
        variance_explained=tuple(
            _explained(each, scores, *pair, size) for each, pair in zip(fitted, pairs, strict=True)
        ),
        stability=stability([each.decoder if isinstance(each, Weights) else each.directions_ for each in fitted]),
        agreement=agreement(validation),
        silhouette=mean([scores.silhouette(each) for each in validation]),
        decodability=by(scores.decodability),
        centroid_f1=by(scores.centroid_f1),
        text_f1=by(scores.text_f1),
        ami=tuple(scores.ami(each) for each in validation),
        used=tuple(len(np.unique(each)) for each in validation),
    )


def _explained(each: Any, scores: AssignmentScores, train: np.ndarray, validation: np.ndarray, size: int) -> float:
    """Variance explained of validation sentences; a family without a reconstruction uses the behaviour's mean."""
    x = scores.x_validation
    if isinstance(each, Weights):
        return each.explained(x)
    if hasattr(each, "reconstruct"):
        rebuilt = torch.as_tensor(each.reconstruct(x))
    else:
        labels = torch.as_tensor(train)
        sums = torch.zeros(size, x.shape[1]).index_add_(0, labels, scores.x)
        rebuilt = (sums / torch.bincount(labels, minlength=size).clamp(min=1)[:, None])[torch.as_tensor(validation)]
    return 1 - ((rebuilt - x).square().sum() / (x - x.mean(0)).square().sum()).item()


def _save(kept: Path, key: str, candidates: Sequence[Candidate], weights: dict[tuple[int, int], Weights]) -> None:
    tensors = {}
    for (size, seed), each in weights.items():
        tensors[f"encoder.{size}.{seed}"] = each.encoder.contiguous()
        tensors[f"decoder.{size}.{seed}"] = each.decoder.contiguous()
    write_tensors(f"{kept}.safetensors", tensors)
    active = {f"{size}.{seed}": each.k for (size, seed), each in weights.items()}
    converged = all(each.converged for each in weights.values())
    about = {"candidates": [asdict(each) for each in candidates], "active": active, "converged": converged}
    write_json(f"{kept}.json", {"key": key, **about})  # written last: a site that has this file is complete


class _Kept(TypedDict):
    key: str
    candidates: list[Candidate]
    active: dict[str, int]
    converged: NotRequired[bool]


def _keys(
    config: TaxonomyConfig, split: Split, ends: Split | None, sentence_type: SentenceType | None
) -> tuple[str, str]:
    """The key of a site's search, and the one that earlier versions wrote."""
    read = [(each.x, each.x_validation) for each in (split, ends) if each is not None]
    types = [None if sentence_type is None else sentence_type(text) for text in (*split.texts, *split.texts_validation)]
    said = [asdict(config), split.texts, split.texts_validation]
    return object_hash([*said, content_hash(read), types]), object_hash([*said, split.x.double().sum().item()])


def _load(kept: Path, keys: Sequence[str]) -> SiteSearch | None:
    path = Path(f"{kept}.json")
    if not path.exists():
        return None
    about = read_as(_Kept, path)
    if about.get("key") not in keys:
        raise ProbeError(
            f"{kept.parent} holds a search with other settings or sentences; remove it, or choose another folder"
        )
    try:
        tensors = load_file(f"{kept}.safetensors")
    except (OSError, SafetensorError):
        return None  # a damaged file is computed again
    weights = {}
    for name, k in about["active"].items():
        known = re.fullmatch(r"(\d+)\.(\d+)", name)
        encoder, decoder = (tensors.get(f"{side}.{name}") for side in ("encoder", "decoder"))
        if known is None or encoder is None or decoder is None or not 1 <= k <= int(known[1]) == len(decoder):
            return None
        weights[int(known[1]), int(known[2])] = Weights(encoder, decoder, k, about.get("converged", True))
    return about["candidates"], weights
