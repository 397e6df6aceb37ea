"""Finding behaviours: every site, size and seed is tried, and a written rule chooses among them."""

from pathlib import Path

import numpy as np
import torch

from probe.activations import SentenceActivations
from probe.taxonomy.config import TaxonomyConfig
from probe.taxonomy.labels import label_behaviours, nearest_sentences
from probe.taxonomy.search.grid import Grid
from probe.taxonomy.search.scores import SentenceType, Yardstick
from probe.taxonomy.search.search import Split, explore
from probe.taxonomy.taxonomy import Taxonomy


def fit_taxonomy(
    train: SentenceActivations,
    validation: SentenceActivations,
    config: TaxonomyConfig | None = None,
    *,
    sentence_type: SentenceType | None = None,
    delimiters: tuple[SentenceActivations, SentenceActivations] | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Taxonomy:
    """Find the behaviours in a thinking model's sentences.

    The method is that of Venhoff et al. 2025 (arXiv 2510.07364), with biases fixed at zero and a written rule for site
    and size. A top-k SAE is trained for each site, size and seed, on sentence vectors that are centred and scaled to
    length one. Site and size are chosen on validation data by :attr:`TaxonomyConfig.rule`, which is kept in
    ``scores["rule"]``; true types are never looked at for it.

    Args:
        train: what the SAEs are trained on.
        validation: what they are scored on; of other problems.
        config: sites (empty: all that were harvested), sizes, seeds, training, rivals.
        sentence_type: the true type of a sentence, where the problem set knows it. Only reported: ``scores["ami"]`` is
            the adjusted mutual information of true types and behaviours on those validation sentences that have a type.
        delimiters: what the rival called ``delimiter`` reads; see :func:`explore`.
        folder: the taxonomy is saved there. What is finished of the search is kept in ``grid/``, and a later call with
            the same arguments does only what is missing.
        progress: show bars.

    Raises:
        ProbeError: if a site was not harvested, an activation is not finite, or there are fewer sentences than
            behaviours; before anything is trained.
    """
    config = config or TaxonomyConfig()
    grid = explore(
        train,
        validation,
        config,
        sentence_type=sentence_type,
        delimiters=delimiters,
        folder=None if folder is None else Path(folder) / "grid",
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
    """The taxonomy that the grid's rule chooses, or the one at ``site`` of ``size`` if you know better.

    Args:
        grid: what :func:`explore` found.
        train, validation, sentence_type: as they were given to it.
        site, size: only candidates that have these are chosen among.

    Raises:
        ProbeError: if the grid has no such candidate.
    """
    chosen = grid.choose(site, size)
    best = int(np.argmax(chosen.variance_explained))
    weights = grid.weights[chosen.site, chosen.size, chosen.seeds[best]]
    split = Split.of(train, validation, chosen.site, grid.config.outlier_multiple)
    scale = Yardstick(split.x, split.x_validation, split.texts, split.texts_validation, sentence_type)
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
        "silhouette": scale.silhouette(own.numpy()),
        "decodability": scale.decodability(*pair),
        "centroid_f1": scale.centroid_f1(*pair),
        "text_f1": scale.text_f1(*pair),
        "ami": scale.ami(own.numpy()),
        "ami_by_seed": list(chosen.ami),
        "type_f1": scale.type_f1(own.numpy()),
        "shares": (torch.bincount(own, minlength=chosen.size) / len(own)).tolist(),
        "candidates": grid.to_dicts(),
        "train_sentences": len(split.x),
        "validation_sentences": len(split.x_validation),
        "outliers": split.outliers,
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
