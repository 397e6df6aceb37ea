"""From finished stages to the files that a run is read by.

``results.json``, ``graded.json`` (which problems each arm solved), ``behaviours.json`` and ``shown.json``.
"""

from collections import Counter

import numpy as np

from probe.activations import SentenceActivations
from probe.hybrid import (
    ArmResult,
    agreement,
    classify_errors,
    compare_arms,
    counted,
    detectable_gap,
    gap_recovered,
    grade_answers,
    oracle_bits,
    seeds_recovered,
    summarise,
    surprisal,
)
from probe.pipeline.run.inputs import Inputs
from probe.pipeline.run.stages import Rollouts, Stages, Vectors
from probe.problems import ProblemSet
from probe.taxonomy import Taxonomy

SCHEMA = 1


def results(
    stages: Stages, rollouts: Rollouts, taxonomy: Taxonomy, vectors: Vectors, arms: dict[str, ArmResult]
) -> dict:
    """The result file, schema version 1."""
    config, inputs = stages.config, stages.inputs
    correct = judged(inputs, rollouts, arms)
    rows = {"base": (rollouts.base, 0.0, rollouts.base.seconds)}
    rows |= {"thinking": (rollouts.thinking, 0.0, rollouts.thinking.seconds)}
    rows |= {name: (arm.traces, arm.steered_fraction, arm.seconds) for name, arm in arms.items()}
    entries = {
        name: summarise(
            correct[name],
            lengths=[len(trace.tokens) for trace in traces],
            truncated=[trace.truncated for trace in traces],
            steered_fraction=steered_fraction,
            seconds=seconds,
        )
        for name, (traces, steered_fraction, seconds) in rows.items()
    }
    for name, arm in arms.items():
        entries[name] |= {
            **oracle_bits(arm),
            "surprisal_per_token": surprisal(arm),
            "agreement": agreement(arm),
            "fitted_parameters": arm.fitted_parameters,
            "asks": list(arm.asks),
        }
    if "force-token" in arms:  # the same text: what it takes to write it down for the base model
        entries["thinking"]["bits_per_token"] = surprisal(arms["force-token"])
    gaps = {name: gap_recovered(correct[name], correct["base"], correct["thinking"], seed=config.seed) for name in arms}
    per_seed = ["hybrid", *(f"hybrid-seed-{seed}" for seed in config.steering.seeds[1:])]
    values = [gaps[name]["value"] for name in per_seed]
    return {
        "schema": SCHEMA,
        "pair": inputs.pair.name,
        "problems": {"name": inputs.problem_set.name, "split": "test", "n": len(inputs.test)},
        "seed": config.seed,
        "arms": {name: entry for name, entry in entries.items() if not _is_seed(name)},
        "gap_recovered": {name: gap for name, gap in gaps.items() if not _is_seed(name)},
        "seeds": {
            "values": list(config.steering.seeds),
            "hybrid": [{"accuracy": entries[name]["accuracy"], "gap_recovered": gaps[name]} for name in per_seed],
            "mean": None if None in values else float(np.mean(values)),
            "sd": None if None in values or len(values) < 2 else float(np.std(values, ddof=1)),
            "gap_recovered": seeds_recovered(
                [correct[name] for name in per_seed], correct["base"], correct["thinking"], seed=config.seed
            ),
        },
        "tests": {
            "reference": "hybrid",
            "arms": compare_arms({name: correct[name] for name in entries if not _is_seed(name)}, "hybrid"),
            "detectable_gap": detectable_gap(correct["base"], correct["thinking"]),
        },
        "oracle": {
            **oracle_bits(arms["hybrid"]),
            "fitted_parameters": vectors.seeds[0].n_parameters,
            "fitted_parameters_single": vectors.single.n_parameters,
        },
        "taxonomy": {
            "site": taxonomy.site,
            "k": taxonomy.n_behaviours,
            **{name: taxonomy.scores.get(name) for name in ("variance_explained", "stability", "ami")},
        },
        "settings": {
            "steering_site": f"resid_post.{vectors.layer}",
            "device": str(inputs.pair.base.device),
            "dtype": config.dtype,
        },
    }


def graded(inputs: Inputs, rollouts: Rollouts, arms: dict[str, ArmResult]) -> dict:
    """Which test problems each arm solved; None where an answer could not be graded."""
    correct = judged(inputs, rollouts, arms)
    return {
        "problems": [problem.id for problem in inputs.test],
        "correct": {name: each for name, each in correct.items() if not _is_seed(name)},
    }


