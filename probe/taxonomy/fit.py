"""Finding behaviours: SAEs of several sizes and seeds, and a written rule that chooses among them."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from probe._errors import ProbeError
from probe.activations import SentenceActivations
from probe.taxonomy.config import TaxonomyConfig
from probe.taxonomy.labels import label_behaviours, nearest_sentences
from probe.taxonomy.normaliser import Normaliser
from probe.taxonomy.taxonomy import Taxonomy, explained
from probe.taxonomy.train import Weights, train_sae

SentenceType = Callable[[str], str | None]


def fit_taxonomy(
    train: SentenceActivations,
    validation: SentenceActivations,
    config: TaxonomyConfig | None = None,
    *,
    sentence_type: SentenceType | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Taxonomy:
    """Find the behaviours in a thinking model's sentences.

    The method is that of Venhoff et al. 2025 (arXiv 2510.07364), with biases fixed at zero and a written rule for the
    size. A top-k SAE is trained by SAELens for each size and seed, on sentence vectors that are centred and scaled to
    length one. The size is chosen on validation data by :attr:`TaxonomyConfig.rule`, which is kept in
    ``scores["rule"]``; true types are never looked at for it.

    Args:
        train: what the SAEs are trained on.
        validation: what they are scored on; of other problems.
        config: sizes, seeds, training, rule.
        sentence_type: the true type of a sentence, where the problem set knows it. Only reported: ``scores["ami"]`` is
            the adjusted mutual information of true types and behaviours on those validation sentences that have a type.
        folder: the taxonomy is saved there.
        progress: show a bar.

    Raises:
        ProbeError: if the site was not harvested, or there are fewer sentences than behaviours.
    """
    config = config or TaxonomyConfig()
    site = _choose_site(train, config)
    for name, part, least in (("training", train, max(config.sizes)), ("validation", validation, 2)):
        if site not in part.vectors:
            raise ProbeError(f"site {site} was not harvested for {name}; harvested: {', '.join(part.sites)}")
        if len(part) < least:
            few = f"{len(part)} {name} sentences are too few for a taxonomy of {max(config.sizes)} behaviours"
            raise ProbeError(f"{few}; at least {least} are needed")
    x, x_validation = train.vectors[site].float(), validation.vectors[site].float()
    normaliser = Normaliser.fit(x, config.outlier_multiple)
    kept, kept_validation = normaliser.keep(x), normaliser.keep(x_validation)
    z, z_validation = normaliser(x[kept]), normaliser(x_validation[kept_validation])

    found: dict[int, list[Weights]] = {size: [] for size in config.sizes}
    candidates: list[dict[str, Any]] = []
    with tqdm(
        total=len(config.sizes) * len(config.seeds), desc=f"taxonomy at {site}", unit="SAE", disable=not progress
    ) as bar:
        for size, weights in found.items():
            for seed in config.seeds:
                weights.append(train_sae(z, size, seed, config))
                bar.update()
            by_seed = [explained(each, z_validation) for each in weights]
            agreement = stability([each.decoder for each in weights])
            mean = float(np.mean(by_seed))
            candidates.append({"size": size, "variance_explained": mean, "by_seed": by_seed, "stability": agreement})
    chosen = choose(candidates, config)
    best = int(np.argmax(chosen["by_seed"]))
    weights = found[chosen["size"]][best]

    texts = [text for text, keep in zip(train.texts, kept.tolist(), strict=True) if keep]
    texts_validation = [text for text, keep in zip(validation.texts, kept_validation.tolist(), strict=True) if keep]
    activations = weights.pre_activations(z)
    behaviours = activations.argmax(-1)
    behaviours_validation = weights.pre_activations(z_validation).argmax(-1)
    scores = {
        "rule": config.rule,
        "size": chosen["size"],
        "seed": config.seeds[best],
        "variance_explained": chosen["by_seed"][best],
        "stability": chosen["stability"],
        "silhouette": _silhouette(z_validation, behaviours_validation),
        "ami": None if sentence_type is None else _ami(texts_validation, behaviours_validation, sentence_type),
        "shares": (torch.bincount(behaviours_validation, minlength=chosen["size"]) / len(z_validation)).tolist(),
        "candidates": candidates,
        "train_sentences": len(z),
        "validation_sentences": len(z_validation),
        "outliers": int((~kept).sum() + (~kept_validation).sum()),
    }
    taxonomy = Taxonomy(
        site,
        normaliser,
        weights,
        label_behaviours(texts, behaviours, chosen["size"]),
        nearest_sentences(texts, activations, behaviours),
        scores,
        train.model_name,
    )
    if folder is not None:
        taxonomy.save(folder)
    return taxonomy


def choose(candidates: Sequence[dict[str, Any]], config: TaxonomyConfig) -> dict[str, Any]:
    """The candidate that :attr:`TaxonomyConfig.rule` names; one seed alone has no stability, and none is asked for."""
    best = max(each["variance_explained"] for each in candidates)
    least = min(config.enough * best, best)  # an SAE may explain less than nothing
    enough = [each for each in sorted(candidates, key=lambda each: each["size"]) if each["variance_explained"] >= least]
    stable = [each for each in enough if each["stability"] is None or each["stability"] >= config.stable]
    return stable[0] if stable else max(enough, key=lambda each: each["stability"])


def stability(decoders: Sequence[Float[Tensor, "behaviour d_model"]]) -> float | None:
    """The mean cosine of decoder rows matched one to one, over all pairs of seeds; None for one seed."""
    from scipy.optimize import linear_sum_assignment

    means = []
    for a, b in combinations(decoders, 2):
        cosines = (a @ b.T).numpy()
        means.append(cosines[linear_sum_assignment(cosines, maximize=True)].mean())
    return float(np.mean(means)) if means else None


def _choose_site(train: SentenceActivations, config: TaxonomyConfig) -> str:
    if config.site is not None:
        return config.site
    if len(train.sites) != 1:
        raise ProbeError(f"which site is the taxonomy to read? Set site to one of {', '.join(train.sites) or 'none'}")
    return train.sites[0]


def _silhouette(z: Tensor, behaviours: Int[Tensor, " sentence"], sample: int = 2000) -> float | None:
    """Mean silhouette by cosine distance, on at most ``sample`` sentences; None if only one behaviour occurs."""
    from sklearn.metrics import silhouette_score

    chosen = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:sample]
    groups = behaviours[chosen].numpy()
    if not 1 < len(set(groups.tolist())) < len(groups):
        return None
    return float(silhouette_score(z[chosen].numpy(), groups, metric="cosine"))


def _ami(texts: Sequence[str], behaviours: Int[Tensor, " sentence"], sentence_type: SentenceType) -> float | None:
    from sklearn.metrics import adjusted_mutual_info_score

    kinds = [sentence_type(text) for text in texts]
    typed = [i for i, kind in enumerate(kinds) if kind is not None]
    return float(adjusted_mutual_info_score([kinds[i] for i in typed], behaviours[typed].tolist())) if typed else None
