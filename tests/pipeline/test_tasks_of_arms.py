"""The tasks of arms: what arms share is learned by one that needs no other arm."""

from functools import partial
from typing import cast

from hypothesis import given, strategies as st

from probe.models import PairSampling
from probe.pipeline.run.arms import ARM_RECIPES, recipe
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.inputs import Inputs
from probe.pipeline.run.stages import Stages
from probe.pipeline.run.tasks import arm_tasks

DECODED = [name for name, made in ARM_RECIPES.items() if made.decoded]


def experiment() -> Experiment:
    """An experiment of which only the number of test problems and the sampling are known."""
    made, stages, inputs = object.__new__(Experiment), object.__new__(Stages), object.__new__(Inputs)
    vars(inputs).update(test=range(300), sampling=PairSampling())
    vars(stages).update(inputs=inputs)
    vars(made).update(stages=stages)
    return made


@given(st.lists(st.sampled_from(DECODED), unique=True, min_size=1, max_size=8).map(tuple))
def test_what_arms_share_is_learned_by_one_that_needs_no_other(names):
    tasks = {task.name: task for task in arm_tasks(experiment(), names)}
    for name in names:
        group = [each for each in names if (recipe(each).shares or each) == (recipe(name).shares or name)]
        learned = cast("partial[None]", tasks[f"what {recipe(name).shares or name} needs"].do).keywords["name"]
        assert learned in group
        assert not recipe(learned).after or all(recipe(each).after for each in group)
        before = {f"{arm}, shard {number}" for arm in recipe(name).after if arm in names for number in (0, 1)}
        assert before <= {*tasks[f"{name}, shard 0"].after} <= {*tasks}
