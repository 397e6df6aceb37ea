"""Harvesting one site at mid depth, pooled by sentence, against a lower bound and against other libraries.

The lower bound ("limit") is a plain forward pass of the model cut off above the site, on prepared batches. The other
libraries return the raw states of the same tokens. Throughput counts no padding; SAELens cuts its text into contexts of
one length, so it has none. The time of ``harvest`` includes the short pass that estimates the usual norm of an
activation. That cost does not grow with the text, so it is a large part of the total with ``--quick``.
``python -m benchmarks.harvest [--quick]``
"""

import copy
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from datasets import Dataset
from jaxtyping import Float, Int
from sae_lens.load_model import HookedProxyLM
from sae_lens.training.activations_store import ActivationsStore
from torch import Tensor, nn

from benchmarks.table import Row, medians, report
from benchmarks.workload import models, padded, story_traces, twin
from probe.activations import harvest
from probe.models import Model
from probe.traces import Traces

#: For each model: number of traces, rollouts joined in each, and tokens a batch (limited by the cache of everything).
SIZES = {"tiny-base": (256, 1, 8192), "smollm2-135m": (16, 2, 2048)}
QUICK = {"tiny-base": (64, 1, 4096), "smollm2-135m": (4, 1, 1024)}
GOALS = {"limit": 0.9, "TransformerLens, cache of everything": 3.0}

# It warns that so little text is no training run.
warnings.filterwarnings("ignore", category=UserWarning, module="sae_lens")

Batch = tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]


def rows_of(model: Model, traces: Traces) -> list[list[int]]:
    """The token ids of prompt and trace, for each trace."""
    start = model.config.prompt != "chat"
    prompts = [model.tokenizer(trace.prompt, add_special_tokens=start).input_ids for trace in traces]
    return [[*prompt, *trace.tokens] for prompt, trace in zip(prompts, traces, strict=True)]


def batches_of(model: Model, rows: list[list[int]], budget: int) -> list[Batch]:
    """Batches of rows of similar length, right padded, of at most ``budget`` tokens, as ``harvest`` makes them."""
    groups: list[list[list[int]]] = [[]]
    for row in sorted(rows, key=len):
        if groups[-1] and (len(groups[-1]) + 1) * len(row) > budget:
            groups.append([])
        groups[-1].append(row)
    return [padded(model, group, "right") for group in groups]


def cut_off(model: Model, layer: int) -> nn.Module:
    """The model up to and including a block, sharing its weights."""
    trunk: Any = copy.copy(model.hf.base_model)
    trunk._modules = dict(trunk._modules) | {
        "layers": nn.ModuleList(list(model.layers)[: layer + 1]),
        "norm": nn.Identity(),
    }
    config: Any = copy.deepcopy(model.hf.base_model.config)
    config.num_hidden_layers = layer + 1
    trunk.__dict__["config"] = config
    return trunk


def store(model: Model, rows: list[list[int]], layer: int, context: int = 128) -> tuple[ActivationsStore, int]:
    """SAELens' activations store over the same tokens, joined end to end, and its number of batches."""
    flat = [token for row in rows for token in row]
    contexts = [flat[i : i + context] for i in range(0, len(flat) - context + 1, context)]
    hook = f"model.layers.{layer}"
    prompts = min(8, len(contexts))
    made = ActivationsStore(
        model=HookedProxyLM(model.hf, model.tokenizer, hook_names=[hook]),
        dataset=Dataset.from_dict({"input_ids": contexts}),
        streaming=False,
        hook_name=hook,
        hook_head_index=None,
        context_size=context,
        d_in=model.d_model,
        n_batches_in_buffer=2,
        total_training_tokens=prompts * context,
        store_batch_size_prompts=prompts,
        train_batch_size_tokens=prompts * context,
        prepend_bos=False,
        normalize_activations="none",
        device=model.device,
        dtype="float32",
        sequence_separator_token=None,
    )
    return made, len(contexts) // prompts


def sides_of(model: Model, traces: Traces, budget: int) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """The function that each library runs, by name, and the share of the tokens that it reads."""
    layer = model.n_layers // 2 - 1
    site = f"resid_post.{layer}"
    rows = rows_of(model, traces)
    batches = batches_of(model, rows, budget)
    trunk, plain = cut_off(model, layer), twin(model)
    lm, bridge = twin(model).nnsight(), model.lens()
    saes, draws = store(twin(model), rows, layer)

    @torch.no_grad()
    def limit() -> list[Tensor]:
        return [trunk(input_ids=ids, attention_mask=mask, use_cache=False)[0] for ids, mask in batches]

    def nnsight() -> list[Tensor]:
        states = []
        for ids, mask in batches:
            with torch.no_grad(), lm.trace({"input_ids": ids, "attention_mask": mask}) as tracer:
                state = lm.model.layers[layer].output.save()
                tracer.stop()
            states.append(state)
        return states

    @torch.no_grad()
    def transformers() -> list[Tensor]:
        return [
            plain.hf(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True).hidden_states[
                layer + 1
            ]
            for ids, mask in batches
        ]

    @torch.no_grad()
    def lens() -> list[Tensor]:
        name = f"blocks.{layer}.hook_resid_post"
        return [bridge.run_with_cache(ids, attention_mask=mask)[1][name] for ids, mask in batches]

    def saelens() -> list[Tensor]:
        return [saes.get_raw_llm_batch()[0] for _ in range(draws)]

    def ours() -> Float[Tensor, "sentence d_model"]:
        return harvest(model, traces, [site], batch_tokens=budget).vectors[site]

    same(ours(), limit(), batches, rows, traces)
    saelens()
    for other in (nnsight, transformers, lens):
        for state, expected, (_, mask) in zip(other(), limit(), batches, strict=True):
            torch.testing.assert_close(state[mask.bool()], expected[mask.bool()], rtol=1e-3, atol=1e-2)
    sides = {
        "harvest": ours,
        "limit": limit,
        "TransformerLens, cache of everything": lens,
        "nnsight, stopped at the site": nnsight,
        "transformers, all hidden states": transformers,
        "SAELens, raw batches": saelens,
    }
    read = draws * saes.store_batch_size_prompts * saes.context_size
    return sides, dict.fromkeys(sides, 1.0) | {"SAELens, raw batches": read / sum(map(len, rows))}


def same(
    pooled: Float[Tensor, "sentence d_model"],
    states: list[Tensor],
    batches: list[Batch],
    rows: list[list[int]],
    traces: Traces,
) -> None:
    """Check that the harvested last sentence is the mean of the states of the plain forward pass."""
    last = traces[len(traces) - 1].sentences[-1]
    row = rows[-1]
    for state, (ids, mask) in zip(states, batches, strict=True):
        for i, length in enumerate(mask.sum(1).tolist()):
            if ids[i, :length].tolist() == row:
                start = len(row) - (last.token_end - last.token_start)
                torch.testing.assert_close(pooled[-1], state[i, start:length].mean(0), rtol=1e-3, atol=1e-3)
                return
    raise AssertionError("the last trace is in no batch")


def main() -> None:
    quick = "--quick" in sys.argv
    table = []
    for model in models():
        count, joined, budget = (QUICK if quick else SIZES)[model.name]
        sides, shares = sides_of(model, story_traces(model, count, joined), budget)
        seconds = medians(sides, 2 if quick else 5, warm=True)
        rate = {name: shares[name] / each for name, each in seconds.items()}
        table += [
            Row(f"harvest, {model.name}", name, rate["harvest"] / rate[name], GOALS.get(name), "higher")
            for name in sides
            if name != "harvest"
        ]
    report("harvest", table)


if __name__ == "__main__":
    main()
