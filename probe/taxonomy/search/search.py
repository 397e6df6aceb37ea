"""Fitting and scoring every candidate of a taxonomy: each site, family, size and seed."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from probe.activations import SentenceActivations, by_rows, chosen_chunks
from probe.config import read_as
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.files import object_hash, write_json, write_tensors
from probe.models import content_hash
from probe.progress import progress_bar
from probe.taxonomy.config import TaxonomyConfig, sizes_for
from probe.taxonomy.families import make_family
from probe.taxonomy.families.base import subsample
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

    def scores(self, sentence_type: SentenceType | None) -> AssignmentScores:
        """Return the scores of assignments of these sentences."""
        return AssignmentScores(self.x, self.x_validation, self.texts, self.texts_validation, sentence_type)


@dataclass(frozen=True)
class Survey:
    """Which sentences of one site a search reads, and how they are normalised; their vectors are not yet read."""

    site: str
    normaliser: Normaliser
    parts: tuple[SentenceActivations, SentenceActivations]
    """The harvested training and validation sentences."""
    chosen: tuple[Int[Tensor, " sentence"], Int[Tensor, " validation"]]
    """The rows that are read, in order."""
    outliers: int

    @classmethod
    def of(
        cls, train: SentenceActivations, validation: SentenceActivations, site: str, config: TaxonomyConfig
    ) -> "Survey":
        """Go through all sentences that were harvested at one site, chunk by chunk.

        Args:
            train, validation: the harvested sentences.
            site: which site.
            config: says what an outlier is, and how many sentences are read at most.

        Raises:
            ProbeError: if the site was not harvested, there are too few sentences, or a number is not finite.
        """
        for name, part in (("training", train), ("validation", validation)):
            if site not in part.vectors:
                raise ProbeError(f"site {site} was not harvested for {name}; harvested: {', '.join(part.sites)}")
            if len(part) < 2:
                raise ProbeError(f"{len(part)} {name} sentences are too few for a taxonomy; give at least 2")
            broken = ~by_rows(lambda some: some.isfinite().all(1), part.rows(site))
            if broken.any():
                first = part.index[int(broken.nonzero()[0])]
                raise ProbeError(
                    f"{int(broken.sum())} of {len(part)} {name} sentences have NaN or infinite activations at {site} "
                    f"(first: trace {first[0]}, sentence {first[1]}); harvest in float32, or leave these traces out"
                )
        normaliser = Normaliser.fit(train.rows(site), config.outlier_multiple)
        chosen, outliers = [], 0
        for part in (train, validation):
            kept = normaliser.keep(part.rows(site))
            outliers += int((~kept).sum())
            rows = torch.from_numpy(subsample(len(part), config.most_sentences, seed=0))
            chosen.append(rows[kept[rows]])
        return cls(site, normaliser, (train, validation), (chosen[0], chosen[1]), outliers)

    @property
    def width(self) -> int:
        """The width of a vector."""
        return self.parts[0].rows(self.site).shape[1]

    def read(self) -> Split:
        """Read and normalise the chosen sentences."""
        x, x_validation = (self._normalised(part, rows) for part, rows in zip(self.parts, self.chosen, strict=True))
        texts, texts_validation = (
            [part.texts[row] for row in rows.tolist()] for part, rows in zip(self.parts, self.chosen, strict=True)
        )
        return Split(self.normaliser, x, x_validation, texts, texts_validation, self.outliers)

    def _normalised(
        self, part: SentenceActivations, chosen: Int[Tensor, " sentence"]
    ) -> Float[Tensor, "sentence d_model"]:
        rows, done = part.rows(self.site), 0
        out = torch.empty(len(chosen), self.width)
        for chunk in chosen_chunks(rows, chosen):
            out[done : done + len(chunk)] = self.normaliser(chunk)
            done += len(chunk)
        return out


def explore(
    train: SentenceActivations,
    validation: SentenceActivations,
    config: TaxonomyConfig,
    *,
    sentence_type: SentenceType | None = None,
    delimiters: tuple[SentenceActivations, SentenceActivations] | None = None,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Grid:
    """Fit and score every candidate: each site, family and size.

    Vectors are read site by site, at most :attr:`TaxonomyConfig.most_sentences` of each split, so that memory does not
    grow with the number of traces.

    Args:
        train: the training sentences, harvested at ``config.sites``.
        validation: the validation sentences, of other problems.
        config: sites (empty: all that were harvested), sizes, family, baselines and seeds.
        sentence_type: gives the true type of a sentence, where it is known. It is only reported.
        delimiters: training and validation activations of :func:`probe.taxonomy.delimiter_documents`, which the
            ``delimiter`` family reads.
        folder: each finished site is saved here; a later call with the same arguments computes only what is missing.
        device: where the top-k SAEs are trained; everything else is computed on the CPU.
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
    surveys = [Survey.of(train, validation, site, config) for site in sites]
    sizes = [sizes_for(config, survey.width, len(survey.chosen[0])) for survey in surveys]
    ends = [None if delimiters is None else Survey.of(*delimiters, site, config) for site in sites]
    candidates: list[Candidate] = []
    weights: dict[tuple[str, int, int], Weights] = {}
    for survey, some, of_ends in zip(surveys, sizes, ends, strict=True):
        # In a function of its own, so that the vectors of one site are gone before those of the next are read.
        found = _of_site(some, survey, of_ends, config, sentence_type, folder=folder, device=device, progress=progress)
        candidates += found[0]
        weights |= {(survey.site, size, seed): each for (size, seed), each in found[1].items()}
    return Grid(tuple(candidates), weights, config)


