"""Two published schedules of hybrid decoding, implemented from their description as a reference for timings.

They run the same forward passes in the same order as the originals (Venhoff et al., 2510.07364v4 and v1), without the
overhead of those programs (tokenising again at every step, emptying memory), and compute the logits of the last
position only. This is the fastest form of the schedules. Both are greedy.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from benchmarks.workload import padded
from probe.models import Model, Pair
from probe.steering import Mechanism
from probe.taxonomy import Taxonomy

#: Returns whether to steer each row, given the logits of base and thinking model and the number of tokens emitted.
Gate = Callable[[Float[Tensor, "rows vocab"], Float[Tensor, "rows vocab"], int], Bool[Tensor, " rows"]]


def disagree(base: Float[Tensor, "rows vocab"], thinking: Float[Tensor, "rows vocab"], _: int) -> Bool[Tensor, " rows"]:
    """The published gate: the models' most likely tokens differ."""
    return base.argmax(-1) != thinking.argmax(-1)


@dataclass(frozen=True)
class Hybrid:
    """A pair, with the parts of its hybrid: the gate, the taxonomy that names the behaviour, and the mechanism."""

    pair: Pair
    taxonomy: Taxonomy
    mechanism: Mechanism
    gate: Gate = disagree

    @property
    def ends(self) -> set[int]:
        """Ids of the tokens that end a row."""
        return {*self.pair.base.eos_ids, *self.pair.thinking.eos_ids}


@contextmanager
def reading(model: Model, layer: int) -> Iterator[list[Tensor]]:
    """Collect ``resid_post.layer`` of the last position in every pass."""
    seen: list[Tensor] = []
    handle = model.layers[layer].register_forward_hook(lambda _, __, out: seen.append(out[:, -1]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def adding(model: Model, layer: int, shift: Float[Tensor, "*rows d_model"]) -> Iterator[None]:
    """Add ``shift`` to ``resid_post.layer`` at every position of every pass."""

    def add(_: nn.Module, __: tuple, out: Tensor) -> Tensor:
        return out + shift[..., None, :]

    handle = model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


class _Cached:
    """A left-padded batch being decoded by one model, with the cache of the transformers library."""

    def __init__(self, model: Model, questions: Sequence[str]) -> None:
        self.model, self.cache = model, DynamicCache()
        self.newest, self.mask = padded(model, [model.prompt_ids(question) for question in questions], "left")

    def run(self) -> Float[Tensor, "rows vocab"]:
        """Run the columns that are not cached yet."""
        positions = self.mask.cumsum(1).sub(1).clamp_(min=0)[:, -self.newest.shape[1] :]
        out = self.model.hf(
            input_ids=self.newest,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]

    def again(self) -> Float[Tensor, "rows vocab"]:
        """Remove the newest column from the cache and run it again."""
        self.cache.crop(-1)
        self.newest = self.newest[:, -1:]
        return self.run()

    def append(self, tokens: Int[Tensor, " rows"]) -> None:
        self.newest = tokens[:, None]
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)


@torch.no_grad()
def batched(hybrid: Hybrid, questions: Sequence[str], max_new_tokens: int) -> list[list[int]]:
    """Version 2: cached and batched.

    If any row is steered, the base model runs the newest column of all rows three more times: to read the residual
    stream, to steer, and to restore the cache. Rows that have ended keep running until the longest row ends.
    """
    taxonomy, mechanism = hybrid.taxonomy, hybrid.mechanism
    base, thinking = (_Cached(model, questions) for model in (hybrid.pair.base, hybrid.pair.thinking))
    emitted: list[list[int]] = [[] for _ in questions]
    going = set(range(len(questions)))
    for count in range(max_new_tokens):
        base_logits = base.run()
        with reading(thinking.model, taxonomy.layer) as seen:
            thinking_logits = thinking.run()
        tokens = base_logits.argmax(-1)
        gate = hybrid.gate(base_logits, thinking_logits, count)
        if gate.any():
            behaviour = taxonomy.behaviour(seen[0])
            with reading(base.model, mechanism.layer) as resids:
                base.again()
            shift = mechanism.shift(resids[0], mechanism.strength(resids[0], behaviour), behaviour)
            with adding(base.model, mechanism.layer, shift * gate[:, None]):
                tokens = base.again().argmax(-1)
            base.again()
        for row, token in enumerate(tokens.tolist()):
            if row in going and token in hybrid.ends:
                going.remove(row)
            elif row in going:
                emitted[row].append(token)
        if not going:
            break
        base.append(tokens)
        thinking.append(tokens)
    return emitted


@torch.no_grad()
def searched(hybrid: Hybrid, question: str, max_new_tokens: int, strengths: Sequence[float]) -> list[int]:
    """Version 1: one row without a cache; the thinking model chooses among the tokens of several strengths.

    Each token takes two passes of the thinking model and one of the base model over the whole text. A steered token
    takes one more pass of the base model for each strength, with the vector added at all positions, including the
    prompt. The unsteered token is not a candidate.
    """
    base, thinking = hybrid.pair.base, hybrid.pair.thinking
    taxonomy, mechanism = hybrid.taxonomy, hybrid.mechanism
    prompts = {model: model.prompt_ids(question) for model in (base, thinking)}
    emitted: list[int] = []

    def run(model: Model) -> Float[Tensor, "1 vocab"]:
        ids = torch.tensor([prompts[model] + emitted])
        return model.hf(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]

    def steered(shift: Float[Tensor, "1 d_model"]) -> Int[Tensor, " 1"]:
        with adding(base, mechanism.layer, shift):
            return run(base).argmax(-1)

    for count in range(max_new_tokens):
        with reading(thinking, taxonomy.layer) as seen:
            run(thinking)
        base_logits, thinking_logits = run(base), run(thinking)
        token = base_logits.argmax(-1)
        if hybrid.gate(base_logits, thinking_logits, count).any():
            vector = mechanism.vectors[taxonomy.behaviour(seen[0])]
            candidates = torch.cat([steered(strength * vector) for strength in strengths])
            token = candidates[thinking_logits[0, candidates].argmax()][None]
        if token.item() in hybrid.ends:
            break
        emitted.append(int(token.item()))
    return emitted
