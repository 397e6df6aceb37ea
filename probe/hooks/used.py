"""Tests whether a model uses the output of a module."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from probe.errors import ProbeError
from probe.hooks.attach import attach
from probe.hooks.passes import passes_of
from probe.models import Site, input_device, without_hooks

_TOKENS = 3


@torch.no_grad()
def check_used(hf: PreTrainedModel, site: Site) -> None:
    """Refuse a site at which an edit would change nothing.

    A module may return several tensors of which the model reads another one than the first (the router of a mixture of
    experts), or take an argument only for its shape (rotary embeddings). A few tokens are run with and without a large
    random change at the site. A site that they do not reach is not refused. Open captures and edits, and hooks of
    others, take no part.

    Args:
        site: the path of a module; the named sites are known to be used.

    Raises:
        ProbeError: if the change leaves the output as it was.
    """
    reached = False

    def change(hidden: Tensor) -> Tensor | None:
        nonlocal reached
        if not hidden.is_floating_point():
            return None
        reached = True
        noise = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden)
        return hidden + (1 + hidden.abs().max()) * noise

    embedding: Any = hf.get_input_embeddings()
    rows = embedding.weight.shape[0]
    ids = torch.arange(_TOKENS, device=input_device(hf))[None] % rows
    with passes_of(hf).aside(), without_hooks(hf):
        plain = hf(input_ids=ids, use_cache=False)[0]
        detach = attach(hf, site, change)
        try:
            changed = hf(input_ids=ids, use_cache=False)[0]
        finally:
            detach()
    if reached and torch.equal(plain, changed):
        raise ProbeError(
            f"an edit at {site} would change nothing: the model does not use that tensor "
            "(only the first of several returned tensors is edited); name a module whose output the model uses"
        )
