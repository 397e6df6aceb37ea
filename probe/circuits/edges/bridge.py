"""Running TransformerLens' bridge with many hooks, and with one block's graph at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge


@contextmanager
def hooked(
    bridge: "TransformerBridge", points: "Mapping[str, HookPoint]", hooks: Sequence[tuple[str, Callable[..., Any]]]
) -> Iterator[None]:
    """Inside the block, hooks are on a bridge, as in its ``hooks(fwd_hooks=…)``.

    That method collects all hook points of the model again for each hook, which takes longer than the pass of a small
    model with a few hundred hooks.

    Args:
        points: the bridge's hook points by name.
        hooks: names and functions.
    """
    level = bridge.context_level + 1
    try:
        bridge.context_level = level
        for name, function in hooks:
            points[name].add_hook(function, level=level)
        yield
    finally:
        for name, _ in hooks:
            points[name].remove_hooks(dir="fwd", level=level)
        bridge.context_level = level - 1


@contextmanager
def one_block_at_a_time(bridged: Iterable[Any]) -> Iterator[None]:
    """Inside the block, blocks of the model keep their inputs and are run again in a backward pass.

    Args:
        bridged: the blocks of a bridge.
    """

    def again(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        return run

    blocks: list[Any] = [block.original_component for block in bridged]
    own = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = again(block.forward)
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            if before is None:
                del block.forward
            else:
                block.forward = before
