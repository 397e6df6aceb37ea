"""User-made arms on a finished run, made of four named parts; and single questions to any arm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from probe.errors import ProbeError
from probe.files import object_hash, write_json
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    ComingBehaviour,
    Disagreement,
    Divergence,
    Emit,
    FixedStrength,
    ForceToken,
    FuseLogits,
    HowStrongly,
    HybridTrace,
    LearnedBehaviour,
    LearnedGate,
    LearnedStrength,
    LeastSimilar,
    Never,
    OneBehaviour,
    Phase,
    RandomBehaviour,
    RandomPositions,
    Rerank,
    SentenceStart,
    ThinkingBehaviour,
    Uncertain,
    Where,
    Which,
    agreement,
    evaluate_arm,
    gap_recovered,
    least_similar,
    oracle_bits,
    passes,
    stream_hybrid,
    summarise,
)
from probe.pipeline.cut import warn_cut
from probe.pipeline.prompts import begin
from probe.pipeline.run.arms import make_arm, recipe
from probe.pipeline.run.candidates import closing
from probe.pipeline.run.chosen import models_of
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.inputs import check_positions
from probe.pipeline.run.learned import mechanism as learned_mechanism
from probe.pipeline.run.parts import WHAT, WHERE, WHICH, check_parts, finite, part_of
from probe.problems import Problem, take_problems
from probe.reports import trace_view
from probe.statistics import paired_permutation
from probe.steering import Mechanism


def own_arm(experiment: Experiment, where: str, which: str, strength: str, what: str, name: str) -> Arm:
    """Make an arm from the names of its parts: ``WHERE``, ``WHICH``, ``STRENGTH`` and ``WHAT`` list them.

    Args:
        experiment: the run whose taxonomy, vectors and policy are used.
        where: at which tokens to steer.
        which: with which behaviour.
        strength: how strongly.
        what: what is added or emitted.

    Raises:
        ProbeError: for an unknown name, a number that is missing or invalid, or a name that an arm cannot have.
    """
    emits: dict[str, Callable[[float], Emit]] = {
        "token": lambda _: ForceToken(),
        "rerank": lambda among: Rerank(int(among)),
        "fusion": lambda weight: FuseLogits(weight),
    }
    check_parts(where, which, strength, what, name)
    at, behaviour = _where(experiment, where), _which(experiment, which)
    kind, number = part_of("what", what, WHAT)
    mechanism = None if kind in emits else _mechanism(experiment, kind)
    emit = AddVector(mechanism) if mechanism is not None else emits[kind](number)
    return Arm(name, at, behaviour, _strength(strength, mechanism), emit)


def try_arm(
    experiment: Experiment,
    arm: Arm,
    described: str,
    *,
    n: int | None = None,
    split: str = "validation",
    max_new_tokens: int | None = None,
) -> dict:
    """Decode an arm on problems of a split and compare it with both models.

    Args:
        arm: from :func:`own_arm`.
        described: distinguishes the arm from others of the same name; an interrupted call with the same description
            resumes.
        n: the largest number of problems; None takes as many of that split as the run used.
        split: ``validation`` for choosing between arms; ``test`` only for the final measurement.
        max_new_tokens: maximum number of tokens of an answer; None takes the limit of the run.

    Returns:
        The arm's entry as in ``results.json``, with ``gap_recovered``, ``p`` against the base model, and the accuracies
        of ``base`` and ``thinking``.
    """
    stages, inputs = experiment.stages, experiment.inputs
    config = stages.config
    wanted = {split: len(getattr(inputs, split)) if n is None else n}
    taken = take_problems(inputs.problem_set, wanted, graded=(split,))
    some, models = taken.splits[split], {"base": inputs.pair.base, "thinking": inputs.pair.thinking}
    limit = max_new_tokens or inputs.max_new_tokens
    for model in models.values():
        check_positions(model, some, limit)
    begin(None, models, some[0].question, remarks=taken.remarks, progress=stages.progress)
    limits: dict[str, Any] = {
        "max_new_tokens": limit,
        "sampling": inputs.sampling,
        "batch_size": config.decoding.batch_size,
        "progress": stages.progress,
    }
    base, thinking = make_arm(experiment, "base"), make_arm(experiment, "thinking")
    told, correct, traces = {}, {}, {}
    texts: list[str] = []
    for each in (thinking, base, arm):
        other = [] if limit == inputs.max_new_tokens else [limit]
        digest = object_hash([described if each is arm else "", split, len(some), *other])[:10]
        folder = experiment.folder.path / "own" / f"{each.name}-{digest}"
        done = evaluate_arm(inputs.pair, each, some, seed=config.seed, folder=folder, **limits)
        texts = texts or done.texts  # the thinking model's
        traces[each.name] = done.traces
        correct[each.name] = inputs.graded(some, done.texts, texts)
        told[each.name] = {
            **summarise(
                correct[each.name],
                emitted=[trace.tokens for trace in done.traces],
                texts=done.texts,
                truncated=[trace.truncated for trace in done.traces],
                steered_fraction=done.steered_fraction,
                seconds=done.seconds,
            ),
            **oracle_bits(done),
            "agreement": agreement(done),
            "fitted_parameters": done.fitted_parameters,
            **passes(done),
        }
    found = told[arm.name] | {
        "name": arm.name,
        "cut": warn_cut(traces, limit, progress=stages.progress),
        "split": split,
        "gap_recovered": gap_recovered(correct[arm.name], correct["base"], correct["thinking"], seed=config.seed),
        "p": paired_permutation(correct[arm.name], correct["base"]),
        "base": told["base"]["accuracy"],
        "thinking": told["thinking"]["accuracy"],
    }
    write_json(experiment.folder.path / "own" / f"{arm.name}.json", found)
    return found


@dataclass(frozen=True)
class Answer:
    """What an arm answered to a question.

    Attributes:
        trace: the tokens, and why each was emitted.
        text: the tokens as text.
        decode: turns token ids into text.
        names: the names of the behaviours.
    """

    trace: HybridTrace
    text: str
    decode: Callable[[Sequence[int]], str] = field(repr=False, compare=False)
    names: Sequence[str] = field(repr=False, compare=False)

    def _repr_html_(self) -> str:
        return str(trace_view(self.trace, self.decode, self.names).data)


def ask(
    experiment: Experiment,
    arm: str,
    question: str,
    watch: Callable[[dict[str, list[float]]], None] | None = None,
    *,
    max_new_tokens: int | None = None,
) -> Answer:
    """Put one question to an arm of a run.

    Args:
        arm: name of an arm that is decoded token by token.
        question: the question, without a prompt template.
        watch: called after each token with what was recorded about it, one value in each list.
        max_new_tokens: maximum number of tokens of the answer; None takes the limit of the run.

    Raises:
        ProbeError: if there is no such arm.
    """
    inputs = experiment.inputs
    made = make_arm(experiment, arm)
    problem = Problem("question", question)
    models, sampling = models_of(inputs, made, recipe(arm).on_thinking)
    ((_, trace),) = stream_hybrid(
        models,
        made,
        [(problem, 0)],
        max_new_tokens=max_new_tokens or inputs.max_new_tokens,
        sampling=sampling,
        batch_size=1,
        watch=watch,
    )
    decode = inputs.pair.base.decode
    return Answer(trace, decode(trace.tokens), decode, experiment.taxonomy.names)


def _where(experiment: Experiment, said: str) -> Where:
    name, number = part_of("where", said, WHERE)
    made: dict[str, Callable[[], Where]] = {
        "disagreement": Disagreement,
        "divergence": lambda: Divergence(number),
        "uncertain": lambda: Uncertain(number),
        "sentence-start": lambda: SentenceStart(int(number)),
        "opening": lambda: SentenceStart(0, int(number)),
        "thinking": lambda: Phase(closing(experiment, "--where thinking", experiment.inputs.pair.base)),
        "answer": lambda: Phase(closing(experiment, "--where answer", experiment.inputs.pair.base), answer=True),
        "always": Always,
        "never": Never,
        "random": lambda: RandomPositions(number),
        "learned": lambda: LearnedGate(experiment.policy),
    }
    return made[name]()


def _which(experiment: Experiment, said: str) -> Which:
    name, number = part_of("which", said, WHICH)
    taxonomy, vectors = experiment.taxonomy, experiment.vectors
    coming = ComingBehaviour(vectors.reader)
    made: dict[str, Callable[[], Which]] = {
        "coming": lambda: coming,
        "single": lambda: ThinkingBehaviour(taxonomy),
        "pooled": lambda: ThinkingBehaviour(taxonomy, pooled=True),
        "learned": lambda: LearnedBehaviour(experiment.policy),
        "random": lambda: RandomBehaviour(taxonomy.n_behaviours),
        "one": lambda: OneBehaviour(int(number)),
        "least-similar": lambda: LeastSimilar(coming, least_similar(vectors.seeds[0].vectors)),
    }
    if name == "one" and not 0 <= number < taxonomy.n_behaviours:
        raise ProbeError(f"--which {said}: the taxonomy has behaviours 0 to {taxonomy.n_behaviours - 1}")
    return made[name]()


def _strength(said: str, mechanism: Mechanism | None) -> HowStrongly:
    if said == "learned":
        return FixedStrength() if mechanism is None else LearnedStrength(mechanism)
    return FixedStrength(finite(said))


def _mechanism(experiment: Experiment, name: str) -> Mechanism:
    if name == "hybrid":
        return experiment.vectors.seeds[0]
    return experiment.vectors.single if name == "single-vector" else learned_mechanism(experiment, name)
