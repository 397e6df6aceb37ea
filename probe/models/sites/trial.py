"""Finds the residual stream of a decoder whose architecture is not in the table, by running it once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from probe.errors import NotApplicable
from probe.models.limits import embedding_rows
from probe.models.placed import input_device
from probe.models.sites.architectures import scaled_logits
from probe.models.sites.places import Place

_TOKENS = 8
_KEPT = "_probe_residual"
"""Attribute of a model that has been tried: the places of its residual sites, or why it has none."""


def residual_places(hf: PreTrainedModel, blocks: str) -> dict[str, Place]:
    """Return the places of the residual sites of a decoder, after a trial of a few tokens.

    The trial shows that each block begins with what the block before returns, that the final norm reads what the last
    block returns, and that the unembedding reads what the norm returns and gives the logits, with the scale and soft
    cap that the config names. It is run once for a loaded model.

    Args:
        hf: the model.
        blocks: path of its blocks.

    Raises:
        NotApplicable: saying what the trial found instead.
    """
    kept = vars(hf).get(_KEPT)
    if kept is None:
        kept = _tried(hf, blocks)
        setattr(hf, _KEPT, kept)
    if isinstance(kept, str):
        raise NotApplicable(
            f"the sites of '{hf.config.get_text_config().model_type}' models are not known, and a trial of this one "
            f"found that {kept}; name a module by its path instead, such as {blocks}.0"
        )
    return kept


def _tried(hf: PreTrainedModel, blocks: str) -> dict[str, Place] | str:
    named = {module: name for name, module in hf.named_modules()}
    each: Any = hf.get_submodule(blocks)
    inside = set(each.modules())
    embedding, head = hf.get_input_embeddings(), hf.get_output_embeddings()
    if head is None or head not in named:
        return "it has no unembedding"
    around = [module for module in hf.modules() if module not in inside and module is not head and module is not hf]
    seen: dict[nn.Module, tuple[Tensor | None, Tensor | None]] = {}
    logits, overwritten = _run(hf, [embedding, *each, *around, head], seen)
    for i, block in enumerate(each):
        if block not in seen:
            return f"block {i} is not run"
        if block in overwritten:
            return f"a state that block {i} takes or returns is changed in place, so that it cannot be kept"
    for i, block in enumerate(each):
        before, after = seen[block]
        if before is None or after is None or before.shape != after.shape or before.ndim != 3:
            return f"block {i} does not take and return one state for each token"
        if i and not torch.equal(before, _out(seen, each[i - 1])):
            return f"block {i} does not begin with what block {i - 1} returns"
    last, read, given = _out(seen, each[-1]), *seen.get(head, (None, None))
    if read is None or given is None:
        return "its unembedding is not run"
    norms = [module for module in around if _maps(seen.get(module), last, read) and not any(module.children())]
    if not norms:
        return "no norm takes what the last block returns and gives what the unembedding reads"
    scaled = scaled_logits(hf.config.get_text_config(decoder=True), given)
    if logits.shape != scaled.shape or not torch.allclose(logits.float(), scaled.float(), rtol=1e-2, atol=1e-3):
        return "its logits are not what the unembedding returns, with the scale and cap that its config names"
    return {
        "embed": Place(named[embedding]),
        "resid_pre": Place(blocks + ".{i}", "input"),
        "resid_post": Place(blocks + ".{i}"),
        "final_norm": Place(named[norms[0]]),
        "logits": Place(named[head]),
    }


def _out(seen: dict[nn.Module, tuple[Tensor | None, Tensor | None]], block: nn.Module) -> Tensor:
    after = seen[block][1]
    assert after is not None
    return after


def _maps(found: tuple[Tensor | None, Tensor | None] | None, before: Tensor, after: Tensor) -> bool:
    """Whether a module took one tensor and gave another."""
    if found is None or found[0] is None or found[1] is None:
        return False
    return torch.equal(found[0], before) and torch.equal(found[1], after)


@torch.no_grad()
def _run(
    hf: PreTrainedModel, modules: list[nn.Module], seen: dict[nn.Module, tuple[Tensor | None, Tensor | None]]
) -> tuple[Tensor, set[nn.Module]]:
    """Run a few tokens and note what modules take and return.

    Returns:
        The logits, and the modules of which one or the other was changed in place afterwards.
    """
    live: dict[nn.Module, tuple[Any, Any]] = {}

    def note(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        named = [kwargs.get(name) for name in ("hidden_states", *kwargs)]
        given = next((each for each in (*args, *named) if isinstance(each, Tensor)), None)
        if isinstance(output, ModelOutput):
            output = output[next(iter(output))]
        elif isinstance(output, tuple | list):
            output = output[0] if output else None
        live[module] = given, output if isinstance(output, Tensor) else None
        seen[module] = _copied(live[module][0]), _copied(live[module][1])

    ids = torch.arange(_TOKENS, device=input_device(hf))[None] % embedding_rows(hf)
    with without_hooks(hf), ExitStack() as hooks:
        for module in dict.fromkeys(modules):
            hooks.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        logits = hf(input_ids=ids, use_cache=False).logits.cpu()
    return logits, {module for module in live if not all(map(_same, live[module], seen[module]))}


def _copied(tensor: Tensor | None) -> Tensor | None:
    """A copy on the CPU, because blocks may be on several devices."""
    return None if tensor is None else tensor.detach().clone().cpu()


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is None or other is None or torch.equal(one.cpu(), other)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextmanager
def without_hooks(hf: PreTrainedModel) -> Iterator[None]:
    """Keep the hooks of others out of a trial: one that records would take the trial's states for the caller's."""
    kept = [(module, name, vars(module)[name]) for module in hf.modules() for name in _HOOKS]
    for module, name, hooks in kept:
        vars(module)[name] = type(hooks)()
    try:
        yield
    finally:
        for module, name, hooks in kept:
            vars(module)[name] = hooks
