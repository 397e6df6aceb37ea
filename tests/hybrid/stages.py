"""The stages of a run, by the functions of the library, on a pair that may lie anywhere."""

import math
from pathlib import Path
from typing import Any

import torch
from sae_lens import TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata

from probe.activations import harvest
from probe.adapters import Ablate, inserted
from probe.hooks import Add, Tokens, UpperLayers, capture, causal_masks, edit, force, forced_pass
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    DistilConfig,
    FixedStrength,
    OneBehaviour,
    control_arms,
    decode_hybrid,
    distil_lora,
    fusion_arm,
    hybrid_arm,
    oracle_free_arm,
    run_lora,
    speculative_arm,
    with_mechanism,
)
from probe.models import Model, Pair
from probe.problems import load_problems
from probe.steering import (
    PolicyConfig,
    RankOne,
    SteeringConfig,
    collect_gates,
    decoder_rows,
    difference_of_means,
    learn_mechanism,
    learn_on_sentences,
    learn_policy,
    learn_reader,
    learn_vectors,
    policy_data,
    sentence_batches,
)
from probe.taxonomy import Taxonomy, TaxonomyConfig, fit_taxonomy
from probe.traces import generate_traces

PROBLEMS = load_problems("story")
TRAIN, VALIDATION, TEST = (PROBLEMS.take(split, n) for split, n in (("train", 6), ("validation", 3), ("test", 3)))
_FEW = TaxonomyConfig(sites=("resid_post.2",), sizes=(3,), k=3, steps=20, seeds=(0,), rivals=())
_TOKENS = 10


def stages(pair: Pair, taxonomy: Taxonomy | None = None, folder: Path | None = None) -> tuple[dict[str, Any], Taxonomy]:
    """What each stage gives, and the taxonomy."""
    found: dict[str, Any] = {}
    parts = [(generate_traces(pair.thinking, PROBLEMS, some, max_new_tokens=40), some) for some in (TRAIN, VALIDATION)]
    found["traces"] = [trace.tokens for trace in parts[0][0]]
    acts = [harvest(pair.thinking, traces, "resid_post.2") for traces, _ in parts]
    found["harvest"] = _numbers(acts[0].rows("resid_post.2")[[0, 5, 9]][:, ::9])
    taxonomy = taxonomy or fit_taxonomy(acts[0], acts[1], _FEW)
    train, validation = (
        list(collect_gates(pair, taxonomy, list(traces), some, acts=own))
        for (traces, some), own in zip(parts, acts, strict=True)
    )
    found["gates"] = [batch.gate.tolist() for batch in train]
    reader = learn_reader(pair, taxonomy, list(parts[0][0]), TRAIN, acts=acts[0])
    few = SteeringConfig(steps=6, seeds=(0,))
    learned = learn_vectors(pair.base, train, validation, n_behaviours=3, layer=1, config=few, seed=0)
    fresh = RankOne(3, pair.base.d_model, 1)
    rank_one = learn_mechanism(pair.base, fresh, train, validation, config=few, seed=0)
    whole = [
        sentence_batches(pair, taxonomy, list(traces), some, acts=own)
        for (traces, some), own in zip(parts, acts, strict=True)
    ]
    _, bias = learn_on_sentences(pair.base, *whole, n_behaviours=0, layer=1, config=few, seed=0)
    found["losses"] = [each.history[-1]["loss"] for each in (learned, rank_one, bias)]
    data = [policy_data(pair.base, batches, (1, 2)) for batches in (train, validation)]
    policy = learn_policy(*data, layers=(1, 2), n_behaviours=3, config=PolicyConfig(steps=20), seed=0).policy
    arm = hybrid_arm(reader, learned.vectors, "hybrid")
    means = difference_of_means(pair.base, train, 3, 1)
    rows = decoder_rows(taxonomy, learned.vectors.vectors.norm(dim=1), pair.base, 1)
    arms = [arm, oracle_free_arm(policy, learned.vectors), speculative_arm(4), fusion_arm(0.5)]
    arms += control_arms(arm, learned.vectors, learned.vectors, rate=0.1, seed=0, among=3)
    arms += [with_mechanism(arm, each, name) for each, name in ((means, "mean-difference"), (rows, "decoder-rows"))]
    arms += [with_mechanism(arm, rank_one.vectors, "rank-1")]
    arms += [Arm("bias", Always(), OneBehaviour(), FixedStrength(), AddVector(bias.vectors))]
    for each in arms:
        found[each.name] = [trace.tokens for trace in decode_hybrid(pair, each, TEST, max_new_tokens=_TOKENS)]
    found |= inside(pair.thinking) | {f"base {name}": value for name, value in inside(pair.base).items()}
    if folder is not None:
        one, two = ((list(traces), some) for traces, some in parts)
        config = DistilConfig(steps=3, batch_size=3, check_every=3)
        tuned = distil_lora(pair.base, one, two, rank=2, folder=folder, config=config, seed=0)
        found["lora loss"] = tuned.history[-1]["loss"]
        result = run_lora(pair.base, folder, "lora", TEST, max_new_tokens=_TOKENS)
        found["lora"] = [trace.tokens for trace in result.traces]
    found["vectors"] = learned.vectors.vectors.device == pair.base.device
    return found, taxonomy


