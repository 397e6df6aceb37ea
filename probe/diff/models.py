"""Comparing the two models of a pair: every part of the comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.diff.findings import PairDiff
from probe.diff.names import AT_LAYER, OF_SAE, USES_BEHAVIOUR, check_parts, usual_parts
from probe.diff.parts import MADE_BY
from probe.diff.texts import Texts
from probe.errors import NotApplicable, ProbeError
from probe.models import GREEDY, Pair, Sampling
from probe.problems import ProblemSet, load_problems
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Traces, generate_traces

if TYPE_CHECKING:
    from sae_lens import SAE


def diff_models(
    pair: Pair,
    *,
    problem_set: ProblemSet | None = None,
    traces: Traces | None = None,
    behaviour: Behaviour | str | None = None,
    parts: Sequence[str] | None = None,
    n_problems: int = 80,
    n_pairs: int = 48,
    context: int = 512,
    layer: int | None = None,
    sae: "SAE[Any] | str | Path | None" = None,
    max_new_tokens: int | None = None,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    progress: bool = False,
) -> PairDiff:
    """Compare the two models of a pair on texts of the thinking model.

    Args:
        problem_set: its train split gives the problems; None for the pair's own problem set.
        traces: traces of the thinking model on the first ``n_problems`` of them; None to generate them.
        behaviour: the behaviour that heads and directions are compared for, or its name as
            :func:`~probe.find_behaviour` reads it; None for the sentence type, or the habit where sentences have no
            types, whose share rose most in training.
        parts: keys of :data:`PARTS`; None for all, of which ``dictionary`` needs an SAE.
        n_pairs: the largest number of pairs of texts, for heads, directions and tracing.
        context: the largest number of tokens of a text of these pairs for heads and directions, prompt included; longer
            ones are cut on the left.
        layer: layer of ``resid_post`` at which states are compared (by the SAE over both models and by the mean
            difference), counted from 0; None for the middle layer.
        sae: an SAE or transcoder whose latents are compared in both models: an object of SAELens, a folder, or
            ``RELEASE/SAE_ID``; None for none.
        max_new_tokens: the largest number of tokens of a trace; None for the pair's own limit.
        sampling: how traces are sampled. Give that of ``traces`` too: if no behaviour is named, the base solves the
            same problems in the same way.
        seed: seeds everything that is random.
        progress: show progress bars.

    Returns:
        The result of each part. A part that does not apply to these models or texts is named with the reason.

    Raises:
        ProbeError: for an unknown part or behaviour, one that no trace shows, a layer that a model does not have, or a
            pair without problems.
    """
    asked = check_parts(usual_parts(sae) if parts is None else parts)
    if OF_SAE in asked and sae is None:
        raise ProbeError(f"the part {OF_SAE} compares the latents of an SAE: give one as sae=")
    if problem_set is None:
        if pair.config.problems is None:
            raise ProbeError(f"the pair {pair.name} names no problems: give problem_set=load_problems(...)")
        problem_set = load_problems(pair.config.problems, grader=pair.config.grader)
    if isinstance(behaviour, str):
        behaviour = find_behaviour(behaviour, problem_set=problem_set)
    if layer is not None and AT_LAYER & set(asked) and not 0 <= layer < min(pair.base.n_layers, pair.thinking.n_layers):
        raise ProbeError(f"layer is {layer}; the models of {pair.name} do not both have it, counted from 0")
    problems = problem_set.take("train", n_problems, fewer=True)
    limit = max_new_tokens or pair.config.max_new_tokens
    if traces is None:
        traces = generate_traces(
            pair.thinking, problem_set, problems,
            max_new_tokens=limit, sampling=sampling, seed=seed, progress=progress,
        )  # fmt: skip
    if behaviour is not None:
        behaviour.marks(traces, required=True)
    texts = Texts(
        pair, problem_set, problems, traces, behaviour, n_pairs=n_pairs, context=context, layer=layer, sae=sae,
        max_new_tokens=limit, sampling=sampling, seed=seed, progress=progress,
    )  # fmt: skip
    return compare_parts(texts, asked)


def compare_parts(texts: Texts, parts: Sequence[str]) -> PairDiff:
    """Compute some parts of a comparison.

    Args:
        texts: what the parts share; it can be used again for other parts.
        parts: keys of :data:`PARTS`.

    Returns:
        The result of each part. A part that does not apply to these models or texts is named with the reason.
    """
    found, missing = {}, {}
    for part in parts:
        try:
            found[part] = MADE_BY[part](texts)
        except NotApplicable as error:
            missing[part] = str(error)
    used = texts.found if USES_BEHAVIOUR & set(parts) else texts.asked
    chosen = None if used is None or used is texts.asked else texts.risen.said
    return PairDiff(texts.pair.name, used and used.name, chosen, **found, missing=missing)