def observed(inputs: Inputs, rollouts: Rollouts, arms: dict[str, ArmResult]) -> dict:
    """Behaviours counted in the texts of the main arms, and what went wrong in the wrong answers of all."""
    correct = judged(inputs, rollouts, arms)
    texts = _texts(rollouts, arms)
    emitted = {
        "base": [trace.tokens for trace in rollouts.base],
        "thinking": [trace.tokens for trace in rollouts.thinking],
    }
    emitted |= {
        name: [trace.tokens for trace in arms[name].traces] for name in ("hybrid", "oracle-free") if name in arms
    }
    errors = {
        name: classify_errors(inputs.problem_set, inputs.test, some, correct[name])
        for name, some in texts.items()
        if not _is_seed(name)
    }
    return {
        "counters": counted(inputs.pair.base, inputs.problem_set, inputs.test, emitted),
        "errors": {name: found for name, found in errors.items() if found is not None},
    }


def _texts(rollouts: Rollouts, arms: dict[str, ArmResult]) -> dict[str, list[str]]:
    texts = {"base": [trace.text for trace in rollouts.base], "thinking": [trace.text for trace in rollouts.thinking]}
    return texts | {name: arm.texts for name, arm in arms.items()}


def _is_seed(name: str) -> bool:
    return name.startswith("hybrid-seed-")


def judged(inputs: Inputs, rollouts: Rollouts, arms: dict[str, ArmResult]) -> dict[str, list[bool | None]]:
    """Every arm's answers on the test problems, graded."""
    close = inputs.pair.config.think_close
    return {
        name: grade_answers(inputs.problem_set, inputs.test, some, close)
        for name, some in _texts(rollouts, arms).items()
    }


def behaviours(
    taxonomy: Taxonomy,
    vectors: Vectors,
    hybrid: ArmResult,
    validation: SentenceActivations,
    problem_set: ProblemSet,
) -> list[dict]:
    """One card a behaviour: what its sentences are, and what its vector did on the test problems."""
    assigned = taxonomy.behaviour(validation.vectors[taxonomy.site])
    gates: dict[int, list[float]] = {k: [] for k in range(taxonomy.n_behaviours)}
    for trace in hybrid.traces:
        for behaviour, strength, steered in zip(trace.behaviour, trace.strength, trace.steered, strict=True):
            if steered:
                gates[behaviour].append(strength)
    cards = []
    for k in range(taxonomy.n_behaviours):
        members = [text for text, b in zip(validation.texts, assigned.tolist(), strict=True) if b == k]
        types = (
            Counter(problem_set.sentence_type(text) or "none" for text in members)
            if problem_set.sentence_type
            else Counter()
        )
        name, count = types.most_common(1)[0] if types else (None, 0)
        cards.append(
            {
                "behaviour": k,
                "label": taxonomy.names[k],
                "share": len(members) / max(1, len(validation.texts)),
                "true_type": name,
                "true_share": count / len(members) if types else None,
                "examples": taxonomy.examples[k],
                "vector_norm": vectors.seeds[0].vectors[k].norm().item(),
                "mean_strength": float(np.mean(gates[k])) if gates[k] else None,
                "gates": len(gates[k]),
            }
        )
    return cards


def shown(inputs: Inputs, rollouts: Rollouts, arms: dict[str, ArmResult], n: int) -> list[dict]:
    """The traces that the report shows: the first problems of the test split, every arm, token by token."""
    tokenizer, correct = inputs.pair.base, judged(inputs, rollouts, arms)
    rows = []
    for i, problem in enumerate(inputs.test[:n]):
        row: dict = {"problem_id": problem.id, "question": problem.question, "answer": problem.answer, "arms": {}}
        for name, traces in (("base", rollouts.base), ("thinking", rollouts.thinking)):
            row["arms"][name] = {"text": traces[i].text, "correct": correct[name][i]}
        for name, arm in arms.items():
            trace = arm.traces[i]
            if not trace.steered:  # a model by itself
                row["arms"][name] = {"text": arm.texts[i], "correct": correct[name][i]}
                continue
            tokens = [
                {
                    "text": tokenizer.decode([token]),
                    "steered": steered,
                    "behaviour": behaviour if steered else None,
                    "strength": round(strength, 3) if steered else None,
                    "base": tokenizer.decode([base]),
                    "thinking": tokenizer.decode([thinking]) if thinking >= 0 else None,
                }
                for token, steered, behaviour, strength, base, thinking in zip(
                    trace.tokens,
                    trace.steered,
                    trace.behaviour,
                    trace.strength,
                    trace.base_token,
                    trace.thinking_token,
                    strict=True,
                )
            ]
            row["arms"][name] = {"text": arm.texts[i], "correct": correct[name][i], "tokens": tokens}
        rows.append(row)
    return rows
