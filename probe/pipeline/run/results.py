"""Turns a finished run into ``results.json``, ``graded.json``, ``behaviours.json`` and ``shown.json``."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from probe.config import read_as, to_dict
from probe.files import write_json
from probe.hybrid import (
    agreement,
    answer_prompts,
    classify_errors,
    compare_arms,
    counted,
    decoding_passes,
    detectable_gap,
    gap_recovered,
    oracle_bits,
    passes,
    seeds_recovered,
    summarise,
    surprisal,
    text_bits,
)
from probe.pipeline.run.arms import SEED, recipe
from probe.pipeline.run.finished import Finished
from probe.pipeline.run.training import not_converged, training
from probe.pipeline.stages import describe_behaviours
from probe.problems import SPLITS, Problem
from probe.reports import to_columns
from probe.traces import token_name, token_texts

SCHEMA = 1
_BITS = "bits.json"


def results(finished: Finished) -> dict:
    """Collect what ``results.json`` holds, schema version 1."""
    experiment, arms, correct = finished.experiment, finished.arms, finished.correct
    stages, vectors, taxonomy = experiment.stages, experiment.vectors, experiment.taxonomy
    config, inputs = stages.config, stages.inputs
    rows = {name: (found, 0.0, found.seconds) for name, found in experiment.rollouts.of_test.items()}
    rows |= {name: (arm.traces, arm.steered_fraction, arm.seconds) for name, arm in arms.items()}
    entries = {
        name: summarise(
            correct[name],
            emitted=[trace.tokens for trace in traces],
            texts=finished.texts[name],
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
            **passes(arm),
            **arm.told,
        }
        if recipe(name).on_thinking:  # the thinking model is the one that is decoded
            entries[name] |= {"thinking_passes": entries[name]["base_passes"], "base_passes": 0.0}
            bits = _bits_given_base(finished, name)
            entries[name] |= dict.fromkeys(("bits_per_token", "surprisal_per_token"), bits)
            entries[name] |= {"bits_per_steered_token": None, "parts": entries[name]["parts"] | {"token": bits}}
    for name, found in experiment.rollouts.of_test.items():
        other = "base" if name == "thinking" else "thinking"
        entries[name] |= {f"{name}_passes": decoding_passes(found), f"{other}_passes": 0.0}
    if "force-token" in arms:  # the arm emits the text of the thinking model, so its surprisal is that of the text
        entries["thinking"]["bits_per_token"] = surprisal(arms["force-token"])
    trained = training(experiment, arms)
    for name in arms:
        entries[name]["not_converged"] = not_converged(trained, name)
    gaps = {name: gap_recovered(correct[name], correct["base"], correct["thinking"], seed=config.seed) for name in arms}
    per_seed = ["hybrid", *(f"{SEED}{seed}" for seed in config.steering.seeds[1:])]
    values = [gaps[name]["value"] for name in per_seed]
    return {
        "schema": SCHEMA,
        "pair": inputs.pair.name,
        "problems": {
            "name": inputs.problem_set.name,
            "split": "test",
            "n": len(inputs.test),
            **{split: len(getattr(inputs, split)) for split in SPLITS},
            "note": inputs.problem_set.note,
        },
        "seed": config.seed,
        "sampling": to_dict(inputs.sampling),
        "arms": {name: entry for name, entry in entries.items() if not _is_seed(name)},
        "gap_recovered": {name: gap for name, gap in gaps.items() if not _is_seed(name)},
        "seeds": {
            "values": list(config.steering.seeds),
            "hybrid": [
                {
                    "accuracy": entries[name]["accuracy"],
                    "gap_recovered": gaps[name],
                    "not_converged": entries[name]["not_converged"],
                }
                for name in per_seed
            ],
            "mean": None if None in values else float(np.mean(values)),
            "sd": None if None in values or len(values) < 2 else float(np.std(values, ddof=1)),
            "gap_recovered": seeds_recovered(
                [correct[name] for name in per_seed], correct["base"], correct["thinking"], seed=config.seed
            ),
        },
        "tests": {
            "reference": "hybrid",
            "arms": compare_arms({name: correct[name] for name in entries if _is_tested(name)}, "hybrid"),
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
            **{name: taxonomy.scores.get(name) for name in ("variance_explained", "stability", "ami", "converged")},
        },
        "training": trained,
        "settings": {
            "steering_site": f"resid_post.{vectors.layer}",
            "device": ", ".join(map(str, inputs.pair.base.devices)),
            "dtype": config.dtype,
        },
    }


def _bits_given_base(finished: Finished, name: str) -> float:
    """Measure the bits per token that encode the answers of an arm given the base model; kept beside the arm."""
    experiment, arm = finished.experiment, finished.arms[name]
    inputs, config = experiment.inputs, experiment.config

    def make(folder: Path, finished: bool) -> float:
        if not finished:
            asked = _of_answers(inputs.test, len(arm.traces))
            bits = text_bits(inputs.pair.base, asked, [trace.tokens for trace in arm.traces])
            write_json(folder / _BITS, {"bits_per_token": bits})
        return read_as(dict[str, float], folder / _BITS)["bits_per_token"]

    settings = recipe(name).settings(config)
    return experiment.branch(f"arms/{name}/given-base", make, settings, config.seed, how=("decoding.batch_size",))


def graded(finished: Finished) -> dict:
    """Collect which test problems each arm solved; None if an answer could not be graded.

    For an arm with several samples, each problem has the grades of all its samples.
    """
    return {
        "problems": [problem.id for problem in finished.experiment.inputs.test],
        "correct": {name: each for name, each in finished.correct.items() if not _is_seed(name)},
    }


def observed(finished: Finished) -> dict:
    """Count behaviours in the texts of the main arms, and classify the wrong answers of all."""
    inputs, arms = finished.experiment.inputs, finished.arms
    main = finished.experiment.rollouts.of_test | {
        name: arms[name].traces for name in ("hybrid", "oracle-free") if name in arms
    }
    emitted = {name: [trace.tokens for trace in traces] for name, traces in main.items()}
    errors = {
        name: classify_errors(inputs.problem_set, _of_answers(inputs.test, len(texts)), texts, finished.grades(name))
        for name, texts in finished.texts.items()
        if not _is_seed(name)
    }
    return {
        "counters": counted(inputs.pair.base, inputs.problem_set, inputs.test, emitted),
        "errors": {name: found for name, found in errors.items() if found is not None},
    }


def _of_answers(problems: Sequence[Problem], answers: int) -> list[Problem]:
    """The problem of each answer."""
    return [problem for problem in problems for _ in range(answers // len(problems))]


def _is_seed(name: str) -> bool:
    return name.startswith(SEED)


def _is_tested(name: str) -> bool:
    """Whether an arm is compared with the hybrid; changes of the thinking model alone are not."""
    return not (_is_seed(name) or recipe(name).on_thinking)


def behaviours(finished: Finished) -> list[dict]:
    """Describe each behaviour: what its sentences are, and what its vector did on the test problems."""
    experiment = finished.experiment
    taxonomy, validation = experiment.taxonomy, experiment.acts[1]
    gates: dict[int, list[float]] = {k: [] for k in range(taxonomy.n_behaviours)}
    for trace in finished.arms["hybrid"].traces:
        for behaviour, strength, steered in zip(trace.behaviour, trace.strength, trace.steered, strict=True):
            if steered:
                gates[behaviour].append(strength)
    assigned = taxonomy.behaviour(validation.rows(taxonomy.site)).tolist()
    sentence_type = experiment.inputs.problem_set.sentence_type
    return [
        row
        | {
            "label": taxonomy.names[k],
            "vector_norm": experiment.vectors.seeds[0].vectors[k].norm().item(),
            "mean_strength": float(np.mean(gates[k])) if gates[k] else None,
            "gates": len(gates[k]),
        }
        for k, row in enumerate(describe_behaviours(taxonomy, validation.texts, assigned, sentence_type))
    ]


def shown(finished: Finished, n: int) -> list[dict]:
    """Collect the traces that the report shows: the first ``n`` test problems, every arm, token by token.

    Of several samples of a problem, the first is shown.
    """
    inputs, rollouts, arms = finished.experiment.inputs, finished.experiment.rollouts, finished.arms
    base, grades = inputs.pair.base, {name: finished.grades(name) for name in finished.correct}

    @cache
    def name_of(token: int) -> str:
        return token_name(token, base.decode, base.tokenizer)

    def said(token: int, emitted: int, text: str) -> str:
        return text if token == emitted else name_of(token)

    rows = []
    for i, problem in enumerate(inputs.test[:n]):
        row: dict = {"problem_id": problem.id, "question": problem.question, "answer": problem.answer, "arms": {}}
        for name, traces in rollouts.of_test.items():
            samples = len(traces) // len(inputs.test)
            first = i * samples
            about = _about(finished, i, name, samples, traces[first].truncated) | {"correct": grades[name][first]}
            row["arms"][name] = about | {"text": traces[first].text}
        for name, arm in arms.items():
            first = i * arm.samples
            trace, alone = arm.traces[first], recipe(name).on_thinking
            about = _about(finished, i, name, arm.samples, trace.truncated) | {"correct": grades[name][first]}
            if not trace.steered:  # no hybrid: one model wrote it
                row["arms"][name] = about | {"text": arm.texts[first]}
                continue
            tokens = [
                {
                    "text": text,
                    "steered": steered,
                    "behaviour": behaviour if steered and behaviour >= 0 else None,
                    "strength": round(strength, 3) if steered else None,
                    "base": None if alone else said(first, token, text),
                    "thinking": said(first if alone else second, token, text) if alone or second >= 0 else None,
                }
                for token, text, steered, behaviour, strength, first, second in zip(
                    trace.tokens,
                    token_texts(trace.tokens, base.decode, base.tokenizer),
                    trace.steered,
                    trace.behaviour,
                    trace.strength,
                    trace.base_token,
                    trace.thinking_token,
                    strict=True,
                )
            ]
            row["arms"][name] = about | {"tokens": to_columns(tokens)}
            # The text is that of the tokens, and is written only where it is another.
            if arm.texts[first] != "".join(token["text"] for token in tokens):
                row["arms"][name]["text"] = arm.texts[first]
        rows.append(row)
    return rows


def _about(finished: Finished, i: int, name: str, samples: int, truncated: bool) -> dict:
    """The grade of an arm's first answer to a problem, and how the answer ended."""
    inputs, problem = finished.experiment.inputs, finished.experiment.inputs.test[i]
    text, thinking = finished.texts[name][i * samples], finished.by_thinking(name)
    each = len(thinking) // len(inputs.test)
    own = thinking[i * each : (i + 1) * each]
    (prompt,) = answer_prompts(inputs.pair, [problem], [text], [own])
    grade = inputs.problem_set.grade(text, problem, think_close=inputs.pair.think_tags, prompt=prompt)
    end = inputs.pair.think_tags.end(text)
    return {"answer": grade.answer, "truncated": truncated, "think_end": end, "samples": samples}
