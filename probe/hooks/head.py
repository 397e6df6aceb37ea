"""Logits a chunk of positions at a time: the states below the head are kept, and never the logits of a whole text.

Logits are the largest tensors of a pass: at a vocabulary of 152,000, those of one position take as much as 40 states of
a model of width 3,584. A loss of every position needs those of one chunk only; the backward pass computes them again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import ModelOutput

from probe.hooks.attach import as_hf
from probe.hooks.upper import replaced, trunk_of
from probe.models import Model, input_device


class Head:
    """What a model computes above its final norm: the unembedding, and any scale or cap, by its own code.

    ``Head(model)(states_of(model, input_ids=ids))`` equals ``model.hf(input_ids=ids).logits``.

    Args:
        model: any decoder.
    """

    def __init__(self, model: Model) -> None:
        hf = as_hf(model)
        trunk = trunk_of(hf)
        self._given = _Given(trunk)
        path = next(name for name, module in hf.named_modules() if module is trunk).split(".")
        self._view: nn.Module = replaced(hf, path, self._given)

    def __call__(self, states: Float[Tensor, "rows pos d_model"]) -> Float[Tensor, "rows pos vocab"]:
        """Compute logits.

        Args:
            states: from :func:`states_of`, or any part of them.
        """
        self._given.states = states
        try:
            return self._view(inputs_embeds=states, use_cache=False).logits.to(states.device)
        finally:
            self._given.states = None


class _Given(nn.Module):
    """Stands in the place of a model's trunk and returns given states."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self._trunk = (trunk,)  # as no module of its own
        self.states: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._trunk[0], name)  # some heads read a factor from the trunk

    def forward(self, *_: object, **__: object) -> "_Output":
        return _Output(last_hidden_state=self.states)  # pyright: ignore[reportArgumentType]


class _Output(BaseModelOutputWithPast):
    """The output of a trunk; what else some trunks return (router logits, cross-attention) is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@dataclass
class Headless:
    """What a pass without its head has left.

    Attributes:
        states: the states that the head would have read, at every column, ``[rows, pos, d_model]``; None before the
            pass, and where the head had to run.
    """

    states: Float[Tensor, "rows pos d_model"] | None = None


@contextmanager
def headless(model: Model) -> Iterator[Headless]:
    """Let a pass in the block compute only the logits of its first column, and keep the states that its head reads.

    Where a hook reads or writes what the head does, it has to run in the pass: then the block changes nothing. Nor does
    it for models that are made for images too.
    """
    hf: Any = as_hf(model)
    # Of models that are made for images too, the head alone is not what they run.
    whole = hf.config is not hf.config.get_text_config() or hasattr(hf.config, "cross_attention_layers")
    inside = set(trunk_of(hf).modules())
    if whole or any(
        module._forward_hooks or module._forward_pre_hooks for module in hf.modules() if module not in inside
    ):
        yield Headless()
        return
    with _narrowed(hf) as kept:
        yield kept


@contextmanager
def _narrowed(hf: Any) -> Iterator[Headless]:
    kept, home = Headless(), input_device(hf)

    def narrow(_: nn.Module, __: tuple, output: Any) -> Any:
        kept.states = output[0].to(home)
        first = output[0][:, :1]
        if not isinstance(output, ModelOutput):
            return (first, *output[1:])
        output[next(iter(output))] = first
        return output

    handle = trunk_of(hf).register_forward_hook(narrow)
    try:
        yield kept
    finally:
        handle.remove()


def states_of(model: Model, **inputs: Any) -> Float[Tensor, "rows pos d_model"]:
    """Run a model and return the states that its head reads; logits are computed at one column only.

    Args:
        model: any decoder.
        inputs: what the model is called with.
    """
    hf: Any = as_hf(model)
    with _narrowed(hf) as kept:
        hf(**inputs)
    assert kept.states is not None  # the trunk has run
    return kept.states


def n_logits(model: Model) -> int:
    """Return the number of logits of a token, which may differ from the number of ids that the model reads."""
    head: Any = model.hf.get_output_embeddings()
    return int(getattr(head, "out_features", 0) or head.weight.shape[0])


def score_logits(
    score: Callable[..., Tensor],
    over: Sequence[tuple[Head, Float[Tensor, "rows pos _"]]],
    places: Bool[Tensor, "rows pos"] | tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
    *rest: Tensor,
    size: int,
) -> Float[Tensor, "n ..."]:
    """Compute a value, or several, from the logits at each of some places.

    Args:
        score: called with the float32 logits ``[places, vocab]`` of each model and the tensors of ``rest``.
        over: the heads of one or several models, each with the states of the same columns.
        places: the places that count: a mask, or rows and columns.
        rest: further tensors, one value for each place.
        size: the number of positions whose logits may be held at once.

    Returns:
        The value at each place. If not all columns fit, chunks of places are computed one after the other, and again
        in the backward pass.
    """
    rows, columns = over[0][1].shape[:2]
    if rows * columns <= size:
        return score(*(head(states)[places].float() for head, states in over), *rest)

    def part(*tensors: Tensor) -> Tensor:
        states, others = tensors[: len(over)], tensors[len(over) :]
        return score(*(head(some[None])[0].float() for (head, _), some in zip(over, states, strict=True)), *others)

    whole = [*(states[places] for _, states in over), *rest]
    parts = zip(*(tensor.split(size) for tensor in whole), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([part(*some) for some in parts])
    return torch.cat([checkpoint(part, *some, use_reentrant=False, preserve_rng_state=False) for some in parts])


def cross_entropy(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The cross-entropy at each place, in nats, for :func:`score_logits`."""
    return nn.functional.cross_entropy(logits, targets, reduction="none")


@contextmanager
def checkpointed(model: Model) -> Iterator[None]:
    """Let each block of a model in training mode keep only its input, and run again in the backward pass.

    The backward pass belongs inside the block, and so does whatever changes the model's states. Afterwards the model is
    as before.

    Raises:
        ValueError: from transformers, if it cannot do this for the architecture.
    """
    hf: Any = as_hf(model)
    names = ("gradient_checkpointing", "_gradient_checkpointing_func", "_require_grads_hooks", "_require_grads_hook")
    before = [(module, {name: vars(module)[name] for name in names if name in vars(module)}) for module in hf.modules()]
    enable = getattr(hf, "activation_checkpointing_enable", None) or hf.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
        # Gradients at the embedding are for reentrant checkpoints; here they would only lengthen the backward pass.
        hf.disable_input_require_grads()
        yield
    finally:
        for module, own in before:
            for name in names:
                vars(module).pop(name, None)
            vars(module).update(own)
