"""The tasks of arms: what arms share is learned by one that needs no other arm."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, strategies as st

from probe.models import PairSampling
from probe.pipeline.run.arms import ARM_RECIPES, recipe
from probe.pipeline.run.tasks import arm_tasks

DECODED = [name for name, made in ARM_RECIPES.items() if made.decoded]


@given(st.lists(st.sampled_from(DECODED), unique=True, min_size=1).map(tuple))
def test_what_arms_share_is_learned_by_one_that_needs_no_other(names):
    inputs: Any = SimpleNamespace(test=range(300), sampling=PairSampling())
    tasks = {task.name: task for task in arm_tasks(cast("Any", SimpleNamespace(inputs=inputs)), names)}
    for name in names:
        group = [each for each in names if (recipe(each).shares or each) == (recipe(name).shares or name)]
        learned = cast("partial[None]", tasks[f"what {recipe(name).shares or name} needs"].do).keywords["name"]
        assert learned in group
        assert not recipe(learned).after or all(recipe(each).after for each in group)
        before = {f"{arm}, shard {number}" for arm in recipe(name).after if arm in names for number in (0, 1)}
        assert before <= {*tasks[f"{name}, shard 0"].after} <= {*tasks}
