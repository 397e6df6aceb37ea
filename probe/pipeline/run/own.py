"""User-made arms on a finished run, made of four named parts; and single questions to any arm."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.config import from_dict, nearest, read_as
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
    grade_answers,
    least_similar,
    oracle_bits,
    stream_hybrid,
    summarise,
)
from probe.pipeline.run.arms import make_arm
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.learned import mechanism as learned_mechanism
from probe.problems import Problem
from probe.statistics import paired_permutation
from probe.steering import Mechanism

WHERE = (
    "disagreement",
    "divergence:BITS",
    "uncertain:BITS",
    "sentence-start:TOKENS",
    "always",
    "never",
    "random:RATE",
    "learned",
)
"""Names of where to steer; some are followed by a colon and a number."""
WHICH = ("coming", "single", "pooled", "learned", "random", "one:BEHAVIOUR", "least-similar")
"""Names of which behaviour to steer with."""
STRENGTH = ("learned", "a number")
"""How strongly to steer."""
WHAT = (
    "hybrid",
    "single-vector",
    "mean-difference",
    "decoder-rows",
    "rank-1",
    "v1",
    "v2",
    "token",
    "rerank:AMONG",
    "fusion:WEIGHT",
)
"""Names of what is added or emitted; some are followed by a colon and a number."""


def open_run(out: str | Path, arms: tuple[str, ...] = ()) -> RunConfig:
    """Read the settings of a run from its folder.

    Args:
        out: the folder of the run.
        arms: arms to add to the settings.

    Raises:
        ProbeError: if the folder holds no run.
    """
    written = Path(out) / "config.json"
    if not written.exists():
        raise ProbeError(f"{out} holds no run; make one with: probe run --pair tiny-rl --out {out}")
    settings = read_as(dict[str, Any], written)
    if isinstance(settings.get("steering"), dict) and "epochs" in settings["steering"]:
        raise ProbeError(
            f"{out} was made by a version that trained for a number of epochs: its results and report can be read, but "
            "nothing can be added; run it again in another folder"
        )
    config = from_dict(RunConfig, settings, str(written))
    return replace(config, hybrid=replace(config.hybrid, arms=(*config.hybrid.arms, *arms)))


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
    if name in ("base", "thinking") or not re.fullmatch(r"\w[\w.-]*", name):
        raise ProbeError(f"--name {name}: use letters, digits, '.', '-' and '_', and neither 'base' nor 'thinking'")
    kind, number = _split("what", what, (*WHAT,), {"rerank": 5, "fusion": 0.5})
    if kind == "rerank":
        _whole("what", what, number)
    mechanism = None if kind in emits else _mechanism(experiment, kind)
    emit = AddVector(mechanism) if mechanism is not None else emits[kind](number)
    return Arm(name, _where(experiment, where), _which(experiment, which), _strength(strength, mechanism), emit)


def try_arm(
    experiment: Experiment, arm: Arm, described: str, *, n: int | None = None, split: str = "validation"
) -> dict:
    """Decode an arm on problems of a split and compare it with both models.

    Args:
        arm: from :func:`own_arm`.
        described: distinguishes the arm from others of the same name; an interrupted call with the same description
            resumes.
        n: number of problems; None takes as many as the run used of that split.
        split: ``validation`` for choosing between arms; ``test`` only for the final measurement.

    Returns:
        The arm's entry as in ``results.json``, with ``gap_recovered``, ``p`` against the base model, and the accuracies
        of ``base`` and ``thinking``.
    """
    stages, inputs = experiment.stages, experiment.inputs
    config = stages.config
    some = inputs.problem_set.take(split, len(getattr(inputs, split)) if n is None else n)
    limits: dict[str, Any] = {
        "max_new_tokens": inputs.max_new_tokens,
        "batch_size": config.decoding.batch_size,
        "progress": stages.progress,
    }
    base, thinking = make_arm(experiment, "base"), make_arm(experiment, "thinking")
    told, correct = {}, {}
    for each in (base, thinking, arm):
        digest = object_hash([described if each is arm else "", split, len(some)])[:10]
        folder = experiment.folder.path / "own" / f"{each.name}-{digest}"
        done = evaluate_arm(inputs.pair, each, some, seed=config.seed, folder=folder, **limits)
        correct[each.name] = grade_answers(inputs.problem_set, some, done.texts, inputs.pair.config.think_close)
        told[each.name] = {
            **summarise(
                correct[each.name],
                lengths=[len(trace.tokens) for trace in done.traces],
                truncated=[trace.truncated for trace in done.traces],
                steered_fraction=done.steered_fraction,
                seconds=done.seconds,
            ),
            **oracle_bits(done),
            "agreement": agreement(done),
            "fitted_parameters": done.fitted_parameters,
        }
    found = told[arm.name] | {
        "name": arm.name,
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
    """

    trace: HybridTrace
    text: str


