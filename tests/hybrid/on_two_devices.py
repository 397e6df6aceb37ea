"""A script: the stages of a run with both models on one device, and on a pretended device each; says what differs."""

import json
import sys
from typing import Any

from probe.activations import harvest
from probe.hybrid import control_arms, decode_hybrid, fusion_arm, hybrid_arm, oracle_free_arm, speculative_arm
from probe.models import Pair, load_pair
from probe.problems import load_problems
from probe.steering import (
    Mechanism,
    PolicyConfig,
    SteeringConfig,
    collect_gates,
    learn_policy,
    learn_reader,
    learn_vectors,
    policy_data,
)
from probe.taxonomy import Taxonomy, TaxonomyConfig, fit_taxonomy
from probe.traces import generate_traces
from tests.pretend import Pretend, move

PROBLEMS = load_problems("story")
TRAIN, VALIDATION, TEST = (PROBLEMS.take(split, n) for split, n in (("train", 6), ("validation", 3), ("test", 3)))
FEW = TaxonomyConfig(sites=("resid_post.2",), sizes=(3,), k=3, steps=20, seeds=(0,), rivals=())


def stages(pair: Pair, taxonomy: Taxonomy | None = None) -> tuple[dict[str, Any], Taxonomy, Mechanism]:
    """What each stage gives, the taxonomy, and the vectors."""
    found: dict[str, Any] = {}
    parts = [(generate_traces(pair.thinking, PROBLEMS, some, max_new_tokens=40), some) for some in (TRAIN, VALIDATION)]
    found["traces"] = [trace.tokens for trace in parts[0][0]]
    acts = [harvest(pair.thinking, traces, "resid_post.2") for traces, _ in parts]
    taxonomy = taxonomy or fit_taxonomy(acts[0], acts[1], FEW)
    train, validation = (
        list(collect_gates(pair, taxonomy, list(traces), some, acts=own))
        for (traces, some), own in zip(parts, acts, strict=True)
    )
    found["gates"] = [batch.gate.tolist() for batch in train]
    reader = learn_reader(pair, taxonomy, list(parts[0][0]), TRAIN, acts=acts[0])
    few = SteeringConfig(steps=6, seeds=(0,))
    learned = learn_vectors(pair.base, train, validation, n_behaviours=3, layer=1, config=few, seed=0)
    found["loss"] = round(learned.history[-1]["loss"], 4)
    data = [policy_data(pair.base, batches, (1, 2)) for batches in (train, validation)]
    policy = learn_policy(*data, layers=(1, 2), n_behaviours=3, config=PolicyConfig(steps=20), seed=0).policy
    arm = hybrid_arm(reader, learned.vectors, "hybrid")
    arms = [arm, oracle_free_arm(policy, learned.vectors), speculative_arm(4), fusion_arm(0.5)]
    arms += control_arms(arm, learned.vectors, learned.vectors, rate=0.1, seed=0, among=3)
    for each in arms:
        found[each.name] = [trace.tokens for trace in decode_hybrid(pair, each, TEST, max_new_tokens=24)]
    return found, taxonomy, learned.vectors


if __name__ == "__main__":
    pair = load_pair("tiny-rl", device="cpu")
    plain, taxonomy, _ = stages(pair)
    with Pretend():
        move(pair.base, "pretend:0")
        move(pair.thinking, "pretend:1")
        apart, _, vectors = stages(pair, taxonomy)
    told = {"stages": list(plain), "differ": [name for name in plain if plain[name] != apart[name]]}
    sys.stdout.write(json.dumps(told | {"vectors": str(vectors.vectors.device)}) + "\n")
