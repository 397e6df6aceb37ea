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
# The stages of `probe run`, by hand, on a bundled pair: the thinking model's traces, the behaviours in them, one vector
# a behaviour, and the base model steered with those vectors. Sizes are small; `probe run --pair tiny-rl` does the whole
# experiment with every control.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait instead of spinning

import probe
from probe.steering import SteeringConfig, steering_layer
from probe.taxonomy import TaxonomyConfig

pair = probe.load_pair("tiny-rl", device="cpu")
problems = probe.load_problems("story")
train, validation, test = problems.take("train", 200), problems.take("validation", 60), problems.take("test", 60)
pair

# %% [markdown]
# ## Traces
# Each model is asked with its own prompt; both emit the same kind of text.

# %%
limit = pair.config.max_new_tokens
thinking = probe.generate_traces(pair.thinking, problems, train, max_new_tokens=limit)
checked = probe.generate_traces(pair.thinking, problems, validation, max_new_tokens=limit)
thinking

# %% [markdown]
# ## Behaviours
# A small SAE over the mean residual stream of each sentence. Nobody told it the types of sentence; the adjusted mutual
# information (`ami`) with the true types is reported and never used for a choice.

# %%
acts, acts_checked = (probe.harvest(pair.thinking, each, ["resid_post.2"]) for each in (thinking, checked))
taxonomy = probe.fit_taxonomy(acts, acts_checked, TaxonomyConfig(), sentence_type=problems.sentence_type)
taxonomy

# %% [markdown]
# ## Vectors
# Learned at the positions where the two models' likeliest tokens differ, on the thinking model's own text. Each such
# gate is named by the sentence that its token is in, which a linear reader tells while that is not written yet.

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
    config=SteeringConfig(epochs=4),
    seed=0,
)
learned.history

# %% [markdown]
# ## The hybrid, and one control
# The control keeps everything but the directions of the vectors.

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