def ask(
    experiment: Experiment, arm: str, question: str, watch: Callable[[dict[str, list[float]]], None] | None = None
) -> Answer:
    """Put one question to an arm of a run.

    Args:
        arm: name of an arm that is decoded token by token.
        question: the question, without a prompt template.
        watch: called after each token with what was recorded about it, one value in each list.

    Raises:
        ProbeError: if there is no such arm.
    """
    inputs = experiment.inputs
    made = make_arm(experiment, arm)
    problem = Problem("question", question, "")
    models = inputs.pair if made.asks else inputs.pair.base
    ((_, trace),) = stream_hybrid(
        models, made, [problem], max_new_tokens=inputs.max_new_tokens, batch_size=1, watch=watch
    )
    return Answer(trace, inputs.pair.base.decode(trace.tokens))


def experiment_at(out: str | Path, *, progress: bool = False) -> Experiment:
    """Open a finished run from its folder.

    Raises:
        ProbeError: if the folder holds no run.
    """
    return Experiment.open(open_run(out), out, progress=progress)


def _split(part: str, said: str, known: tuple[str, ...], defaults: dict[str, float] | None = None) -> tuple[str, float]:
    name, _, number = said.partition(":")
    names = {each.partition(":")[0]: ":" in each for each in known}
    if name not in names:
        raise ProbeError(f"--{part} {said}: there is no {name!r}; {nearest(name, names)} (of: {', '.join(known)})")
    if not number and (defaults or {}).get(name) is not None:
        return name, (defaults or {})[name]
    if names[name] != bool(number):
        raise ProbeError(f"--{part} {said}: write it as one of {', '.join(known)}")
    try:
        value = float(number or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProbeError(f"--{part} {said}: {number!r} is not a number")
    return name, value


def _whole(part: str, said: str, number: float) -> None:
    if number < 1 or not number.is_integer():
        raise ProbeError(f"--{part} {said}: write a whole number of at least 1 after the colon")


def _where(experiment: Experiment, said: str) -> Where:
    name, number = _split("where", said, WHERE, {"sentence-start": 1})
    if name == "random" and not 0 <= number <= 1:
        raise ProbeError(f"--where {said}: a rate is from 0 to 1")
    if name == "sentence-start":
        _whole("where", said, number)
    made: dict[str, Callable[[], Where]] = {
        "disagreement": Disagreement,
        "divergence": lambda: Divergence(number),
        "uncertain": lambda: Uncertain(number),
        "sentence-start": lambda: SentenceStart(int(number)),
        "always": Always,
        "never": Never,
        "random": lambda: RandomPositions(number),
        "learned": lambda: LearnedGate(experiment.policy),
    }
    return made[name]()


def _which(experiment: Experiment, said: str) -> Which:
    name, number = _split("which", said, WHICH)
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
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProbeError(f"--strength {said}: write 'learned', or a number")
    return FixedStrength(value)


def _mechanism(experiment: Experiment, name: str) -> Mechanism:
    if name == "hybrid":
        return experiment.vectors.seeds[0]
    return experiment.vectors.single if name == "single-vector" else learned_mechanism(experiment, name)
