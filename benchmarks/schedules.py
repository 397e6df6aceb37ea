"""Two published schedules of hybrid decoding, written from their description, to be timed against.

Only which forward passes are run, over what and in what order is theirs (Venhoff et al., 2510.07364v4 and v1). What
their programs do besides (tokenising again at every step, emptying memory) is left out, and every pass gives the logits
of the last position alone: the schedules at their best. Both are greedy.
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

#: Whether to steer each row now: the base model's logits, the thinking model's, and how many tokens are emitted.
Gate = Callable[[Float[Tensor, "rows vocab"], Float[Tensor, "rows vocab"], int], Bool[Tensor, " rows"]]


def disagree(base: Float[Tensor, "rows vocab"], thinking: Float[Tensor, "rows vocab"], _: int) -> Bool[Tensor, " rows"]:
    """The published gate: the models' likeliest tokens differ."""
    return base.argmax(-1) != thinking.argmax(-1)


@dataclass(frozen=True)
class Hybrid:
    """What is decoded: two models, where to steer, by what the behaviour is told, and what is added."""

    pair: Pair
    taxonomy: Taxonomy
    mechanism: Mechanism
    gate: Gate = disagree

    @property
    def ends(self) -> set[int]:
        """Token ids that end a row."""
        return {*self.pair.base.eos_ids, *self.pair.thinking.eos_ids}


@contextmanager
def reading(model: Model, layer: int) -> Iterator[list[Tensor]]:
    """Collects ``resid_post.layer`` of the last position, pass by pass."""
    seen: list[Tensor] = []
    handle = model.layers[layer].register_forward_hook(lambda _, __, out: seen.append(out[:, -1]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def adding(model: Model, layer: int, shift: Float[Tensor, "*rows d_model"]) -> Iterator[None]:
    """Adds to ``resid_post.layer`` of every position that is run."""

    def add(_: nn.Module, __: tuple, out: Tensor) -> Tensor:
        return out + shift[..., None, :]

    handle = model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


class _Cached:
    """A left-padded batch under way in one model, behind the cache of the transformers library."""

    def __init__(self, model: Model, questions: Sequence[str]) -> None:
        self.model, self.cache = model, DynamicCache()
        self.newest, self.mask = padded(model, [model.prompt_ids(question) for question in questions], "left")

    def run(self) -> Float[Tensor, "rows vocab"]:
        """Run the columns that the cache does not hold."""
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
        """Cut the newest column off the cache and run it once more."""
        self.cache.crop(-1)
        self.newest = self.newest[:, -1:]
        return self.run()

    def append(self, tokens: Int[Tensor, " rows"]) -> None:
        self.newest = tokens[:, None]
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)


@torch.no_grad()
def batched(hybrid: Hybrid, questions: Sequence[str], max_new_tokens: int) -> list[list[int]]:
    """Version 2: cached and batched.

    Where any row is steered the base model's newest column is run three times more for all of them: to read the
    residual stream, to steer, and to put the cache back. Rows that have ended run on until the longest ends.
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
    """Version 1: one row, no cache, and the thinking model chooses among what several strengths lead to.

    Two passes of the thinking model and one of the base model a token, each over the whole text; where it is steered
    one more of the base model a strength, with the vector at all positions, the prompt too. The unsteered token is no
    candidate.
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