SiteSearch = tuple[list[Candidate], dict[tuple[int, int], Weights]]
"""The candidates of one site, and the weights of each size and seed of the taxonomy's own family."""


def _of_site(
    sizes: Sequence[int],
    survey: Survey,
    survey_of_ends: Survey | None,
    config: TaxonomyConfig,
    sentence_type: SentenceType | None,
    *,
    folder: str | Path | None,
    device: str | torch.device,
    progress: bool,
) -> SiteSearch:
    """Load the finished search of a site, or do and save it."""
    split, ends = survey.read(), None if survey_of_ends is None else survey_of_ends.read()

    def search() -> SiteSearch:
        return _explore_site(survey.site, sizes, split, ends, config, sentence_type, device=device, progress=progress)

    if folder is None:
        return search()
    kept, keys = Path(folder) / survey.site, _keys(config, split, ends, sentence_type)
    found = _load(kept, keys)
    if found is None:
        found = search()
        with FolderLock(kept.parent):
            _save(kept, keys[0], *found)
    return found


def _explore_site(
    site: str,
    sizes: Sequence[int],
    split: Split,
    ends: Split | None,
    config: TaxonomyConfig,
    sentence_type: SentenceType | None,
    *,
    device: str | torch.device,
    progress: bool,
) -> SiteSearch:
    names = dict.fromkeys((config.family, *config.rivals))
    sentence_scores = split.scores(sentence_type)
    candidates, own = [], {}
    total = len(names) * len(sizes)
    with progress_bar(total=total, desc=f"taxonomies at {site}", unit="candidate", show=progress) as bar:
        for name in names:
            read, scores = split, sentence_scores
            if name == "delimiter":
                assert ends is not None
                read, scores = ends, ends.scores(sentence_type)
            trained = _trained(read, sizes, config, device) if name == "topk" else {}
            for size in sizes:
                fitted = [trained.get((size, seed)) or _fit(name, size, seed, read.x) for seed in config.seeds]
                candidates.append(_score(scores, fitted, site=site, family=name, size=size, seeds=config.seeds))
                if name == config.family:
                    own |= {(size, seed): each for seed, each in zip(config.seeds, fitted, strict=True)}
                bar.update()
    return candidates, {at: _as_weights(each) for at, each in own.items()}


def _trained(
    split: Split, sizes: Sequence[int], config: TaxonomyConfig, device: str | torch.device
) -> dict[tuple[int, int], Weights]:
    """Train the top-k SAEs on a device, and bring them back."""
    trained = train_saes(split.x.to(device), split.x_validation.to(device), sizes, config)
    return {at: replace(each, encoder=each.encoder.cpu(), decoder=each.decoder.cpu()) for at, each in trained.items()}


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
        sums, counts = scores.sums(train, size)
        rebuilt = (sums / counts.clamp(min=1)[:, None])[torch.as_tensor(validation)]
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
    # What the number of sentences leads to is hashed itself: the sentences.
    settings = {name: value for name, value in asdict(config).items() if name != "most_sentences"}
    said = [settings, split.texts, split.texts_validation]
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
