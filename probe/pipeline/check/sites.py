"""Checks of sites: what is read is what the model computes, and edits change that and nothing else."""

from typing import Any

import torch

from probe.errors import NotApplicable
from probe.hooks import Add, capture, edit
from probe.models import all_sites
from probe.pipeline.check.bench import Bench, difference, judged
from probe.pipeline.check.checks import Check
from probe.traces import decode_greedy

_GROUP = "sites"


def hidden_states(bench: Bench) -> Check:
    """``resid_post`` of each layer is the hidden state that transformers returns."""
    model = bench.model
    row = torch.tensor([bench.rows[1]], device=model.device)
    sites = all_sites(model.hf, "resid_post")
    with torch.no_grad(), capture(model, [*map(str, sites), "final_norm"], stop=False) as acts:
        out: Any = model.hf(input_ids=row, use_cache=False, output_hidden_states=True)
    # The last hidden state is the output of the final norm.
    pairs = [(acts[str(site)], state) for site, state in zip(sites[:-1], out.hidden_states[1:-1], strict=True)]
    pairs.append((acts["final_norm"], out.hidden_states[-1]))
    value = max(difference(found, wanted) for found, wanted in pairs)
    return judged(
        _GROUP,
        "hook = hidden states",
        value,
        bench.rounding,
        f"resid_post of {len(sites)} layers is what output_hidden_states returns",
        "resid_post is not what output_hidden_states returns: the table of sites does not fit this model's code; "
        "report the architecture, and name modules by their paths",
    )


def residual(bench: Bench) -> Check:
    """What attention and MLP add to the residual stream gives the residual stream."""
    model = bench.model
    there = {site.kind for site in all_sites(model.hf)}
    needed = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    if missing := [kind for kind in needed if kind not in there]:
        raise NotApplicable(f"this model has no site {missing[0]}")
    row = torch.tensor([bench.rows[1]], device=model.device)
    names = [str(site) for site in all_sites(model.hf, *needed, "resid_mid", "per_layer_out")]
    with torch.no_grad(), capture(model, names) as acts:
        model.hf(input_ids=row, use_cache=False)
    worst, where = 0.0, ""
    for layer in range(model.n_layers):
        pre, attn, mlp, post = (acts[f"{kind}.{layer}"].float() for kind in needed)
        if f"per_layer_out.{layer}" in acts:  # Gemma 4, which also scales what leaves a block
            mlp = mlp + acts[f"per_layer_out.{layer}"].float()
        post = post / getattr(model.layers[layer], "layer_scalar", 1.0)
        found = [(pre + attn + mlp, post, "resid_post")]
        if "resid_mid" in there:
            mid = acts[f"resid_mid.{layer}"].float()
            found = [(pre + attn, mid, "resid_mid"), (mid + mlp, post, "resid_post")]
        for got, wanted, kind in found:
            if (value := difference(got, wanted)) > worst:
                worst, where = value, f"{kind}.{layer}"
    return judged(
        _GROUP,
        "residual identities",
        worst,
        bench.rounding,
        f"in each of {model.n_layers} layers, attn_out and mlp_out add up to the residual stream",
        f"at {where}, what attention and MLP add does not give the residual stream: this model scales or norms it in a "
        "way that the table of sites does not know; do not use attn_out, mlp_out or circuits on it",
    )


def unembedded(bench: Bench) -> Check:
    """The final norm and the unembedding of the last residual stream give the logits."""
    model = bench.model
    row = torch.tensor([bench.rows[1]], device=model.device)
    last = f"resid_post.{model.n_layers - 1}"
    with torch.no_grad(), capture(model, last, stop=False) as acts:
        wanted = model.hf(input_ids=row, use_cache=False).logits
    value = difference(model.unembed(acts[last]), wanted)
    return judged(
        _GROUP,
        "norm + unembedding = logits",
        value,
        bench.rounding,
        "the final norm and the unembedding of the last residual stream give the logits",
        "the final norm and the unembedding do not give the logits, so the logit lens is wrong on this model; "
        "report the architecture",
    )


def edited(bench: Bench) -> Check:
    """An edit by zero changes nothing, another does what it says, and afterwards the model is bit for bit as before."""
    model, ids = bench.model, bench.rows[1]
    row = torch.tensor([ids], device=model.device)
    site = f"resid_post.{model.n_layers // 2}"
    hooks = _hooks(model.hf)
    numbers = torch.Generator().manual_seed(0)
    vector = torch.randn(model.d_model, generator=numbers)
    before = bench.plain(ids)
    tokens = decode_greedy(model, [ids], 8)
    with edit(model, {site: Add(vector, 0.0)}):
        nothing, same = bench.plain(ids), decode_greedy(model, [ids], 8)
    with torch.no_grad(), capture(model, site) as acts:
        model.hf(input_ids=row, use_cache=False)
    wanted = acts[site] + vector.to(acts[site])
    with torch.no_grad(), edit(model, {site: Add(vector)}), capture(model, site, stop=False) as acts:
        changed = model.hf(input_ids=row, use_cache=False).logits[0]
    after = bench.plain(ids)
    faults = [
        (not torch.equal(nothing, before), "adding zero changes logits"),
        (same != tokens, "steering with strength 0 changes the tokens that are decoded"),
        (not torch.equal(acts[site], wanted), "an added vector does not arrive as it is"),
        (torch.equal(changed, before), "an added vector changes no logits"),
        (not torch.equal(after, before), "after an edit, the model is not what it was"),
        (_hooks(model.hf) != hooks, "an edit leaves hooks behind"),
    ]
    wrong = [said for fault, said in faults if fault]
    return judged(
        _GROUP,
        "edits",
        len(wrong),
        0,
        "strength 0 changes nothing, an added vector arrives, and afterwards the model is bit for bit what it was",
        f"{'; '.join(wrong)}: the model's code computes something else in each pass (dropout, noise, a compiled part); "
        "load it with transformers alone",
    )


def _hooks(hf: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in hf.modules())
