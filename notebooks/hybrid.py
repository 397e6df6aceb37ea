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
# A hybrid is a base model, and four parts that say *where* it is steered, with *which* behaviour, *how strongly* and
# with *what*. Here each part is exchanged by hand, the hybrid is freed from the thinking model, and it is asked whether
# a vector brings about the behaviour that it is named for. Sizes are small, so that everything runs on a CPU in about
# three minutes; `probe run` does it with every control, three seeds and intervals.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait instead of spinning

from dataclasses import replace

import probe
from probe import hybrid as parts
from probe.hybrid.effects import flip_rates
from probe.hybrid.oracle import agreement, oracle_bits
from probe.reports import arms_table, bits_figure, gap_figure, trace_view
from probe.steering import PolicyConfig, SteeringConfig, learn_policy, policy_data, residual_bits, steering_layer

pair = probe.load_pair("tiny-rl", device="cpu")
problems = probe.load_problems("story")
train, validation, test = problems.take("train", 200), problems.take("validation", 60), problems.take("test", 60)
limit = pair.config.max_new_tokens
pair

# %% [markdown]
# ## What is learned beforehand
# Traces of the thinking model, behaviours in them, and one vector a behaviour. Where the two models' likeliest tokens
# differ is a *gate*; it is named by the sentence that its token is in. That sentence is not written yet while decoding,
# so a linear reader of the thinking model's last block learns to tell its name.

# %%
traces = probe.generate_traces(pair.thinking, problems, train, max_new_tokens=limit)
checked = probe.generate_traces(pair.thinking, problems, validation, max_new_tokens=limit)
acts, acts_checked = (probe.harvest(pair.thinking, each, ["resid_post.1"]) for each in (traces, checked))
taxonomy = probe.fit_taxonomy(acts, acts_checked, sentence_type=problems.sentence_type)
taxonomy

# %%
layer = steering_layer(pair.base, None)
reader = probe.learn_reader(pair, taxonomy, traces, train, acts=acts)
gates, gates_checked = (
    list(probe.collect_gates(pair, taxonomy, each, those, acts=sentences))
    for each, those, sentences in ((traces, train, acts), (checked, validation, acts_checked))
)
how = {"layer": layer, "config": SteeringConfig(epochs=4), "seed": 0}
vectors = probe.learn_vectors(pair.base, gates, gates_checked, n_behaviours=taxonomy.n_behaviours, **how).vectors
single = probe.learn_vectors(pair.base, gates, gates_checked, n_behaviours=1, **how).vectors

# %% [markdown]
# ## One answer
# Coloured tokens were steered, each in the colour of its behaviour. Hover one: what would the base model have written?

# %%
arm = probe.hybrid_arm(reader, vectors)
(trace,) = probe.decode_hybrid(pair, arm, test[:1], max_new_tokens=limit)
trace_view(trace, pair.base.decode, taxonomy.names)

# %% [markdown]
# ## Exchange a part
# A control is the hybrid with one part exchanged and everything else left alone: `dataclasses.replace`.

# %%
rate = parts.evaluate_arm(pair, arm, validation, max_new_tokens=limit).steered_fraction
arms = [
    arm,
    *probe.control_arms(arm, vectors, single, rate=rate, seed=0),
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
# ## Never ask
# Where to steer and which behaviour, read off the base model's own residual stream by a small network. The thinking
# model is not handed in, so it cannot have been asked.

# %%
layers = tuple(range(pair.base.n_layers))
states, states_checked = (policy_data(pair.base, each, layers) for each in (gates, gates_checked))
policy = learn_policy(
    states, states_checked, layers=layers, n_behaviours=taxonomy.n_behaviours, config=PolicyConfig(), seed=0
)
alone = probe.oracle_free_arm(policy, vectors)
done[alone.name] = probe.evaluate_arm(pair.base, alone, test, max_new_tokens=limit)
residual_bits(policy, states_checked)

# %% [markdown]
# ## What came of it
# The same figures as in the report of a run. With sixty problems the intervals are wide.

# %%
correct |= {name: right(result.texts) for name, result in done.items()}
results = {
    "pair": "tiny-rl",
    "problems": {"name": "story", "split": "test", "n": len(test)},
    "arms": {
        name: {"accuracy": sum(values) / len(values), "ci": parts.accuracy_interval(values), "n": len(values)}
        for name, values in correct.items()
    },
    "gap_recovered": {name: probe.gap_recovered(correct[name], correct["base"], correct["thinking"]) for name in done},
}
for name, result in done.items():
    results["arms"][name] |= oracle_bits(result) | {"steered_fraction": result.steered_fraction}
    results["arms"][name] |= {"agreement": agreement(result), "fitted_parameters": result.fitted_parameters}
arms_table(results)

# %%
gap_figure(results)

# %% [markdown]
# How much did the thinking model have to tell for it?

# %%
bits_figure(results)

# %% [markdown]
# ## Does a vector do what it is named for?
# At starts of sentences where the base model would write another sentence, the vector is added once; is the sentence
# then of the behaviour? A behaviour at which the models hardly ever disagree has no trained vector, and is left out.

# %%
count = sum(batch.behaviour[batch.gate].bincount(minlength=taxonomy.n_behaviours) for batch in gates)
base_traces = list(probe.generate_traces(pair.base, problems, validation, max_new_tokens=limit))
trained = [k for k in range(taxonomy.n_behaviours) if count[k] >= 10]
flip_rates(pair, taxonomy, base_traces, validation, mechanism=vectors, behaviours=trained, starts=60)
