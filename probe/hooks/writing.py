"""Writing activations: `edit` changes named sites at selected tokens during forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from probe.errors import NotApplicable, ProbeError
from probe.hooks.attach import Act, as_hf, attach
from probe.hooks.captured import columns_missing
from probe.hooks.operations import Add, Apply, Operation
from probe.hooks.passes import check_reached, passes_of
from probe.hooks.selection import Selection, Selector, Tokens
from probe.hooks.used import check_used
from probe.models import Model, Site, place

Change = Tensor | Callable[[Tensor], Tensor]
"""An `Operation`, a tensor to add (broadcast to the state), or a function from the old state to the new state."""


@contextmanager
def edit(
    model: Model | nn.Module,
    changes: Mapping[str, Change | Sequence[Change]] | Mapping[Site, Change | Sequence[Change]],
    *,
    tokens: Tokens | Selection | None = None,
    prompt_width: int | None = None,
) -> Iterator[None]:
    """Change sites of a model during the forward passes inside the block.

    Example::

        import torch, probe

        model = probe.load_pair("tiny-rl").base
        ids = torch.tensor([model.prompt_ids("Tom has 2 cards. He finds 3 more. How many?")])
        steer = probe.Add(torch.randn(model.d_model), 4.0, tokens=probe.Tokens(phase="generation"))
        with torch.no_grad(), probe.edit(model, {"resid_post.2": steer, "mlp_out.1": torch.zeros_like}):
            model.hf.generate(ids, max_new_tokens=20)

    Every pass inside the block is changed: whole texts, chunks of a prompt, and single tokens on a key/value cache,
    where the change persists. Several changes at one site are applied in order. Edits nest; the outer one acts first. A
    function sees the whole state of a pass (``[batch, 1, d_model]`` while decoding) and must return a new tensor. At
    the end of the block every hook is removed, and the model is bit for bit what it was.

    Args:
        changes: maps each site (``"resid_post.2"`` or a `Site`) to one change or a list of changes.
        tokens: where changes act that have no ``tokens`` of their own; None for every token.
        prompt_width: the number of columns of the prompt, if you run the prompt in several passes yourself.

    Raises:
        ProbeError: if the model lacks a site or does not use what stands there, or a change has the wrong shape; at the
            end of the block, if a change was never applied or a clause of its ``tokens`` selected nothing.
    """
    hf = as_hf(model)
    wanted: dict[Site, list[Operation]] = {}
    for name, change in changes.items():
        site = Site.parse(name)
        if why := place(hf, site).only_read:
            raise NotApplicable(f"{site} can only be read: {why}")
        if site in wanted:
            raise ProbeError(f"{site} appears twice among the changes; give it one list of changes")
        wanted[site] = _operations(site, change, tokens)
        if site.is_module:
            check_used(hf, site)
    if not wanted:
        raise ProbeError("nothing to edit; give at least one site with its change")
    writer = _Writer(hf, wanted, prompt_width)
    with ExitStack() as hooks:
        for site, operations in wanted.items():
            for operation in operations:
                for part, act, first in writer.hooks(site, operation):
                    hooks.callback(attach(hf, part, act, first=first))
        hooks.enter_context(writer.passes.open(writer))
        yield
    writer.close()


class _Writer:
    """An open edit."""

    reads = False
    may_stop = True

    def __init__(
        self, hf: PreTrainedModel, wanted: Mapping[Site, Sequence[Operation]], prompt_width: int | None
    ) -> None:
        self.passes = passes_of(hf)
        self.selects = any(operation.tokens is not None for each in wanted.values() for operation in each)
        self._sites, self._prompt_width = tuple(wanted), prompt_width
        self._selectors: list[Selector] = []
        self._pending: set[Site] = set()
        self._done: set[Site] = set()
        self._left: dict[Site, Tensor] = {}
        """For sites that had only the last columns of a pass: whether any selected token was among them."""

    def begin(self, past: int) -> None:  # noqa: ARG002 - an edit does not depend on where a pass begins
        self._pending = set(self._sites)

    def waits(self) -> bool:
        return bool(self._pending)

    def hooks(self, site: Site, operation: Operation) -> list[tuple[Site, Act, bool]]:
        """Make the hooks of one change, each with whether it precedes the existing hooks.

        There is one hook at the site itself, except for ``resid_mid``. That site is read at the input of a norm or of
        the MLP, which the residual stream bypasses, so the change is also added to the stream at the end of the block.
        """
        selector = None if operation.tokens is None else Selector(operation.tokens)
        if selector is not None:
            self._selectors.append(selector)

        def act(hidden: Tensor) -> Tensor | None:
            if self.passes.quiet:
                return None
            self._done.add(site)
            self._pending.discard(site)
            return self._changed(site, operation, selector, hidden)

        if site.kind != "resid_mid":
            return [(site, act, False)]
        shift: list[Tensor] = []

        def on_the_way_in(hidden: Tensor) -> Tensor | None:
            new = act(hidden)
            shift[:] = [] if new is None else [new - hidden]
            return new

        def on_the_way_out(hidden: Tensor) -> Tensor | None:
            return hidden + shift.pop() if shift else None

        return [(site, on_the_way_in, False), (replace(site, kind="resid_post"), on_the_way_out, True)]

    def _changed(self, site: Site, operation: Operation, selector: Selector | None, hidden: Tensor) -> Tensor | None:
        now = None if selector is None else self.passes.now(self._prompt_width)
        if selector is not None and now is not None and not selector.possible(now):
            return None
        try:
            new = operation(hidden)
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            raise ProbeError(f"the edit at {site} does not fit shape {list(hidden.shape)}: {error}") from error
        if new.shape != hidden.shape:
            raise ProbeError(f"the edit at {site} gives shape {list(new.shape)}; the model has {list(hidden.shape)}")
        if selector is None or now is None:
            return new
        mask = selector.mask(now)
        if not site.by_token:  # a pattern: its third axis is the query tokens
            return torch.where(mask[:, None, :, None], new, hidden)
        if missing := columns_missing(site, hidden, now):
            mask = mask[:, missing:]
            self._left[site] = self._left.get(site, torch.zeros_like(mask).any()) | mask.any()
        return torch.where(mask.reshape(*mask.shape, *[1] * (hidden.ndim - 2)), new, hidden)

    def close(self) -> None:
        """Check the edit at the end of its block.

        Raises:
            ProbeError: if a change was never applied.
        """
        check_reached(self._sites, self._done, "edit")
        for selector in self._selectors:
            selector.forget()
            selector.check()
        for site, left in self._left.items():
            if not left:
                raise ProbeError(
                    f"the model computed {site} at the last tokens only, and none of them was selected; "
                    "call it with logits_to_keep=0, or select the last token"
                )


def _operations(site: str | Site, change: Any, tokens: Tokens | Selection | None) -> list[Operation]:
    several: list[Any] = list(change) if isinstance(change, Sequence) else [change]
    if not several:
        raise ProbeError(f"the list of changes at {site} is empty; give at least one")
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
