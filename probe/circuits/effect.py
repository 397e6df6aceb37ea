"""What a model does when some of its heads are changed, beside what it does when as many others are."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from probe.circuits.heads import Head, Reference, heads_changed, matched_heads
from probe.circuits.pairs import shows_behaviour
from probe.hooks import Selection, Tokens
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.statistics import Interval, mean_interval
from probe.traces import generate_traces

Look = Callable[[], Mapping[str, Float[Tensor, " problems"]]]
"""Something that is measured on each problem, under several names."""


def behaviour_look(
    model: Model, problem_set: ProblemSet, problems: Sequence[Problem], behaviour: str, *, max_new_tokens: int
) -> Look:
    """How often a behaviour shows in each rollout, how large a share of its sentences that is, and what is solved.

    A model that goes round in circles shows more of everything, so the share is told beside the count.

    Raises:
        ProbeError: if sentences of these problems have no types.
    """
    shows = shows_behaviour(problem_set, behaviour)

    def look() -> dict[str, Tensor]:
        rollouts = generate_traces(model, problem_set, problems, max_new_tokens=max_new_tokens)
        shown = [[shows(trace.sentence_text(each)) for each in trace.sentences] for trace in rollouts]
        counts = torch.tensor([sum(each) for each in shown]).double()
        return {
            "count": counts,
            "share": counts / torch.tensor([max(1, len(each)) for each in shown]),
            "solved": torch.tensor([float(bool(trace.correct)) for trace in rollouts]).double(),
        }

    return look


def effect_of_heads(
    model: Model,
    heads: Sequence[Head],
    look: Look,
    by: str | float = "resample",
    of: Reference | None = None,
    *,
    tokens: Tokens | Selection | None = None,
    draws: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, dict[str, Interval]]:
    """Ablate or scale heads in the model itself and look; then the same with others of the same layers.

    Args:
        by: one of ``ABLATIONS``, or a factor to scale what they write.
        of: what mean and resample draw from.
        tokens: where heads are changed; everywhere unless given.
        draws: sets of others.
        seed: draws them.
        progress: show a bar.

    Returns:
        Of each thing looked at, over problems (and sets): ``whole``, ``changed``, ``others`` and ``more than others``,
        which is others − changed.

    Raises:
        ProbeError: if there are not as many other heads in a layer.
    """
    n_heads = model.hf.config.get_text_config().num_attention_heads
    drawn = [matched_heads(heads, n_heads, seed + draw) for draw in range(draws)]
    whole = look()
    with heads_changed(model, heads, by, of, tokens=tokens, seed=seed):
        changed = look()
    others = []
    for some in tqdm(drawn, desc="other heads", unit="set", disable=not progress):
        with heads_changed(model, some, by, of, tokens=tokens, seed=seed):
            others.append(look())
    found = {}
    for name in whole:
        stacked = torch.stack([each[name] for each in others])
        found[name] = {
            "whole": mean_interval(whole[name].numpy()),
            "changed": mean_interval(changed[name].numpy()),
            "others": mean_interval(stacked.numpy()),
            "more than others": mean_interval((stacked - changed[name]).numpy()),
        }
    return found
