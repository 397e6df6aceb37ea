"""A training step of steering vectors, against a plain forward and backward pass of the same batches.

Our step starts from the residual stream at the site, which is computed once and kept, and runs the layers above it. The
plain step runs the whole model, adds the same shifts by a hook and has the same loss at the same gates. On both sides
only the mechanism has gradients, and they must be equal. The site is at mid depth, and 12 % of the tokens are gates.
``python -m benchmarks.vector_training [--quick]``
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.table import Row, medians, report
from benchmarks.workload import models, steering_vectors, story_traces, twin
from probe.hooks import force
from probe.models import Model
from probe.steering import BehaviourVectors, GateBatch
from probe.steering.objective import GateLoss
from probe.steering.prefix import Prefix

RATE, BEHAVIOURS, EPOCHS = 0.12, 4, 3
#: For each model: number of batches and of rows in each.
SIZES = {"tiny-base": (8, 16), "smollm2-135m": (2, 4)}
QUICK = {"tiny-base": (2, 16), "smollm2-135m": (1, 2)}


def gate_batches(model: Model, count: int, rows: int) -> list[GateBatch]:
    """Batches of traces with random gates, whose targets are the next tokens of the traces."""
    traces = story_traces(model, count * rows)
    start = model.config.prompt != "chat"
    generator = torch.Generator().manual_seed(0)
    batches = []
    for first in range(0, count * rows, rows):
        some = [traces[i] for i in range(first, first + rows)]
        prompts = [model.tokenizer(trace.prompt, add_special_tokens=start).input_ids for trace in some]
        forced = force(model, prompts, [trace.tokens for trace in some])
        gate = (torch.rand(forced.emitted.shape, generator=generator) < RATE) & forced.emitted
        behaviour = torch.randint(BEHAVIOURS, gate.shape, generator=generator)
        target = forced.ids.gather(1, (forced.predicts + 1).clamp(max=forced.ids.shape[1] - 1))
        batches.append(GateBatch(forced, gate, behaviour, target))
    return batches


def mechanism_of(model: Model, batches: list[GateBatch], *, persistent: bool) -> BehaviourVectors:
    layer = model.n_layers // 2 - 1
    made = BehaviourVectors(BEHAVIOURS, model.d_model, layer, persistent=persistent)
    made.directions.data = 0.1 * steering_vectors(model, batches[0].forced.ids.tolist(), layer, BEHAVIOURS)
    return made


def plain_step(model: Model, mechanism: BehaviourVectors, batch: GateBatch) -> Tensor:
    """The losses at the gates from a forward pass of the whole model."""
    behaviour = batch.behaviour[batch.gate]

    def add(_module: object, _inputs: object, output: Tensor) -> Tensor:
        resid = output[batch.places]
        shift = mechanism.shift(resid, mechanism.strength(resid, behaviour), behaviour)
        return output.index_put(batch.places, shift, accumulate=True)

    handle = model.layers[mechanism.layer].register_forward_hook(add)
    try:
        # Right padding: causal attention keeps it out of sight of every token, and default positions are right.
        logits = model.hf(input_ids=batch.forced.ids, use_cache=False).logits
    finally:
        handle.remove()
    return F.cross_entropy(logits[batch.places], batch.target[batch.gate], reduction="none")


def sides_of(model: Model, batches: list[GateBatch], folder: Path) -> dict[str, Callable[[], Tensor]]:
    """The functions that step over all batches and return the gradient, by name; "before" is what runs only once."""
    persistent, transient = (mechanism_of(model, batches, persistent=later) for later in (True, False))
    seen, whole = Prefix(model, batches, persistent.layer, folder), twin(model)

    def ours(mechanism: BehaviourVectors) -> Callable[[], Tensor]:
        gate_loss = GateLoss(model, mechanism)

        def step() -> Tensor:
            mechanism.zero_grad()
            for batch, hidden in (seen[i] for i in range(len(seen))):
                gate_loss(batch, hidden).losses.sum().backward()
            return _gradient(mechanism)

        return step

    def plain() -> Tensor:
        persistent.zero_grad()
        for batch in batches:
            plain_step(whole, persistent, batch).sum().backward()
        return _gradient(persistent)

    def before() -> Tensor:
        # A new folder each time, because what is found in it is not run again.
        with tempfile.TemporaryDirectory() as fresh:
            return Prefix(model, batches, persistent.layer, Path(fresh))[0][1]

    return {"persistent": ours(persistent), "transient": ours(transient), "plain": plain, "before": before}


def _gradient(mechanism: BehaviourVectors) -> Tensor:
    gradient = mechanism.directions.grad
    assert gradient is not None
    return gradient.clone()


def main() -> None:
    quick = "--quick" in sys.argv
    table = []
    for model in models():
        batches = gate_batches(model, *(QUICK if quick else SIZES)[model.name])
        with tempfile.TemporaryDirectory() as folder:
            sides = sides_of(model, batches, Path(folder))
            expected = sides["plain"]()
            torch.testing.assert_close(
                sides["persistent"](), expected, rtol=1e-2, atol=1e-3 * expected.abs().max().item()
            )
            seconds = medians(sides, 2 if quick else 5)
        plain, ours = seconds["plain"], seconds["persistent"]
        whole = EPOCHS * plain / (EPOCHS * ours + seconds["before"])
        table += [
            Row(f"step, {model.name}", "plain forward and backward", plain / ours, 1.7, "higher"),
            Row(f"{EPOCHS} epochs and what is run once, {model.name}", "the same, plain", whole, None, "higher"),
            Row(f"transient step, {model.name}", "plain, persistent", plain / seconds["transient"], None, "higher"),
        ]
    report("vector_training", table)


if __name__ == "__main__":
    main()
