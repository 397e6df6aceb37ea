"""Fitting a taxonomy: search every site, size and seed, and choose by a fixed rule."""

from pathlib import Path

import numpy as np
import torch

from probe.activations import SentenceActivations
from probe.taxonomy.config import TaxonomyConfig
from probe.taxonomy.labels import label_behaviours, nearest_sentences
from probe.taxonomy.search.grid import Grid
from probe.taxonomy.search.scores import SentenceType
from probe.taxonomy.search.search import Survey, explore
from probe.taxonomy.taxonomy import Taxonomy


def fit_taxonomy(
    train: SentenceActivations,
    validation: SentenceActivations,
    config: TaxonomyConfig | None = None,
    *,
    sentence_type: SentenceType | None = None,
    delimiters: tuple[SentenceActivations, SentenceActivations] | None = None,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Taxonomy:
    """Find the behaviours in a thinking model's sentences.

    The method is that of Venhoff et al. 2025 (arXiv 2510.07364), with biases fixed at zero and a fixed rule for site
    and size. A top-k SAE is trained for each site, size and seed, on sentence vectors that are centred and scaled to
    length one. Of more sentences than :attr:`TaxonomyConfig.most_sentences`, random ones are used, for labels, examples
    and scores too. :attr:`TaxonomyConfig.rule` chooses site and size on validation data and is recorded in
    ``scores["rule"]``; it never uses true types.

    Args:
        train: the sentences that the SAEs are trained on.
        validation: the sentences that they are scored on, of other problems.
        config: sites (empty: all that were harvested), sizes, seeds, training and baselines.
        sentence_type: gives the true type of a sentence, where the problem set knows it. It is only reported:
            ``scores["ami"]`` is the adjusted mutual information of types and behaviours on the validation sentences
            that have a type.
        delimiters: what the baseline ``delimiter`` reads; see :func:`explore`.
        folder: the taxonomy is saved here, and the finished parts of the search in ``grid/``. A later call with the
            same arguments computes only what is missing.
        device: where the SAEs are trained.
        progress: show progress bars.

    Raises:
        ProbeError: if a site was not harvested, an activation is not finite, or there are fewer sentences than
            behaviours. All this is checked before training.
    """
    config = config or TaxonomyConfig()
    grid = explore(
        train,
        validation,
        config,
        sentence_type=sentence_type,
        delimiters=delimiters,
        folder=None if folder is None else Path(folder) / "grid",
        device=device,
        progress=progress,
    )
    taxonomy = from_grid(grid, train, validation, sentence_type=sentence_type)
    if folder is not None:
        taxonomy.save(folder)
    return taxonomy


def from_grid(
    grid: Grid,
    train: SentenceActivations,
    validation: SentenceActivations,
    *,
    sentence_type: SentenceType | None = None,
    site: str | None = None,
    size: int | None = None,
) -> Taxonomy:
    """Make the taxonomy that the grid's rule chooses, or the best one of a given site and size.

    Args:
        grid: the result of :func:`explore`.
        train, validation, sentence_type: what :func:`explore` was given.
        site: choose only among candidates at this site; None for all.
        size: choose only among candidates with this many behaviours; None for all.

    Raises:
        ProbeError: if the grid has no such candidate.
    """
    chosen = grid.choose(site, size)
    best = int(np.argmax(chosen.variance_explained))
    weights = grid.weights[chosen.site, chosen.size, chosen.seeds[best]]
    split = Survey.of(train, validation, chosen.site, grid.config).read()
    on = split.scores(sentence_type)
    activations = weights.pre_activations(split.x)
    behaviours, own = activations.argmax(-1), weights.pre_activations(split.x_validation).argmax(-1)
    pair = (behaviours.numpy(), own.numpy(), chosen.size)
    scores = {
        "rule": grid.config.rule if site is None and size is None else "chosen by hand",
        "family": chosen.family,
        "size": chosen.size,
        "seed": chosen.seeds[best],
        "score": chosen.score,
        "variance_explained": chosen.variance_explained[best],
        "stability": chosen.stability,
        "agreement": chosen.agreement,
        "silhouette": on.silhouette(own.numpy()),
        "decodability": on.decodability(*pair),
        "centroid_f1": on.centroid_f1(*pair),
        "text_f1": on.text_f1(*pair),
        "ami": on.ami(own.numpy()),
        "ami_by_seed": list(chosen.ami),
        "type_f1": on.type_f1(own.numpy()),
        "shares": (torch.bincount(own, minlength=chosen.size) / len(own)).tolist(),
        "candidates": grid.to_dicts(),
        "train_sentences": len(split.x),
        "validation_sentences": len(split.x_validation),
        "outliers": split.outliers,
        "converged": weights.converged,
    }
    return Taxonomy(
        chosen.site,
        split.normaliser,
        weights,
        model_name=train.model_name,
        labels=label_behaviours(split.texts, behaviours, chosen.size),
        examples=nearest_sentences(split.texts, activations, behaviours),
        scores=scores,
    )
