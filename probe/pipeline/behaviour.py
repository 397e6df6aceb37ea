"""What ``probe circuits`` and ``probe diff`` share: a pair's problems, the behaviour that is named, their folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.config import to_dict
from probe.errors import ProbeError
from probe.models import GREEDY, Model, Pair, content_hash
from probe.pipeline.folder import RunFolder
from probe.pipeline.imported import ImportedSplits, check_reader, imported_splits
from probe.pipeline.run.inputs import chosen_problems, prompts_hash, weights_hash
from probe.problems import ProblemSet, Taken, take_problems
from probe.taxonomy import Behaviour, Taxonomy, find_behaviour
from probe.traces import Traces, generate_traces


def named_behaviour(name: str, problem_set: ProblemSet, *, run: str | None, thinking: Model) -> Behaviour:
    """The behaviour that a name stands for.

    Args:
        name: a sentence type, a counter as ``SCHEME:NAME``, or with ``run`` the number or label of a category.
        problem_set: whose sentence types may be named.
        run: folder of a run whose taxonomy may be named; None for none.
        thinking: the thinking model, which the taxonomy must have been fitted on.

    Raises:
        ProbeError: if nothing has that name, or the run's taxonomy was fitted on another model.
    """
    if run is None:
        return find_behaviour(name, problem_set=problem_set)
    taxonomy = Taxonomy.load(Path(run).expanduser() / "taxonomy")
    if taxonomy.model_name != thinking.name:
        raise ProbeError(f"the taxonomy of {run} was fitted on {taxonomy.model_name}, not on {thinking.name}")
    return find_behaviour(name, problem_set=problem_set, taxonomy=taxonomy, model=thinking)


def problems_of(pair: Pair, wanted: Mapping[str, int], traces: str | None) -> tuple[Taken, ImportedSplits | None]:
    """Load the problem set that a pair names, and take problems of it.

    Args:
        pair: the pair.
        wanted: the largest number of problems of each split that is needed.
        traces: folder of imported traces; only train problems that have a trace are then taken.

    Returns:
        The problems, and the imported traces if there are any.

    Raises:
        ProbeError: if the pair names no problem set, a split has no problems, or the traces do not fit this pair.
    """
    if traces is not None:
        imported = imported_splits(traces, None, None, pair.config, needed=list(wanted))
        check_reader(imported.folder, pair.thinking)
        some = imported.take("train", wanted["train"])
        taken = take_problems(
            imported.problem_set, {name: n for name, n in wanted.items() if name != "train"} or wanted
        )
        problem_set = replace(taken.problem_set, splits={**taken.problem_set.splits, "train": some})
        return Taken(problem_set, {**taken.splits, "train": some}, taken.remarks), imported
    if pair.config.problems is None:
        raise ProbeError(f"the pair {pair.config.name} names no problems: write them into its pair.yaml")
    return chosen_problems(None, None, pair.config, wanted), None


def traces_of(
    config: Any, pair: Pair, model: Model, taken: Taken, imported: ImportedSplits | None, out: Path, *, progress: bool
) -> Traces:
    """One trace of each train problem: imported, or written by a model of the pair.

    Args:
        config: settings of ``probe circuits`` or ``probe diff``.
        model: the model that writes; the thinking model is sampled as its ``generation_config.json`` says.
        taken, imported: from :func:`problems_of`.
        out: the folder of the results.
    """
    train = taken.splits["train"]
    if imported is not None:
        found = imported.traces("train", train, out / "traces")
        ids = found.column("problem_id")
        return found.only([ids.index(problem.id) for problem in train])
    return generate_traces(
        model,
        taken.problem_set,
        train,
        max_new_tokens=limit_of(config, pair),
        sampling=model.own_sampling if model is pair.thinking else GREEDY,
        seed=config.seed,
        folder=out / "traces",
        progress=progress,
    )


def limit_of(config: Any, pair: Pair) -> int:
    """The maximum number of tokens of an answer: the limit of the settings, or else the limit of the pair.

    Args:
        config: settings of ``probe circuits`` or ``probe diff``.
    """
    return config.max_new_tokens or pair.config.max_new_tokens


def behaviour_folder(
    kind: str, config: Any, pair: Pair, problem_set: ProblemSet, imported: ImportedSplits | None, out: Path
) -> RunFolder:
    """The folder of ``probe circuits`` or ``probe diff``, which is checked and not yet written.

    Only traces are kept there, which know themselves whose they are; everything else is computed again.

    Args:
        kind: ``circuits`` or ``diff``.
        config: its settings.
        imported: the imported traces, if there are any.

    Raises:
        ProbeError: if it holds results of other settings or inputs, or something else.
    """
    settings = {name: value for name, value in to_dict(config).items() if name not in _NOT_IN_KEY}
    if "series" in settings:
        settings["series"] = [each.partition("=")[0] for each in settings["series"]]
    hashes = {
        "prompts": prompts_hash(pair),
        "problems": problem_set.hash,
        "base": weights_hash(pair.base),
        "thinking": weights_hash(pair.thinking),
        **({} if imported is None else {"traces": imported.hash}),
        "taxonomy": None if config.run is None else content_hash(Taxonomy.load(Path(config.run) / "taxonomy")),
    }

    return RunFolder(out, {kind: settings, **hashes}, result="results.json")


_NOT_IN_KEY = ("device", "memory", "pair", "run", "traces")
