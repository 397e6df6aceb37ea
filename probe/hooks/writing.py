"""Writing activations: put sites of a model through operations, at the tokens selected, and take it back exactly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from probe._errors import ProbeError
from probe.hooks.attach import Act, attach
from probe.hooks.operations import Add, Apply, Operation
from probe.hooks.passes import Passes
from probe.hooks.selection import Selection, Selector, Tokens
from probe.models import Model, Site

Change = Tensor | Callable[[Tensor], Tensor]
"""An `Operation`; or a tensor to add, broadcast to the state; or a function from the old state to the new one."""


@contextmanager
def edit(
    model: Model | PreTrainedModel,
    changes: Mapping[str, Change | Sequence[Change]] | Mapping[Site, Change | Sequence[Change]],
    *,
    tokens: Tokens | Selection | None = None,
    prompt_width: int | None = None,
) -> Iterator[None]:
    """Change sites of a model during the forward passes inside the block.

    >>> with torch.no_grad(), edit(model, {"resid_post.2": Add(vector, 4.0, tokens=Tokens(phase="generation"))}):
    ...     model.hf.generate(**batch)  # doctest: +SKIP
    >>> with edit(model, {"resid_post.2": [ProjectOut(refusal), Add(vector)], "mlp_out.1": torch.zeros_like}):
    ...     logits = model.hf(input_ids, attention_mask=mask).logits  # doctest: +SKIP

    Every pass inside the block is changed: whole texts, chunks of a prompt, single tokens on a key/value cache; what is
    changed stays changed in the cache. Several changes at one site are carried out in order; edits nest, and the outer
    one acts first. A function sees the whole state of a pass, ``[batch, 1, d_model]`` while decoding, and must give
    back a new tensor. On the way out every hook is removed, and the model is bit for bit what it was.

    Args:
        model: The model to change.
        changes: Site (``"resid_post.2"`` or `Site`) to a change, or to several.
        tokens: Where the changes act that do not say so themselves; every token unless given.
        prompt_width: How many columns the prompt has, if it is run in several passes of your own.

    Raises:
        ProbeError: if the model lacks a site or a change has the wrong shape; at the end of the block, if a change
            never took place or a clause of its ``tokens`` selected nothing.
    """
    hf = model.hf if isinstance(model, Model) else model
    wanted = {Site.parse(site): _operations(site, change, tokens) for site, change in changes.items()}
    if not wanted:
        raise ProbeError("there is nothing to edit; give at least one site and its change")
    passes, selectors, done = Passes(prompt_width), [], set()
    with ExitStack() as hooks:
        for site, operations in wanted.items():
            for operation in operations:
                selector = None if operation.tokens is None else Selector(operation.tokens)
                selectors += [selector] if selector else []
                change = _changer(site, operation, selector, passes, done)
                for part, act in _acts(site, change):
                    hooks.callback(attach(hf, part, act))
        if selectors:
            hooks.enter_context(passes.follow(hf))
        yield
    missing = [str(site) for site in wanted if site not in done]
    if missing:
        raise ProbeError(f"no forward pass reached {', '.join(missing)}; call the model inside the edit block")
    for selector in selectors:
        selector.check()


def _operations(site: str | Site, change: Any, tokens: Tokens | Selection | None) -> list[Operation]:
    several: list[Any] = list(change) if isinstance(change, Sequence) else [change]
    if not several:
        raise ProbeError(f"there is nothing to do at {site}; give a change")
    made: list[Operation] = []
    for each in several:
        if isinstance(each, Operation):
            made.append(replace(each, tokens=tokens) if each.tokens is None and tokens is not None else each)
        elif isinstance(each, Tensor):
            made.append(Add(each, tokens=tokens))
        elif not callable(each):
            raise ProbeError(f"the edit at {site} is a {type(each).__name__}; give an operation, tensor or function")
        else:
            function: Any = each
            made.append(Apply(function, tokens=tokens))
    return made


def _changer(
    site: Site, operation: Operation, selector: Selector | None, passes: Passes, done: set[Site]
) -> Callable[[Tensor], Tensor]:
    def act(hidden: Tensor) -> Tensor:
        done.add(site)
        try:
            new = operation(hidden)
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            raise ProbeError(f"the edit at {site} does not fit shape {list(hidden.shape)}: {error}") from error
        if new.shape != hidden.shape:
            raise ProbeError(f"the edit at {site} gives shape {list(new.shape)}; the model has {list(hidden.shape)}")
        if selector is None:
            return new
        mask = selector.mask(passes.now)
        # Queries are the third axis of a pattern; of logits, a model may have only the last columns.
        where = mask[:, None, :, None] if not site.by_token else _columns(mask, hidden)
        return torch.where(where, new, hidden)

    return act


def _columns(mask: Tensor, hidden: Tensor) -> Tensor:
    mask = mask[:, mask.shape[1] - hidden.shape[1] :]
    return mask.reshape(*mask.shape, *[1] * (hidden.ndim - 2))


def _acts(site: Site, act: Callable[[Tensor], Tensor]) -> list[tuple[Site, Act]]:
    """The hooks that carry out one edit.

    One hook at the site itself, but for ``resid_mid``: its place is the input of a norm or of the MLP, beside which the
    residual stream runs on, so a change there would miss the stream. The attention's contribution is changed instead,
    by as much as the sum of it and the stream is to change.
    """
    if site.kind != "resid_mid":
        return [(site, act)]
    stream: list[Tensor] = []

    def remember(hidden: Tensor) -> None:
        stream[:] = [hidden]

    def shift(contribution: Tensor) -> Tensor:
        middle = stream.pop() + contribution
        return contribution + (act(middle) - middle)

    return [(replace(site, kind="resid_pre"), remember), (replace(site, kind="attn_out"), shift)]
