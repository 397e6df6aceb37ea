"""What ``probe circuits`` and ``probe diff`` share: a pair's problems, the behaviour that is named, a folder's key."""

from pathlib import Path
from typing import Any

from probe.config import to_dict
from probe.errors import ProbeError
from probe.models import Model, Pair
from probe.problems import ProblemSet, load_problems
from probe.taxonomy import Behaviour, Taxonomy, find_behaviour


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
    taxonomy = Taxonomy.load(Path(run) / "taxonomy")
    if taxonomy.model_name != thinking.name:
        raise ProbeError(f"the taxonomy of {run} was fitted on {taxonomy.model_name}, not on {thinking.name}")
    return find_behaviour(name, problem_set=problem_set, taxonomy=taxonomy, model=thinking)


def problems_of(pair: Pair) -> ProblemSet:
    """Load the problem set that a pair names.

    Raises:
        ProbeError: if it names none.
    """
    if pair.config.problems is None:
        raise ProbeError(f"the pair {pair.config.name} names no problems: write them into its pair.yaml")
    return load_problems(pair.config.problems, grader=pair.config.grader)


def key_settings(config: Any) -> dict[str, Any]:
    """The settings that a folder is recognised by; without a ``run``, as in versions before that setting existed."""
    settings = to_dict(config)
    if settings["run"] is None:
        del settings["run"]
    return settings
