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
# # From two models to a hybrid
#
# ## What you will have in five minutes
# - A finished run, opened and read: its arms, traces, behaviours and a circuit.
# - An answer of a hybrid: a base model that is steered where the thinking model would write something else.
# - Your own hybrid of the bundled pair, made stage by stage, with one control.
# - The share of the gap in accuracy that it recovers, with an interval.
#
# To use two models of your own, set `PAIR` in the first cell to the path of a `pair.yaml`. `CONTRIBUTING.md` shows what
# such a file holds.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

import probe
from probe.steering import SteeringConfig, steering_layer
from probe.taxonomy import TaxonomyConfig, taxonomy_sites

PAIR = "tiny-rl"  # or the path of your own pair.yaml

# %% [markdown]
# ## A finished run
# `probe.demo()` opens a small run of the bundled pair `tiny-rl`. `probe.open_run(FOLDER)` opens a run of yours in the
# same way. The table has a row for each arm: the base model alone, the thinking model alone, the hybrid, and controls
# that exchange one part of it.

# %%
run = probe.demo()
run

# %% [markdown]
# The traces of the thinking model, sentence by sentence:

# %%
run.traces.thinking[:2]

# %% [markdown]
# The behaviours that a small SAE found in them, without labels:

# %%
run.taxonomy

# %% [markdown]
# The edges between heads and MLPs that make the thinking model begin a check:

# %%
run.circuits["check"]

# %% [markdown]
# Arms answer new questions. Coloured tokens were steered; the colour stands for the behaviour.

# %%
run.ask(run.problems.take("test", 1)[0].question, arm="hybrid")

# %% [markdown]
# ## The same by hand
# The rest of this notebook runs the stages of `probe run` by hand. It collects traces of the thinking model, finds the
# behaviours in them, learns one vector for each behaviour, and steers the base model with those vectors. The sizes are
# small. `probe run --pair tiny-rl` does the whole experiment with every control.

# %%
pair = probe.load_pair(PAIR)
problems = probe.load_problems(pair.config.problems or "story")
train, validation, test = problems.take("train", 120), problems.take("validation", 30), problems.take("test", 40)
pair

# %% [markdown]
# ### Traces
# Each model has its own prompt. Here the thinking model answers the training and validation problems.

# %%
limit = pair.config.max_new_tokens
thinking = probe.generate_traces(pair.thinking, problems, train, max_new_tokens=limit)
checked = probe.generate_traces(pair.thinking, problems, validation, max_new_tokens=limit)
thinking

# %% [markdown]
# ### Behaviours
# A small SAE is trained on the mean residual stream of each sentence, without labels. The bundled problem set knows the
# true type of each sentence. The adjusted mutual information (`ami`) of behaviours and true types is reported, but
# never used to choose anything.

# %%
acts, acts_checked = (
    probe.harvest(pair.thinking, each, taxonomy_sites(pair.thinking, ())) for each in (thinking, checked)
)
config = TaxonomyConfig(sizes=(4, 6), seeds=(0, 1))
taxonomy = probe.fit_taxonomy(acts, acts_checked, config, sentence_type=problems.sentence_type)
taxonomy

# %% [markdown]
# ### Vectors
# The vectors are learned at *gates*: positions in the thinking model's text where the most likely tokens of the two
# models differ. The behaviour of a gate is that of the sentence its token belongs to. While decoding, that sentence has
# not been written yet, so a linear classifier learns to predict its behaviour.

# %%
layer = steering_layer(pair.base, None)
reader = probe.learn_reader(pair, taxonomy, thinking, train, acts=acts)
gates, gates_checked = (
    list(probe.collect_gates(pair, taxonomy, each, those, acts=sentences))
    for each, those, sentences in ((thinking, train, acts), (checked, validation, acts_checked))
)
learned = probe.learn_vectors(
    pair.base,
    gates,
    gates_checked,
    n_behaviours=taxonomy.n_behaviours,
    layer=layer,
    config=SteeringConfig(),
    seed=0,
)
learned.history

# %% [markdown]
# ### The hybrid, and one control
# The control differs from the hybrid only in the directions of its vectors, which are random. "Gap recovered" is the
# share of the gap in accuracy between base and thinking model that an arm closes.

# %%
hybrid = probe.hybrid_arm(reader, learned.vectors)
controls = probe.control_arms(hybrid, learned.vectors, learned.vectors, rate=0.1, seed=0)
random_vectors = next(arm for arm in controls if arm.name == "random-vectors")


def right(texts):
    return [problems.grade(text, problem).correct for text, problem in zip(texts, test, strict=True)]


correct = {
    name: right(trace.text for trace in probe.generate_traces(model, problems, test, max_new_tokens=limit))
    for name, model in (("base", pair.base), ("thinking", pair.thinking))
}
for arm in (hybrid, random_vectors):
    result = probe.evaluate_arm(pair, arm, test, max_new_tokens=limit)
    correct[arm.name] = right(result.texts)
{name: sum(values) / len(values) for name, values in correct.items()}

# %%
{arm: probe.gap_recovered(correct[arm], correct["base"], correct["thinking"]) for arm in ("hybrid", "random-vectors")}

# %%
import plotly.graph_objects as go

figure = go.Figure(
    go.Bar(x=list(correct), y=[sum(values) / len(values) for values in correct.values()], marker_color="#4477aa")
)
figure.update_layout(yaxis={"title": "accuracy", "range": [0, 1]}, template="plotly_white", height=320)
figure
