# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The hybrid, part by part
#
# ## What you will have in five minutes
# - A hybrid of the bundled pair, and one of its answers, with every steered token coloured.
# - Seven variants of it, each with one part exchanged: where, which, how strongly, with what.
# - The same hybrid without the thinking model.
# - The accuracy of each arm, the gap that it recovers, and the bits that it takes from the thinking model.
# - A test of each vector: does it bring about the behaviour that it is named after?
#
# A hybrid is a base model with four parts that decide *where* it is steered, with *which* behaviour, *how strongly* and
# with *what*. The sizes are small here; `probe run` does the whole experiment with every control, three seeds and
# intervals. To use two models of your own, set `PAIR` in the first cell.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

from dataclasses import replace

import probe
from probe import hybrid as parts
from probe.reports import arms_table, bits_figure, gap_figure, trace_view
from probe.statistics import share_interval
from probe.steering import PolicyConfig, SteeringConfig, learn_policy, policy_data, residual_bits, steering_layer
from probe.taxonomy import TaxonomyConfig, taxonomy_sites

PAIR = "tiny-rl"  # or the path of your own pair.yaml

pair = probe.load_pair(PAIR)
problems = probe.load_problems(pair.config.problems or "story")
train, validation, test = problems.take("train", 120), problems.take("validation", 30), problems.take("test", 30)
limit = pair.config.max_new_tokens
pair

# %% [markdown]
# ## What is learned first
# The hybrid needs traces of the thinking model, a taxonomy of the behaviours in them, and one vector for each
# behaviour. A *gate* is a position where the two models' most likely tokens differ. Its behaviour is that of the
# sentence its token belongs to. While decoding, that sentence has not been written yet, so a linear classifier learns
# to predict its behaviour from the output of the thinking model's last block.

# %%
traces = probe.generate_traces(pair.thinking, problems, train, max_new_tokens=limit)
checked = probe.generate_traces(pair.thinking, problems, validation, max_new_tokens=limit)
acts, acts_checked = (
    probe.harvest(pair.thinking, each, taxonomy_sites(pair.thinking, ())) for each in (traces, checked)
)
config = TaxonomyConfig(sizes=(4, 6), seeds=(0, 1))
taxonomy = probe.fit_taxonomy(acts, acts_checked, config, sentence_type=problems.sentence_type)
taxonomy

# %%
layer = steering_layer(pair.base, None)
reader = probe.learn_reader(pair, taxonomy, traces, train, acts=acts)
gates, gates_checked = (
    list(probe.collect_gates(pair, taxonomy, each, those, acts=sentences))
    for each, those, sentences in ((traces, train, acts), (checked, validation, acts_checked))
)
how = {"layer": layer, "config": SteeringConfig(), "seed": 0}
vectors = probe.learn_vectors(pair.base, gates, gates_checked, n_behaviours=taxonomy.n_behaviours, **how).vectors
single = probe.learn_vectors(pair.base, gates, gates_checked, n_behaviours=1, **how).vectors

# %% [markdown]
# ## One answer
# Coloured tokens were steered; the colour stands for the behaviour. Hover over one to see what the base model alone
# would have written.

# %%
arm = probe.hybrid_arm(reader, vectors)
(trace,) = probe.decode_hybrid(pair, arm, test[:1], max_new_tokens=limit)
trace_view(trace, pair.base.decode, taxonomy.names)

# %% [markdown]
# ## Exchange a part
# A control is the hybrid with one part exchanged and everything else unchanged, so `dataclasses.replace` makes one.
# `control_arms` returns the seven standard controls; three of them are decoded here, beside four of our own.

# %%
rate = parts.evaluate_arm(pair, arm, validation, max_new_tokens=limit).steered_fraction
standard = {each.name: each for each in probe.control_arms(arm, vectors, single, rate=rate, seed=0)}
arms = [
    arm,
    standard["single-vector"],
    standard["random-vectors"],
    standard["force-token"],
    replace(arm, name="at sentence starts", where=parts.SentenceStart(1)),
    replace(arm, name="where KL > 0.5 bits", where=parts.Divergence(0.5)),
    replace(arm, name="named by one token", which=parts.ThinkingBehaviour(taxonomy)),
    replace(arm, name="all twice as strong", how_strongly=parts.FixedStrength(2.0)),
]


def right(texts):
    return [problems.grade(text, problem).correct for text, problem in zip(texts, test, strict=True)]


correct = {
    name: right(trace.text for trace in probe.generate_traces(model, problems, test, max_new_tokens=limit))
    for name, model in (("base", pair.base), ("thinking", pair.thinking))
}
done = {arm.name: probe.evaluate_arm(pair, arm, test, max_new_tokens=limit) for arm in arms}

# %% [markdown]
# ## Without the thinking model
# A small network predicts where to steer, and with which behaviour, from the base model's own residual stream. The
# thinking model is not passed to `evaluate_arm`, so it cannot be consulted.

# %%
layers = tuple(range(pair.base.n_layers))
states, states_checked = (policy_data(pair.base, each, layers) for each in (gates, gates_checked))
policy = learn_policy(
    states, states_checked, layers=layers, n_behaviours=taxonomy.n_behaviours, config=PolicyConfig(), seed=0
).policy
alone = probe.oracle_free_arm(policy, vectors)
done[alone.name] = probe.evaluate_arm(pair.base, alone, test, max_new_tokens=limit)
residual_bits(policy, states_checked)

# %% [markdown]
# ## Results
# These are the figures of a run's report. With thirty problems the intervals are wide.

# %%
correct |= {name: right(result.texts) for name, result in done.items()}
results = {
    "pair": pair.config.name,
    "problems": {"name": problems.name, "split": "test", "n": len(test)},
    "arms": {
        name: {"accuracy": sum(values) / len(values), "ci": share_interval(values).ci, "n": len(values)}
        for name, values in correct.items()
    },
    "gap_recovered": {name: probe.gap_recovered(correct[name], correct["base"], correct["thinking"]) for name in done},
}
for name, result in done.items():
    results["arms"][name] |= parts.oracle_bits(result) | {"steered_fraction": result.steered_fraction}
    results["arms"][name] |= {"agreement": parts.agreement(result), "fitted_parameters": result.fitted_parameters}
arms_table(results)

# %%
gap_figure(results)

# %% [markdown]
# How much information did the thinking model supply to each arm?

# %%
bits_figure(results)

# %% [markdown]
# ## Does a vector bring about its behaviour?
# At starts of sentences where the base model would write a different sentence, each vector is added once. Does the base
# model then write a sentence of that behaviour? Behaviours at which the models rarely disagree are left out, because
# their vectors were hardly trained.

# %%
count = sum(batch.behaviour[batch.gate].bincount(minlength=taxonomy.n_behaviours) for batch in gates)
base_traces = list(probe.generate_traces(pair.base, problems, validation, max_new_tokens=limit))
trained = [k for k in range(taxonomy.n_behaviours) if count[k] >= 10]
parts.flip_rates(pair, taxonomy, base_traces, validation, mechanism=vectors, behaviours=trained, starts=30)
