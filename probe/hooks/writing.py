"""Writing activations: add a tensor to sites of a model, or put them through a function, and take it back exactly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel

from probe._errors import ProbeError
from probe.hooks.reading import attach
from probe.models import Model, Site

Change = Tensor | Callable[[Tensor], Tensor]
"""A tensor to add, broadcast to ``[batch, pos, d_model]``; or a function from the old state to the new one."""


@contextmanager
def edit(model: Model | PreTrainedModel, changes: Mapping[str, Change] | Mapping[Site, Change]) -> Iterator[None]:
    """Change sites of a model during the forward passes inside the block.

    >>> with torch.no_grad(), edit(model, {"resid_post.2": 4.0 * vector}):  # doctest: +SKIP
    ...     steered = model.hf(input_ids, attention_mask=mask).logits
    >>> with edit(model, {"mlp_out.1": torch.zeros_like}):  # doctest: +SKIP
    ...     ablated = model.hf(input_ids, attention_mask=mask).logits

    Every pass inside the block is changed: with a key/value cache, the prompt in one call and then each new token,
    so a function sees ``[batch, 1, d_model]`` while decoding. Edits nest; the outer one acts first. A function must
    give back a new tensor and leave the one it was handed alone. On the way out every hook is removed, and the model
    is bit for bit what it was.

    Args:
        model: The model to change.
        changes: Site (``"resid_post.2"`` or `Site`) to a tensor to add or a function ``hidden -> hidden``.

    Raises:
        ProbeError: if the model lacks a site, a change has the wrong shape, or at the end of the block, if a change
            never took place.
    """
    hf = model.hf if isinstance(model, Model) else model
    done: set[Site] = set()
    wanted = {Site.parse(site): change for site, change in changes.items()}
    if not wanted:
        raise ProbeError("there is nothing to edit; give at least one site and its change")
    with ExitStack() as hooks:
        for site, change in wanted.items():
            for part, act in _acts(site, _changer(site, change, done)):
                hooks.callback(attach(hf, part, act).remove)
        yield
    missing = [str(site) for site in wanted if site not in done]
    if missing:
        raise ProbeError(f"no forward pass reached {', '.join(missing)}; call the model inside the edit block")


def _changer(site: Site, change: Change, done: set[Site]) -> Callable[[Tensor], Tensor]:
    def act(hidden: Tensor) -> Tensor:
        new = change(hidden) if callable(change) else hidden + change.to(hidden)
        if new.shape != hidden.shape:
            raise ProbeError(f"the edit at {site} gives shape {list(new.shape)}; the model has {list(hidden.shape)}")
        done.add(site)
        return new

    return act


def _acts(site: Site, act: Callable[[Tensor], Tensor]) -> list[tuple[Site, Callable[[Tensor], Tensor | None]]]:
    """The hooks that carry out one edit.

    One hook at the site itself, but for ``resid_mid``: its place is the input of the norm before the MLP, beside which
    the residual stream runs on, so a change there would miss the stream. The attention's contribution is changed
    instead, by as much as the sum of it and the stream is to change.
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
