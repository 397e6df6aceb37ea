import random
from collections.abc import Callable

import pytest

from probe.models import Model, load_model
from probe.organisms.documents import join, wander
from probe.problems import Problem, ProblemSet
from probe.problems.story.story import draw_story
from probe.traces import Traces, make_trace


@pytest.fixture
def reader(tiny_folder) -> Model:
    return load_model(tiny_folder("llama"), device="cpu")


@pytest.fixture
def story_traces() -> Callable[[Model, int], Traces]:
    """Traces written by the story grammar, as if ``model`` had emitted them."""

    def make(model: Model, n: int) -> Traces:
        rng = random.Random(0)
        stories = [draw_story(rng, 3) for _ in range(n)]
        problems = tuple(Problem(str(i), story.question(), str(story.answer)) for i, story in enumerate(stories))
        problem_set = ProblemSet("story", "numeric", {"train": problems})
        texts = [" " + join(wander(story, rng)).strip() for story in stories]
        emitted = [model.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        some = [make_trace(model, problem_set, p, ids, False) for p, ids in zip(problems, emitted, strict=True)]
        return Traces(model.name, problem_set.name, some)

    return make