def inside(model: Model) -> dict[str, Any]:
    """What is read and written inside a model, also by gradients."""
    found: dict[str, Any] = {}
    prompts = [model.prompt_ids(problem.question) for problem in TEST]
    forced = force(model, prompts, [model.prompt_ids(TEST[0].question)[:5]] * len(TEST))
    masks = causal_masks(model, forced.valid, forced.ids.shape[1])
    how = {"attention_mask": masks, "position_ids": forced.positions}
    vector = torch.linspace(-1, 1, model.d_model)
    sites = ["resid_post.0", "resid_mid.2", "z.1", "pattern.3", "final_norm", "mlp_post.3"]
    with torch.no_grad(), capture(model, sites, stop=False) as acts:
        logits = model.hf(input_ids=forced.ids, **how).logits
    found["capture"] = {site: _numbers(acts[site][:, :3].flatten()[::97]) for site in sites}
    found["lens"] = _numbers(model.unembed(acts["resid_post.0"])[:, 3, ::50])
    ran = forced_pass(model, forced, ["resid_post.3"])
    found["forced"] = _numbers(ran.logits[:, :, ::50]) + _numbers(ran.predicting("resid_post.3")[..., ::50])
    changes = {
        "resid_post.1": Add(vector, tokens=Tokens(positions=-1)),
        "mlp_out.2": lambda state: 2 * state + vector.to(state),
    }
    with torch.no_grad(), edit(model, changes):
        found["edit"] = _numbers(model.hf(input_ids=forced.ids, attention_mask=forced.valid.long()).logits[:, -1, ::50])
    if model.device.index in (None, 0):  # torch's backward pass knows one pretended device only
        with capture(model, ["resid_post.0", "resid_post.2"], grad=True, stop=False) as kept:
            model.hf(input_ids=forced.ids, **how).logits.logsumexp(-1).sum().backward()
        found["gradient"] = [_numbers(kept.grad(site)[:, ::7, ::50]) for site in kept.sites]
    upper = UpperLayers(model, 1)
    with torch.no_grad(), capture(model, "resid_post.1") as below:
        model.hf(input_ids=forced.ids, **how)
    again = upper(below["resid_post.1"], **how)
    found["upper layers"] = _numbers(again[:, ::7, ::50])
    assert torch.allclose(again[forced.valid], logits[forced.valid], atol=1e-4)
    sae = _sae(model)
    with capture(model, "resid_post.2") as read, torch.no_grad():
        model.hf(input_ids=forced.ids, **how)
    found["sae"] = _numbers(sae.encode(read["resid_post.2"])[:, ::5, ::9])
    with torch.no_grad(), inserted(model, Ablate(sae, latents=(1, 2))):
        found["inserted sae"] = _numbers(
            model.hf(input_ids=forced.ids, attention_mask=forced.valid.long()).logits[:, -1, ::50]
        )
    return found


def _sae(model: Model) -> TopKSAE:
    metadata = SAEMetadata(hook_name="blocks.2.hook_resid_post")
    config = TopKSAEConfig(d_in=model.d_model, d_sae=64, k=8, apply_b_dec_to_input=True, metadata=metadata)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sae = TopKSAE(config)
    return sae.requires_grad_(False).to(model.device)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names under which two results differ; numbers may differ by rounding."""
    return [name for name in other if not _alike(one[name], other[name])]


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=2e-3)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


def _numbers(values: torch.Tensor) -> list[float]:
    return values.detach().float().flatten().tolist()
