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
# # What RL changed, what SFT changed
#
# Two models trained from one base: `tiny-rl` by the answer alone, `tiny-sft` on taught traces. What differs inside,
# and what would look different by chance? Every figure has its null beside it. A CPU needs about two minutes.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait instead of spinning

import probe
from probe.circuits import behaviour_pairs
from probe.diff import agreement, diff_models, importance_series, load_series, massive_activations
from probe.models import Pair, bundled_folder
from probe.reports import (
    colored_tokens,
    latents_figure,
    series_figure,
    shift_figure,
    token_trace_figure,
    transfer_figure,
)

rl, sft = probe.load_pair("tiny-rl"), probe.load_pair("tiny-sft")

# %% [markdown]
# ## Everything at once

# %%
found = diff_models(rl, n_problems=20, n_pairs=16)
found

# %% [markdown]
# A model compared with itself differs in nothing: what is told above is not noise of the measures.

# %%
diff_models(Pair(rl.config, rl.thinking, rl.thinking), n_problems=8, parts=["tokens", "neurons", "massive"])

# %% [markdown]
# ## Where they part, token by token
#
# Orange: divergence of the thinking model from the base. Most tokens hardly differ. What does is which change is told
# next, and a word that the answer does not hang on: a reward for answers alone lets it drift to "cards".

# %%
token_trace_figure(found.tokens[0])

# %%
colored_tokens(found.tokens[0].tokens, found.tokens[0].kl)

# %% [markdown]
# ## Heads of the behaviour that rose most
#
# The share of all edge scores that leaves each head, on the same pairs of texts. Framed heads differ beyond what parts
# of the pairs differ in, all heads taken together.

# %%
told = found.to_dict()
shift_figure(told["heads"])

# %%
taught = diff_models(sft, n_problems=20, n_pairs=16, parts=["heads", "tokens"]).to_dict()
shift_figure(taught["heads"])

# %%
taught["findings"]

# %% [markdown]
# ## A direction, carried over
#
# What tells the base that a check is due tells the thinking model too, and pushes either.

# %%
transfer_figure(told["direction"], f"The direction of {told['behaviour']}")

# %% [markdown]
# Whether an equation is true is another matter: neither model has a direction for it. They say "right" because nothing
# was rough, not because they have done the sum again.

# %%
transfer_figure(told["truth"], "The direction of true equations")

# %% [markdown]
# ## One SAE over both

# %%
latents_figure(told["latents"])

# %% [markdown]
# ## Step by step
#
# A few checkpoints of another run from the same base, by either way of training; the same pairs of texts in all.

# %%
problems = probe.load_problems("story")
train = problems.take("train", 16)
traces = probe.generate_traces(rl.thinking, problems, train, max_new_tokens=200)
pairs = behaviour_pairs(rl.thinking, traces, train, "check", problem_set=problems, n_pairs=6, min_group=1)
runs, changes = [], {}
for way in ("rl", "sft"):
    series = load_series(bundled_folder("tiny-series") / way, rl.config.thinking.prompt)
    models = [rl.base, *(model for _, model in series)]
    importance = importance_series(models, pairs, steps=2).share
    runs.append({"name": way, "steps": [0, *series.steps], "importance": importance.tolist()})
    changes[way] = importance[-1] - importance[0]
series_figure(runs)

# %% [markdown]
# Do the two ways change the same heads? The null exchanges heads within their blocks.

# %%
agreement([changes["rl"]], [changes["sft"]], n_permutations=300)

# %% [markdown]
# ## A guard
#
# Massive activations would be most of any mean, cosine or SAE. There are none here.

# %%
texts = [document.ids for document in probe.documents_of(rl.thinking, traces[:6])]
massive_activations(rl.thinking, texts)
