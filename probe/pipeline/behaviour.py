"""The behaviour that an option names, from the problem set, a counter or the taxonomy of a run."""

from pathlib import Path

from probe.errors import ProbeError
from probe.models import Model
from probe.problems import ProblemSet
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
