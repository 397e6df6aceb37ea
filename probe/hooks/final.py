"""The last step of a model, from final states to logits, by itself: all logits of a batch may outweigh the model.

A pass of the model ends at the output of its trunk, whose states are kept. The model's own code then turns any of them
into logits, with whatever it does around the unembedding (soft caps, scales, transforms).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from probe.hooks.upper import view
from probe.models import Model


class Head:
    """Turns the final states of one pass into logits.

    Attributes:
        states: the states that the trunk returned in the pass, ``[rows, pos, d_model]``; None if there are none, and
            then the pass itself gives all logits.
    """

    def __init__(self, model: Model) -> None:
        self.states: Float[Tensor, "rows pos d_model"] | None = None
        self._hf = model.hf
        self._trunk: nn.Module | None = None
        self._output: Any = None
        self._depth = 0

    @torch.no_grad()
    def __call__(self, states: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens vocab"]:
        """Compute the logits of some of the final states."""
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        return self._alone(input_ids=ids, use_cache=False, given=states[None])

    def _alone(self, *, given: Tensor, **call: Any) -> Tensor:
        """Run the model's own code around a stand-in for its trunk."""
        assert self._trunk is not None
        trunk: nn.Module = self._trunk
        name = next(name for name, module in self._hf.named_modules() if module is trunk)
        *above, last = name.split(".")
        model = at = view(self._hf)
        for each in above:
            below = view(at.get_submodule(each))
            at._modules[each] = below
            at = below
        at._modules[last] = _Given(_with_states(self._output, given))
        return model(**call).logits[0]

    def enter(self, *_: object) -> None:
        """Called before a trunk runs; one may be inside another."""
        self._depth += 1

    def leave(self, module: nn.Module, _: tuple, output: Any) -> Any:
        """Called with the output of a trunk: keep the states of the outermost, and let the pass go on with one."""
        self._depth -= 1
        states = _states(output)
        if self._depth or module is self._hf or states is None:
            return None
        self._trunk, self.states = module, states
        self._output = _with_states(output, states[:, -1:])
        return self._output


class _Given(nn.Module):
    """Stands in for a trunk and returns what was computed before."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: object, **__: object) -> Any:
        return self.output


@contextmanager
def headless(model: Model) -> Iterator[Head]:
    """Let the passes in the block compute only the logits of their last column, and keep the final states.

    Where a hook reads or writes what the head does, it has to run in the pass: then all is as without the block.
    """
    head, hooks = Head(model), []
    try:
        for trunk in _trunks(model.hf):
            hooks += [trunk.register_forward_pre_hook(head.enter), trunk.register_forward_hook(head.leave)]
        yield head
    finally:
        for hook in hooks:
            hook.remove()


def n_logits(model: Model) -> int:
    """Return the number of logits of a token, which may differ from the number of ids that the model reads."""
    head: Any = model.hf.get_output_embeddings()
    return int(getattr(head, "out_features", 0) or head.weight.shape[0])


def _trunks(hf: PreTrainedModel) -> list[nn.Module]:
    """The modules that may be what the model runs before its head; none if a module above them has hooks."""
    inside = set(hf.base_model.modules())
    if any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules() if module not in inside):
        return []
    found: tuple[nn.Module, ...] = (hf.base_model, hf.get_decoder())
    # Some models call their unembedding a decoder.
    return [trunk for trunk in dict.fromkeys(found) if hf.get_output_embeddings() not in set(trunk.modules())]


def _states(output: Any) -> Tensor | None:
    """The final states in the output of a trunk."""
    first = output[0] if isinstance(output, tuple | ModelOutput) and len(output) else output
    return first if isinstance(first, Tensor) and first.ndim == 3 else None


def _with_states(output: Any, states: Tensor) -> Any:
    """The output of a trunk with other states."""
    if isinstance(output, ModelOutput):
        return type(output)(**{**output, next(iter(output)): states})
    return (states, *output[1:]) if isinstance(output, tuple) else states
