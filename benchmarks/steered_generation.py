"""Steered greedy decoding by the cached loop, against the unsteered loop and against other libraries.

One vector is added to the residual stream at mid depth, at every position. All sides decode the same left-padded
prompts for the same number of tokens (no row ends early), and all steered sides must emit the same tokens.
``python -m benchmarks.steered_generation [--quick]``
"""

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from torch import Tensor

from benchmarks.table import Row, medians, report
from benchmarks.workload import endless, models, padded, steering_vectors, twin
from probe.hooks import edit
from probe.models import Model
from probe.problems import load_problems
from probe.traces import decode_greedy

#: For each model: number of rows and of new tokens.
SIZES = {"tiny-base": (32, 128), "smollm2-135m": (8, 48)}
QUICK = {"tiny-base": (16, 48), "smollm2-135m": (4, 8)}

Tokens = list[list[int]]


def sides_of(model: Model, prompts: Tokens, new: int) -> dict[str, Callable[[], Tokens]]:
    """The functions that decode all prompts and return the new tokens, by name."""
    layer = model.n_layers // 2 - 1
    (vector,) = steering_vectors(model, prompts, layer, 1)
    ids, mask = padded(model, prompts, "left")
    plain, seen, bridge = endless(twin(model)), endless(twin(model)).nnsight(), model.lens()

    def alone() -> Tokens:
        return [list(row.tokens) for row in decode_greedy(model, prompts, new)]

    def steered() -> Tokens:
        with edit(model, {f"resid_post.{layer}": vector}):
            return alone()

    def transformers() -> Tokens:
        def add(_module: object, _inputs: object, output: Tensor) -> Tensor:
            return output + vector

        generate: Any = plain.hf.generate
        handle = plain.layers[layer].register_forward_hook(add)
        try:
            out = generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False)
        finally:
            handle.remove()
        return out[:, ids.shape[1] :].tolist()

    def nnsight() -> Tokens:
        batch = {"input_ids": ids, "attention_mask": mask}
        with seen.generate(batch, max_new_tokens=new, do_sample=False) as tracer:
            for _ in tracer.iter[:new]:
                seen.model.layers[layer].output = seen.model.layers[layer].output + vector
            out = tracer.result.save()
        return out[:, ids.shape[1] :].tolist()

    def lens() -> Tokens:
        def add(state: Tensor, hook: object) -> Tensor:  # noqa: ARG001 - the signature is TransformerLens'
            return state + vector

        with bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_out", add)]):
            out = bridge.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=new,
                do_sample=False,
                stop_at_eos=False,
                return_type="tokens",
                verbose=False,
            )
        assert isinstance(out, Tensor)
        return out[:, ids.shape[1] :].tolist()

    return {"unsteered": alone, "steered": steered, "transformers": transformers, "nnsight": nnsight, "lens": lens}


def agree(name: str, sides: dict[str, Callable[[], Tokens]], new: int) -> None:
    """Check that all steered sides emit the same tokens, and that steering changes them."""
    out = {side: decode() for side, decode in sides.items()}
    assert all(len(row) == new for rows in out.values() for row in rows), f"{name}: a row ended early"
    assert out["steered"] != out["unsteered"], f"{name}: steering changed no token"
    for side in ("transformers", "nnsight", "lens"):
        assert out[side] == out["steered"], f"{name}: {side} emits other tokens than the cached loop"


def main() -> None:
    quick = "--quick" in sys.argv
    story = load_problems("story")
    table = []
    for model in map(endless, models()):
        rows, new = (QUICK if quick else SIZES)[model.name]
        sides = sides_of(model, [model.prompt_ids(problem.question) for problem in story.take("test", rows)], new)
        agree(model.name, sides, new)
        seconds = medians(sides, 2 if quick else 5, warm=True)
        table += [
            Row(f"steered, {model.name}", against, seconds["steered"] / seconds[side], goal, "lower")
            for side, against, goal in (
                ("unsteered", "the same loop, unsteered", 1.1),
                ("transformers", "transformers generate with a hook", 1.0),
                ("nnsight", "nnsight generate", None),
                ("lens", "TransformerLens generate", None),
            )
        ]
    report("steered_generation", table)


if __name__ == "__main__":
    main()
