"""``probe run`` from beginning to end: pair and problems → traces → sentence activations → taxonomy → vectors → arms → report.

Each stage is a function of the typed objects before it, stored in its own folder of the run; called again, a run does
only what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe._config import to_dict
from probe._errors import ProbeError
from probe._files import write_json
from probe.activations import SentenceActivations, harvest
from probe.hybrid import ArmResult, control_arms, evaluate_arm, hybrid_arm
from probe.models import Pair, PairConfig, find_pair, load_pair
from probe.pipeline.config import RunConfig
from probe.pipeline.folder import RunFolder
from probe.pipeline.results import behaviours, results, shown
from probe.problems import Problem, ProblemSet, load_problems
from probe.steering import BehaviourVectors, GateBatch, collect_gates, learn_vectors, steering_layer
from probe.taxonomy import Taxonomy, default_site, fit_taxonomy
from probe.traces import Traces, generate_traces


@dataclass(frozen=True)
class Inputs:
    """What a run works on: the pair and the problems of each split."""

    pair: Pair
    problem_set: ProblemSet
    train: Sequence[Problem]
    validation: Sequence[Problem]
    test: Sequence[Problem]


@dataclass(frozen=True)
class Rollouts:
    """Traces of the thinking model on every split, and of the base model on the test split."""

    train: Traces
    validation: Traces
    base: Traces
    thinking: Traces
    seconds: dict[str, float]


def prepare(config: RunConfig) -> Inputs:
    """Find everything a run needs and refuse what cannot work, before any model runs.

    Raises:
        ProbeError: for a pair, a folder, a problem set or a device that is not there, tokenizers that differ, or too
            few problems.
    """
    if config.pair is not None:
        pair_config = find_pair(config.pair)
    else:
        assert config.base is not None and config.thinking is not None
        pair_config = PairConfig("own", config.base, config.thinking)
    name = config.problems or pair_config.problems
    if name is None:
        raise ProbeError("no problems given: name a problem set or a JSONL file (--problems)")
    problem_set = load_problems(name)
    splits = [problem_set.take(split, getattr(config.sizes, split)) for split in ("train", "validation", "test")]
    return Inputs(load_pair(pair_config, device=config.device, dtype=config.dtype), problem_set, *splits)


def run(config: RunConfig, out: Path, *, progress: bool = False) -> dict:
    """Run the whole experiment.

    Args:
        config: see :class:`~probe.pipeline.config.RunConfig`.
        out: the run's folder. If it holds a run with the same settings, that run goes on.
        progress: show bars.

    Returns:
        What ``results.json`` holds. ``report.html`` lies beside it.

    Raises:
        ProbeError: for anything the user can mend; before any model runs.
    """
    from probe.reports import write_report

    inputs = prepare(config)
    settings = {"config": to_dict(config), "problems": inputs.problem_set.hash, "weights": fingerprint(inputs.pair)}
    folder = RunFolder(out, settings)
    layer = steering_layer(inputs.pair.base, config.steering.layer)
    site = config.taxonomy.site or default_site(inputs.pair.thinking)

    rollouts = folder.stage(
        "traces", lambda at: make_rollouts(inputs, config, at, progress), lambda at: make_rollouts(inputs, config, at, False),
        to_dict(config.decoding), config.seed,
    )  # fmt: skip
    acts = folder.stage(
        "activations", lambda at: make_activations(inputs.pair, rollouts, site, at, progress), load_activations, {"site": site}, 0
    )
    taxonomy = folder.stage(
        "taxonomy", lambda at: make_taxonomy(acts, inputs, config, at, progress), Taxonomy.load, to_dict(config.taxonomy), config.seed
    )
    learned, single = folder.stage(
        "steering", lambda at: make_vectors(inputs, rollouts, taxonomy, layer, config, at, progress),
        lambda at: load_vectors(config, at), to_dict(config.steering), config.seed,
    )  # fmt: skip
    arms = folder.stage(
        "arms", lambda at: make_arms(inputs, taxonomy, learned, single, layer, config, at, progress),
        lambda at: make_arms(inputs, taxonomy, learned, single, layer, config, at, False), to_dict(config.decoding), config.seed,
    )  # fmt: skip
    found = results(config, inputs, rollouts, taxonomy, learned, single, arms, layer)
    write_json(out / "behaviours.json", behaviours(taxonomy, learned[0], arms["hybrid"], acts[1], inputs.problem_set))
    write_json(out / "shown.json", shown(inputs, rollouts, arms, config.shown))
    write_json(out / "results.json", found)
    write_report(out)
    return found


def fingerprint(pair: Pair) -> dict[str, str]:
    """What tells one pair's weights from another's without reading them whole: revision, or names and sizes of the files."""
    found = {}
    for role, model in (("base", pair.base), ("thinking", pair.thinking)):
        files = sorted(Path(model.hf.config._name_or_path).glob("*.safetensors"))
        found[role] = ", ".join(f"{file.name} {file.stat().st_size}" for file in files) or str(model.config.revision)
    return found


def make_rollouts(inputs: Inputs, config: RunConfig, folder: Path, progress: bool) -> Rollouts:
    """Roll out the thinking model on all splits and the base model on the test split."""
    import time

    pair, traces, seconds = inputs.pair, {}, {}
    jobs = {
        "train": (pair.thinking, inputs.train),
        "validation": (pair.thinking, inputs.validation),
        "base": (pair.base, inputs.test),
        "thinking": (pair.thinking, inputs.test),
    }
    for name, (model, problems) in jobs.items():
        began = time.perf_counter()
        traces[name] = generate_traces(
            model, inputs.problem_set, problems, max_new_tokens=new_tokens(inputs, config), think_close=pair.config.think_close,
            batch_size=config.decoding.batch_size, folder=folder / name, progress=progress,
        )  # fmt: skip
        seconds[name] = time.perf_counter() - began
    return Rollouts(**traces, seconds=seconds)


def new_tokens(inputs: Inputs, config: RunConfig) -> int:
    """The limit of emitted tokens."""
    return config.decoding.max_new_tokens or inputs.pair.config.max_new_tokens


def make_activations(
    pair: Pair, rollouts: Rollouts, site: str, folder: Path, progress: bool
) -> tuple[SentenceActivations, SentenceActivations]:
    """Mean residual stream of every sentence of the thinking model, train and validation."""
    train, validation = (
        harvest(pair.thinking, traces, [site], folder=folder / name, progress=progress)
        for name, traces in (("train", rollouts.train), ("validation", rollouts.validation))
    )
    return train, validation


def load_activations(folder: Path) -> tuple[SentenceActivations, SentenceActivations]:
    """Read what :func:`make_activations` wrote."""
    return SentenceActivations.load(folder / "train"), SentenceActivations.load(folder / "validation")


def make_taxonomy(
    acts: tuple[SentenceActivations, SentenceActivations], inputs: Inputs, config: RunConfig, folder: Path, progress: bool
) -> Taxonomy:
    """Find the behaviours."""
    taxonomy = fit_taxonomy(
        *acts, config.taxonomy, sentence_type=inputs.problem_set.sentence_type, folder=folder, progress=progress
    )
    taxonomy.save(folder)
    return taxonomy


def make_vectors(
    inputs: Inputs, rollouts: Rollouts, taxonomy: Taxonomy, layer: int, config: RunConfig, folder: Path, progress: bool
) -> tuple[list[BehaviourVectors], BehaviourVectors]:
    """Learn the vectors with every seed, and the single vector with the first; each is kept as soon as it is learned."""
    gates: list[list[GateBatch]] = []

    def learn(name: str, n_behaviours: int, seed: int) -> BehaviourVectors:
        if not (folder / name / "history.json").exists():
            if not gates:
                gates.extend(
                    list(collect_gates(inputs.pair, taxonomy, layer, list(traces), [p.question for p in problems]))
                    for traces, problems in ((rollouts.train, inputs.train), (rollouts.validation, inputs.validation))
                )
            if not any(bool(batch.gate.any()) for batch in gates[0]):
                raise ProbeError("base and thinking model never disagree on the training traces: there is nothing to steer")
            made = learn_vectors(inputs.pair.base, *gates, n_behaviours, layer, config.steering, seed=seed, progress=progress)
            made.vectors.save(folder / name)
            write_json(folder / name / "history.json", made.history)
        return BehaviourVectors.load(folder / name).to(inputs.pair.base.device)

    learned = [learn(f"seed-{seed}", taxonomy.n_behaviours, seed) for seed in config.steering.seeds]
    return learned, learn("single", 1, config.steering.seeds[0])


def load_vectors(config: RunConfig, folder: Path) -> tuple[list[BehaviourVectors], BehaviourVectors]:
    """Read what :func:`make_vectors` wrote."""
    return [BehaviourVectors.load(folder / f"seed-{seed}") for seed in config.steering.seeds], BehaviourVectors.load(folder / "single")


def make_arms(
    inputs: Inputs, taxonomy: Taxonomy, learned: list[BehaviourVectors], single: BehaviourVectors, layer: int, config: RunConfig,
    folder: Path, progress: bool,
) -> dict[str, ArmResult]:  # fmt: skip
    """Decode every arm on the test problems: the hybrid with each seed's vectors, and the controls with the first seed's."""

    def evaluate(arm) -> ArmResult:
        return evaluate_arm(
            inputs.pair, arm, inputs.problem_set, inputs.test, steering_layer=layer, taxonomy_layer=taxonomy.layer,
            new_tokens=new_tokens(inputs, config), batch_size=config.decoding.batch_size, seed=config.seed,
            folder=folder / arm.name, progress=progress,
        )  # fmt: skip

    first, *others = learned
    hybrid = hybrid_arm(taxonomy, first)
    done = {"hybrid": evaluate(hybrid)}
    for arm in control_arms(hybrid, first, single, rate=done["hybrid"].steered_fraction, seed=config.seed):
        done[arm.name] = evaluate(arm)
    for seed, vectors in zip(config.steering.seeds[1:], others, strict=True):
        done[f"hybrid-seed-{seed}"] = evaluate(hybrid_arm(taxonomy, vectors, f"hybrid-seed-{seed}"))
    return done
