"""The latents of a behaviour in one table: scores, exact effects and examples, as ``probe circuits`` writes them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.adapters import Dictionary
from probe.circuits.edges.lens import ALL, Window
from probe.circuits.features.check import feature_check
from probe.circuits.features.examples import latent_examples
from probe.circuits.features.scores import dictionaries_of, feature_scores
from probe.circuits.pairs.pairs import Pairs
from probe.errors import NotApplicable
from probe.models import Model
from probe.taxonomy import Behaviour
from probe.traces import Traces

if TYPE_CHECKING:
    from sae_lens import SAE

_TRACES = 100
"""The most traces in which examples are looked for."""


def latents_of(
    model: Model,
    saes: "SAE[Any] | str | Path | Dictionary | Sequence[SAE[Any] | str | Path | Dictionary]",
    pairs: Pairs,
    *,
    traces: Traces | None = None,
    behaviour: Behaviour | None = None,
    metric: str = "logit-difference",
    steps: int = 8,
    window: Window = ALL,
    n: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Score the latents of SAEs and transcoders, check the top ones exactly, and look at them in traces.

    Args:
        saes, pairs, metric, steps, window: as in :func:`feature_scores`.
        traces: the model's traces, for examples of the top latents; None for none.
        behaviour: the behaviour that the examples are compared with.
        n: number of latents.
        seed: seeds everything that is random.
        progress: show progress bars.

    Returns:
        ``about``, ``sites`` and ``top`` of :meth:`FeatureScores.to_dict`; ``check``: rank correlation of scores and
        exact effects, share of equal signs, and both means, or None where no latent has a score; ``examples``: one
        entry for each of the top latents, or None without traces.

    Raises:
        ProbeError, NotApplicable: as :func:`feature_scores`.
    """
    dictionaries = dictionaries_of(model, saes)
    scores = feature_scores(model, dictionaries, pairs, metric=metric, steps=steps, window=window, progress=progress)
    told = scores.to_dict(n)
    try:
        check = feature_check(model, scores, pairs, n=n, seed=seed, progress=progress)
    except NotApplicable:
        told["check"] = None
    else:
        told["check"] = {
            "spearman": None if math.isnan(check.spearman) else check.spearman,
            "same_sign": check.same_sign,
            "top": check.size[0].to_dict(),
            "random": check.size[1].to_dict(),
            "latents": len(check.names),
        }
    told["examples"] = None
    if traces is not None:
        told["examples"] = []
        for dictionary in dictionaries:
            mine = [each["latent"] for each in told["top"] if each["dictionary"] == dictionary.name]
            if mine:
                some = latent_examples(
                    model, dictionary, traces[:_TRACES], mine, behaviour=behaviour, n=4, seed=seed, progress=progress
                )
                told["examples"] += [each.to_dict() for each in some]
    return told
