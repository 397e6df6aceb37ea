"""Heads that make a behaviour begin: what each adds directly to the tokens that begin its sentences."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.circuits.heads.table import HeadScores, HeadTable, stacked
from probe.circuits.heads.written import output_weights
from probe.circuits.lenses.direct import FrozenNorm
from probe.circuits.lenses.starts import sentence_starts
from probe.hooks import Tokens, capture
from probe.models import Model, Site, place
from probe.problems import Problem
from probe.taxonomy import Behaviour
from probe.traces import Trace

_MEANING = (
    "logits that the head adds to the first tokens of the behaviour's sentences, against those of others, before such "
    "a sentence; null: before other sentences of the same trace"
)


@torch.no_grad()
def behaviour_heads(
    model: Model, traces: Sequence[Trace], problems: Sequence[Problem], behaviour: Behaviour, *, seed: int = 0
) -> HeadTable:
    """Score every head by how much more it writes towards a behaviour before its sentences than before others.

    Which tokens begin the behaviour is counted on the traces of every second problem, and the heads are scored on the
    rest. The score is the direct contribution to the logits of these tokens, with the scale of the last norm fixed;
    what a head does by way of later blocks is not in it. It ablates nothing and needs one pass for each trace.

    Args:
        traces: traces with sentences, of this model or of its pair.
        problems: the problem of each trace.
        behaviour: any behaviour.
        seed: seeds the random signs of the test.

    Returns:
        A table with one kind, the behaviour's name; its items are traces that have sentences of both sorts.

    Raises:
        NotApplicable: if too few traces show the behaviour, the last norm is of an unknown kind, or a norm follows the
            attention, so that the heads do not add up.
    """
    starts = sentence_starts(model, traces, problems, behaviour)
    towards = starts.towards(model)
    values, nulls = [], []
    for text in starts.measured:
        shares = _shares(model, text.ids, [at - 1 for at in text.places], towards)
        shown = torch.tensor(text.shows)
        values.append(shares[shown].mean(0))
        nulls.append(shares[~shown].mean(0))
    scores = HeadScores.of(starts.name, _MEANING, stacked(values), stacked(nulls), seed=seed)
    return HeadTable(model.name, (scores,))


def _shares(
    model: Model, ids: Sequence[int], places: Sequence[int], towards: Float[Tensor, " d_model"]
) -> Float[Tensor, "places layers heads"]:
    """What each head adds, along a direction after the last norm, at some tokens."""
    last = model.n_layers - 1
    sites = [Site(kind, layer) for layer in range(model.n_layers) for kind in ("z", "attn_out")]
    with capture(model, [*sites, "final_norm", f"resid_post.{last}"], tokens=Tokens(positions=list(places))) as acts:
        model.hf(torch.tensor([list(ids)], device=model.device), use_cache=False, logits_to_keep=1)
    norm: Any = model.hf.get_submodule(place(model.hf, "final_norm").module)
    direction = FrozenNorm(norm, acts[f"resid_post.{last}"].float(), acts["final_norm"].float()).back(towards)
    found = []
    for layer in range(model.n_layers):
        z = acts[f"z.{layer}"].float()
        weights, _ = output_weights(model, layer, z, acts[f"attn_out.{layer}"].float())
        found.append(torch.einsum("phe,hed,pd->ph", z, weights, direction))
    return torch.stack(found, 1).cpu()
