"""What commands on a behaviour share: the problems, the behaviour that is named, and the traces."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from probe.errors import ProbeError
from probe.models import GREEDY, Model, PairConfig, Sampling
from probe.pipeline.checks import check_behaviour
from probe.pipeline.imported import ImportedSplits, check_reader, imported_splits
from probe.pipeline.run.inputs import chosen_problems
from probe.problems import ProblemSet, Taken, take_problems
from probe.taxonomy import Behaviour, Taxonomy, find_behaviour
from probe.traces import Traces, generate_traces


def named_behaviour(
    name: str | None,
    problem_set: ProblemSet,
    *,
    run: str | None = None,
    sentence: str | None = None,
    thinking: Model | None = None,
) -> Behaviour:
    """The behaviour that the settings of a command name.

    Args:
        name: a sentence type, a counter as ``SCHEME:NAME``, or with ``run`` the number or label of a category.
        problem_set: whose sentence types may be named.
        run: folder of a run or a discovery whose taxonomy may be named; None for none.
        sentence: a regular expression, in place of a name.
        thinking: the thinking model, which the taxonomy must have been fitted on; needed only with ``run``.

    Raises:
        ProbeError: if nothing has that name, or the taxonomy was fitted on another model.
    """
    check_behaviour(name, sentence)
    if sentence is not None:
        return Behaviour.of_pattern(sentence)
    assert name is not None
    if run is None:
        return find_behaviour(name, problem_set=problem_set)
    assert thinking is not None
    taxonomy = taxonomy_in(run)
    if taxonomy.model_name != thinking.name:
        raise ProbeError(f"the taxonomy of {run} was fitted on {taxonomy.model_name}, not on {thinking.name}")
    return find_behaviour(name, problem_set=problem_set, taxonomy=taxonomy, model=thinking)


def taxonomy_in(run: str) -> Taxonomy:
    """The taxonomy of a run or a discovery."""
    return Taxonomy.load(Path(run).expanduser() / "taxonomy")


def problems_of(
    pair: PairConfig,
    reader: Model,
    wanted: Mapping[str, int],
    *,
    problems: str | None = None,
    grader: str | None = None,
    traces: str | None = None,
) -> tuple[Taken, ImportedSplits | None]:
    """Take problems of the set that the settings or the pair name.

    Args:
        pair: the pair, which may name a problem set.
        reader: the model that reads imported traces.
        wanted: the largest number of problems of each split that is needed.
        problems, grader: the problem set and grader that the settings name; None for those of the pair.
        traces: folder of imported traces; only train problems that have a trace are then taken.

    Returns:
        The problems, and the imported traces if there are any.

    Raises:
        ProbeError: if no problem set is named, a split has no problems, or the traces do not fit the model.
    """
    if traces is None:
        return chosen_problems(problems, grader, pair, wanted), None
    imported = imported_splits(traces, problems, grader, pair, needed=list(wanted))
    check_reader(imported.folder, reader)
    some = imported.take("train", wanted["train"])
    others = {name: n for name, n in wanted.items() if name != "train"}
    taken = take_problems(imported.problem_set, others or wanted)
    problem_set = replace(taken.problem_set, splits={**taken.problem_set.splits, "train": some})
    return Taken(problem_set, {**taken.splits, "train": some}, taken.remarks), imported


def traces_of(
    model: Model,
    taken: Taken,
    imported: ImportedSplits | None,
    out: Path,
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    progress: bool = False,
) -> Traces:
    """One trace of each train problem: imported, or written by a model.

    Args:
        model: the model that writes.
        taken, imported: from :func:`problems_of`.
        out: the folder of the results; an interrupted call resumes from it.
        max_new_tokens: the largest number of tokens of an answer.
        sampling: how the model is sampled; the thinking model as its ``generation_config.json`` says.
        seed: the seed of the sampling.
        progress: show a progress bar.
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
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        folder=out / "traces",
        progress=progress,
    )
