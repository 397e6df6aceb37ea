"""The table of arms: from each name to what makes the arm and the settings that its result depends on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.config import nearest, to_dict
from probe.errors import ProbeError
from probe.hybrid import (
    ARMS,
    AddVector,
    Always,
    Arm,
    ArmResult,
    FixedStrength,
    ForceToken,
    HybridTrace,
    Never,
    OneBehaviour,
    Phase,
    SentenceStart,
    arm_shards,
    control_arms,
    evaluate_arm,
    fusion_arm,
    hybrid_arm,
    oracle_free_arm,
    phased_arm,
    run_majority,
    speculative_arm,
    v1_arms,
    v2_arms,
    with_mechanism,
)
from probe.models import Model, Pair, PairSampling, Sampling
from probe.pipeline.folder import without
from probe.pipeline.run.candidates import (
    addition_arms,
    budget_arms,
    check_budget,
    check_open,
    closing,
    intervention_arms,
)
from probe.pipeline.run.chosen import chosen, models_of
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.learned import RANKS, mechanism
from probe.pipeline.run.parts import SEED
from probe.pipeline.run.written import check_latent_seek, check_prompts, latent_seek, limits, lora, prompted
from probe.problems import Problem
from probe.traces import Traces


@dataclass(frozen=True)
class ArmRecipe:
    """How an arm is made.

    Attributes:
        decoded: makes the four parts of an arm that is decoded token by token; None for any other.
        written: gives the result of an arm decoded in another way, from the folder that keeps its traces.
        options: settings of the section ``hybrid`` that the result depends on.
        section: a further section of the settings that the result depends on.
        unread: settings of that section on which it does not depend.
        shares: arms with the same value need a mechanism that the first of them learns.
        after: arms whose result it needs.
        parts: folders, below the run's, of the parts that were trained; ``steering/seed`` is the first seed's.
        draws_thinking: whether tokens are sampled as those of the thinking model; see `Arm.samples`.
        check: refuses a run on which the arm cannot be made, before any arm is decoded.
        on_thinking: whether the thinking model alone writes it, in place of the base model.
    """

    decoded: Callable[[Experiment, str], Arm] | None = None
    written: Callable[[Experiment, str, Path], ArmResult] | None = None
    options: tuple[str, ...] = ()
    section: str | None = None
    unread: tuple[str, ...] = ()
    shares: str | None = None
    after: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    draws_thinking: bool = False
    check: Callable[[Experiment, str], object] | None = None
    on_thinking: bool = False

    def samples(self, sampling: PairSampling) -> int:
        """The number of answers to each problem, if the arm is decoded token by token."""
        if self.on_thinking:
            return sampling.number(sampling.thinking)
        return sampling.number(sampling.base, *([sampling.thinking] if self.draws_thinking else []))

    def settings(self, config: RunConfig) -> dict[str, Any]:
        """Collect the settings that the result depends on."""
        options = to_dict(config.hybrid)
        return {
            "decoding": to_dict(config.decoding),
            **{option: options[option] for option in self.options},
            **({self.section: without(_section(config, self.section), *self.unread)} if self.section else {}),
        }


def _section(config: RunConfig, name: str) -> dict[str, Any]:
    return config.policy.key if name == "policy" else to_dict(getattr(config, name))


def recipe(name: str) -> ArmRecipe:
    """Find the recipe of an arm.

    Raises:
        ProbeError: if there is no such arm.
    """
    if name.startswith(SEED):
        return ArmRecipe(_seed, parts=(f"steering/seed-{name.removeprefix(SEED)}",))
    if name not in ARM_RECIPES:
        raise ProbeError(f"there is no arm {name!r}; {nearest(name, ARM_RECIPES)}")
    return ARM_RECIPES[name]


def make_arm(experiment: Experiment, name: str) -> Arm:
    """Make the arm of this name; whatever it needs is learned if it is missing.

    Raises:
        ProbeError: if there is no such arm, or an arm that is not decoded token by token.
    """
    decoded = recipe(name).decoded
    if decoded is None:
        names = [each for each, other in ARM_RECIPES.items() if other.decoded]
        raise ProbeError(f"the arm {name} is not decoded token by token; name one of {', '.join(names)}")
    return decoded(experiment, name)


def arm_result(experiment: Experiment, name: str) -> ArmResult:
    """Read the result of an arm on the test problems; the arm is run if that has not been done.

    Raises:
        ProbeError: if there is no such arm.
    """
    if name not in experiment.done:
        made, config = recipe(name), experiment.config

        def make(folder: Path, finished: bool) -> ArmResult:
            if made.written is not None:
                return made.written(experiment, name, folder)
            return _decode(experiment, name, folder, finished)

        experiment.done[name] = experiment.branch(
            f"arms/{name}", make, made.settings(config), config.seed, how=("decoding.batch_size",)
        )
    return experiment.done[name]


def make_shard(experiment: Experiment, name: str, number: int, engine: str) -> None:
    """Decode one shard of an arm that is decoded token by token, unless the folder has it.

    Args:
        name: the arm.
        number: the shard of the test problems, from 0.
        engine: who makes it, recorded beside it.
    """
    folder = experiment.folder.path / "arms" / name
    models, arm, problems, how = _decoding(experiment, name)
    arm_shards(models, arm, problems, folder=folder, **how).make(number, engine)


def _decode(experiment: Experiment, name: str, folder: Path, finished: bool) -> ArmResult:
    models, arm, problems, how = _decoding(experiment, name)
    return evaluate_arm(
        models, arm, problems, folder=folder, progress=experiment.stages.progress and not finished, **how
    )


def _decoding(experiment: Experiment, name: str) -> tuple[Pair | Model, Arm, Sequence[Problem], dict[str, Any]]:
    """What an arm is decoded with: the models, the problems and the settings."""
    arm, inputs = make_arm(experiment, name), experiment.inputs
    models, sampling = models_of(inputs, arm, recipe(name).on_thinking)
    how = {
        "max_new_tokens": inputs.max_new_tokens,
        "sampling": sampling,
        "batch_size": experiment.config.decoding.batch_size,
        "seed": experiment.config.seed,
    }
    return models, arm, inputs.test, how


def _alone(experiment: Experiment, name: str) -> Arm:  # noqa: ARG001
    """Each model alone, for single questions."""
    where = Never() if name == "base" else Always()
    return Arm(name, where, OneBehaviour(-1), FixedStrength(), ForceToken())


def _hybrid(experiment: Experiment, name: str) -> Arm:
    vectors = experiment.vectors
    return hybrid_arm(vectors.reader, vectors.seeds[0], name)


def _seed(experiment: Experiment, name: str) -> Arm:
    seeds = [str(seed) for seed in experiment.config.steering.seeds]
    seed = name.removeprefix(SEED)
    if seed not in seeds:
        raise ProbeError(f"there is no arm {name!r}: the vectors were learned with the seeds {', '.join(seeds)}")
    return hybrid_arm(experiment.vectors.reader, experiment.vectors.seeds[seeds.index(seed)], name)


def _oracle_free(experiment: Experiment, name: str) -> Arm:
    return oracle_free_arm(experiment.policy, experiment.vectors.seeds[0], name)


def _mechanism(experiment: Experiment, name: str) -> Arm:
    """The hybrid that adds another mechanism, which has the name of the arm."""
    return with_mechanism(_hybrid(experiment, "hybrid"), mechanism(experiment, name), name)


def _bias(experiment: Experiment, name: str) -> Arm:
    return Arm(name, Always(), OneBehaviour(), FixedStrength(), AddVector(mechanism(experiment, name)))


def _speculative(experiment: Experiment, name: str) -> Arm:  # noqa: ARG001
    return speculative_arm(experiment.config.hybrid.speculative_tokens)


def _fusion(experiment: Experiment, name: str) -> Arm:  # noqa: ARG001
    return fusion_arm(experiment.config.hybrid.fusion_weight)


def _control(experiment: Experiment, name: str) -> Arm:
    config, vectors = experiment.config, experiment.vectors
    arms = control_arms(
        _hybrid(experiment, "hybrid"),
        vectors.seeds[0],
        vectors.single,
        rate=arm_result(experiment, "hybrid").steered_fraction,
        seed=config.seed,
        among=config.hybrid.rerank_among,
    )
    return _named(arms, name)


def _v1(experiment: Experiment, name: str) -> Arm:
    config, vectors = experiment.config, experiment.vectors
    arms = v1_arms(
        experiment.taxonomy,
        vectors=mechanism(experiment, "v1"),
        bias=mechanism(experiment, "v1-bias"),
        learned=vectors.seeds[0],
        reader=vectors.reader,
        strengths=config.hybrid.v1_strengths,
        windows=config.hybrid.v1_windows,
        seed=config.seed,
    )
    return _named(arms, name)


def _v2(experiment: Experiment, name: str) -> Arm:
    rate = 0.0 if name == "v2" else arm_result(experiment, "v2").steered_fraction
    learned, seed = mechanism(experiment, "v2"), experiment.config.seed
    return _named(v2_arms(experiment.taxonomy, learned, rate=rate, seed=seed), name)


def _named(arms: Sequence[Arm], name: str) -> Arm:
    return next(arm for arm in arms if arm.name == name)


def _majority(experiment: Experiment, name: str, folder: Path) -> ArmResult:  # noqa: ARG001
    config, inputs, base = experiment.config, experiment.inputs, experiment.rollouts.base
    # As many answers as take the tokens that both models run for one answer of the hybrid.
    hybrid, sampling = arm_result(experiment, "hybrid").traces, inputs.sampling.base
    ratio = 2 * _mean_tokens(hybrid) / max(1 / len(base), _mean_tokens(base))
    return run_majority(
        inputs.pair.base,
        inputs.test,
        n=max(1, round(ratio)),
        sampling=Sampling(config.hybrid.majority_temperature) if sampling.greedy else sampling,
        folder=folder,
        **limits(experiment),
    )


def _mean_tokens(traces: Traces | Sequence[HybridTrace]) -> float:
    return sum(len(trace.tokens) for trace in traces) / len(traces)


def _tuned(candidates: Callable[[Experiment, str, bool], dict[str, Arm]]) -> Callable[[Experiment, str], Arm]:
    """What makes an arm of which one setting is chosen on validation problems."""

    def decoded(experiment: Experiment, name: str) -> Arm:
        if name not in experiment.chosen:
            made = recipe(name)
            arms, settings = candidates(experiment, name, made.on_thinking), made.settings(experiment.config)
            experiment.chosen[name] = chosen(experiment, arms, settings, made.on_thinking)
        return experiment.chosen[name]

    return decoded


def _phased(experiment: Experiment, name: str) -> Arm:
    opening = SentenceStart(0, experiment.config.hybrid.opening_tokens)
    if name == "thinking-opening":
        return phased_arm(opening, name)
    close = closing(experiment, name, experiment.inputs.pair.base)
    return phased_arm(Phase(close, answer=name == "base-then-thinking"), name)


def _check_phases(experiment: Experiment, name: str) -> None:
    """Refuse phases of which one model would write everything."""
    if name == "base-then-thinking":
        check_open(experiment, name, experiment.inputs.pair.base)
    closing(experiment, name, experiment.inputs.pair.base)


_VECTORS = ("steering/seed",)
_CONTROL = ArmRecipe(_control, after=("hybrid",), parts=_VECTORS)


def _on_both(
    name: str,
    candidates: Callable[[Experiment, str, bool], dict[str, Arm]],
    *options: str,
    check: Callable[[Experiment, str, bool], object] | None = None,
) -> dict[str, ArmRecipe]:
    """An arm of the base model, and the same of the thinking model."""

    def checked(experiment: Experiment, arm: str) -> None:
        if check is not None:
            check(experiment, arm, recipe(arm).on_thinking)

    made = ArmRecipe(_tuned(candidates), options=("tuned_on", *options), check=checked)
    return {name: made, f"{name}-on-thinking": replace(made, on_thinking=True)}


_LATENT_SEEK = ArmRecipe(written=latent_seek, section="latent_seek", check=check_latent_seek)
_V1 = ArmRecipe(
    _v1, options=("v1_strengths", "v1_windows"), shares="v1", parts=("mechanisms/v1/v1", "mechanisms/v1/v1-bias")
)
_V2 = ArmRecipe(_v2, shares="v2", parts=("mechanisms/v2/v2",))

ARM_RECIPES: Mapping[str, ArmRecipe] = {
    "base": ArmRecipe(_alone, draws_thinking=True),
    "thinking": ArmRecipe(_alone, draws_thinking=True),
    "hybrid": ArmRecipe(_hybrid, parts=_VECTORS),
    "oracle-free": ArmRecipe(_oracle_free, section="policy", parts=(*_VECTORS, "policy")),
    "single-vector": ArmRecipe(_control, after=("hybrid",), parts=("steering/single",)),
    **dict.fromkeys(("random-category", "min-cosine", "random-vectors", "random-positions"), _CONTROL),
    "rerank-only": ArmRecipe(_control, after=("hybrid",), options=("rerank_among",)),
    "force-token": ArmRecipe(_control, after=("hybrid",), draws_thinking=True),
    "mean-difference": ArmRecipe(_mechanism),
    "decoder-rows": ArmRecipe(_mechanism),
    "rank-1": ArmRecipe(_mechanism, parts=("mechanisms/rank-1/rank-1",)),
    "bias": ArmRecipe(_bias, parts=("mechanisms/bias/bias",)),
    "speculative": ArmRecipe(_speculative, options=("speculative_tokens",), draws_thinking=True),
    "fusion": ArmRecipe(_fusion, options=("fusion_weight",)),
    **{name: ArmRecipe(written=lora, section="distil", parts=(f"adapters/{name}",)) for name in RANKS},
    "majority": ArmRecipe(written=_majority, options=("majority_temperature",)),
    "few-shot": ArmRecipe(written=prompted, options=("shots",), check=check_prompts),
    "handbook": ArmRecipe(written=prompted, check=check_prompts),
    **_on_both("budget", budget_arms, "budgets", "waits", "endings", check=check_budget),
    **_on_both("intervention", intervention_arms, "instructions", check=intervention_arms),
    **_on_both("addition", addition_arms, "additions", "addition_texts"),
    **dict.fromkeys(
        ("thinking-then-base", "base-then-thinking"), ArmRecipe(_phased, draws_thinking=True, check=_check_phases)
    ),
    "thinking-opening": ArmRecipe(_phased, options=("opening_tokens",), draws_thinking=True),
    "latent-seek": _LATENT_SEEK,
    "latent-seek-grade": replace(_LATENT_SEEK, unread=("reward", "verdict_tokens")),
    **{name: _V1 for name in ARMS if name.startswith("v1")},
    "v1-bias-only": replace(_V1, parts=("mechanisms/v1/v1-bias",)),
    "v1-learned-vectors": replace(_V1, parts=_VECTORS),
    "v1-rerank": replace(_V1, parts=()),
    **{name: replace(_V2, after=("v2",)) for name in ARMS if name.startswith("v2-")},
    "v2": _V2,
}
"""Every arm that can be named. A further seed of the hybrid is named ``hybrid-seed-SEED``."""
