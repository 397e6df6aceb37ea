"""The effect on a model's rollouts of changing some heads, compared with changing random heads of the same layers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.heads.changed import Head, Reference, heads_changed, matched_heads
from probe.circuits.pairs.pairs import Pairs, end_logits, logit_difference, rows_that_fit
from probe.hooks import Selection, Tokens
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.progress import progress_bar
from probe.statistics import Interval, mean_interval
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import generate_traces

Measured = Mapping[str, Float[Tensor, " items"]]
"""One tensor for each thing that is measured, with an entry for each problem or pair, NaN where it is not known."""
Look = Callable[[], Measured]
"""Measures something on each problem or pair."""
Keep = Callable[[str, Look], Measured]
"""Called with the name of a measurement and the function that makes it; returns what was kept of it, or makes it."""


@dataclass(frozen=True)
class HeadEffect:
    """One measure, with and without changed heads.

    Attributes:
        whole: the mean over problems or pairs for the unchanged model.
        changed: the same with the heads changed.
        others: the same with random heads of the same layers changed, over problems and sets of heads.
        more_than_others: others minus changed.
    """

    whole: Interval
    changed: Interval
    others: Interval
    more_than_others: Interval

    def to_dict(self) -> dict[str, Any]:
        """The four intervals for JSON, under ``whole``, ``changed``, ``others`` and ``more than others``."""
        return {name.replace("_", " "): interval.to_dict() for name, interval in vars(self).items()}


def behaviour_look(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    behaviour: "Behaviour | str | re.Pattern[str]",
    *,
    max_new_tokens: int,
) -> Look:
    """Make a function that lets the model solve problems and measures a behaviour in its rollouts.

    It measures ``count`` (how many sentences of each rollout show the behaviour), ``share`` (of all its sentences) and
    ``solved`` (1 if the answer is right, NaN if it could not be graded). A model that repeats itself shows every
    behaviour more often, so the share is given beside the count.

    Args:
        model: the model that writes the rollouts.
        problem_set: grades the answers.
        behaviour: the behaviour, or its name as :func:`~probe.find_behaviour` reads it.
        max_new_tokens: the largest number of tokens of a rollout.

    Returns:
        A function without arguments, for :func:`effect_of_heads`.

    Raises:
        ProbeError: if nothing has that name.
    """
    wanted = behaviour if isinstance(behaviour, Behaviour) else find_behaviour(behaviour, problem_set=problem_set)

    def look() -> dict[str, Tensor]:
        rollouts = generate_traces(model, problem_set, problems, max_new_tokens=max_new_tokens)
        shown = wanted.marks(rollouts)
        counts = torch.tensor([sum(each) for each in shown]).double()
        return {
            "count": counts,
            "share": counts / torch.tensor([max(1, len(each)) for each in shown]),
            "solved": torch.tensor([math.nan if each.failed else float(each.correct) for each in rollouts]).double(),
        }

    return look


def pairs_look(model: Model, pairs: Pairs) -> Look:
    """Make a function that measures the logit of the right next token minus that of the wrong one on each clean text.

    Args:
        model: the model that reads the texts.
        pairs: pairs that the heads were not chosen on.

    Returns:
        A function without arguments, for :func:`effect_of_heads`; it measures ``logit difference``.
    """

    @torch.no_grad()
    def look() -> dict[str, Tensor]:
        found = []
        for clean, _, right, wrong in pairs.on(model.device).parts(lambda width: min(8, rows_that_fit(model)(width))):
            found.append(logit_difference(right, wrong)(end_logits(model, clean)).double().cpu())
        return {"logit difference": torch.cat(found)}

    return look


def effect_of_heads(
    model: Model,
    heads: Sequence[Head],
    look: Look,
    by: str | float = "resample",
    *,
    reference: Reference | None = None,
    tokens: Tokens | Selection | None = None,
    n_controls: int = 5,
    seed: int = 0,
    keep: Keep | None = None,
    progress: bool = False,
) -> dict[str, HeadEffect]:
    """Ablate or scale heads in the model itself and measure, then do the same with random heads of the same layers.

    Args:
        model: the model whose heads are changed.
        heads: the heads, as ``(layer, head)``.
        look: what is measured, for example by :func:`behaviour_look` or :func:`pairs_look`.
        by: one of :data:`ABLATIONS`, or a factor that the heads' output is multiplied by.
        reference: head outputs that the ablations ``mean`` and ``resample`` use.
        tokens: the tokens at which heads are changed; None for all.
        n_controls: number of random sets of other heads.
        seed: seeds the choice of these sets and the resampling.
        keep: keeps each measurement, so that an interrupted call resumes; it is called with ``whole``, ``changed`` and
            ``others-0`` and so on. None keeps nothing.
        progress: show a progress bar.

    Returns:
        One entry for each thing that ``look`` measures, over the problems or pairs on which it is known each time.

    Raises:
        ProbeError: if a layer does not have as many other heads.
    """
    n_heads = model.hf.config.get_text_config().num_attention_heads
    controls = [matched_heads(heads, n_heads, seed + i) for i in range(n_controls)]
    keep = keep or (lambda _, make: make())

    def without(some: Sequence[Head]) -> Look:
        def make() -> Measured:
            with heads_changed(model, some, by, reference=reference, tokens=tokens, seed=seed):
                return look()

        return make

    whole, changed = keep("whole", look), keep("changed", without(heads))
    others = [
        keep(f"others-{i}", without(some))
        for i, some in enumerate(progress_bar(controls, desc="other heads", unit="set", show=progress))
    ]
    found = {}
    for name in whole:
        all_of_them = torch.stack([whole[name], changed[name], *(each[name] for each in others)])
        known = all_of_them[:, ~all_of_them.isnan().any(0)]
        sides = (known[0], known[1], known[2:], known[2:] - known[1])
        found[name] = HeadEffect(*(mean_interval(side.numpy()) for side in sides))
    return found
