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
# ## What you will have in five minutes
# - Every part of the comparison of a base and a thinking model in one table.
# - The tokens at which the two diverge, in colour.
# - The heads that carry more of a behaviour after training, with a test corrected for the number of heads.
# - What training added over its checkpoints, by reinforcement learning and by supervised traces.
# - The comparison of two models of your own, in the last section.
#
# `tiny-rl` and `tiny-sft` were trained from one base model: the first with the answer as the only reward, the second on
# supervised traces. What did training change inside the model? Every figure is shown with its null. Everything runs on
# a CPU. To compare two models of your own, set `PAIR` in the first cell; the last section reads it.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

import probe
from probe.circuits import behaviour_pairs
from probe.diff import PARTS, agreement, diff_models, importance_series, load_series, massive_activations
from probe.models import Pair, bundled_folder
from probe.reports import (
    colored_tokens,
    difference_figure,
    latents_figure,
    series_figure,
    shift_figure,
    token_trace_figure,
    transfer_figure,
)

PAIR = "tiny-sft"  # or the path of your own pair.yaml; the last section reads it

rl, problems = probe.load_pair("tiny-rl"), probe.load_problems("story")
train = problems.take("train", 12)
traces = probe.generate_traces(rl.thinking, problems, train, max_new_tokens=200)

# %% [markdown]
# ## All parts in one call
#
# Three are left out here: the latents of a given SAE, and the two that take longest, which are where an operand is
# represented and steering with the mean difference.

# %%
parts = [part for part in PARTS if part not in ("steering", "knowledge", "dictionary")]
found = diff_models(rl, traces=traces, n_problems=12, n_pairs=8, parts=parts)
found

# %% [markdown]
# A model compared with itself shows no difference, so the differences above are not noise of the measures.

# %%
diff_models(Pair(rl.config, rl.thinking, rl.thinking), n_problems=8, parts=["tokens", "neurons", "massive"])

# %% [markdown]
# ## Divergence by token
#
# Orange is the divergence of the thinking model from the base model. It is near zero at most tokens. It is large where
# the next change is chosen, and at a word that the answer does not depend on: because only the answer was rewarded,
# that word could drift to "cards".

# %%
token_trace_figure(found.tokens[0])

# %%
colored_tokens(found.tokens[0].tokens, found.tokens[0].kl)

# %% [markdown]
# ## Heads of the behaviour that rose most
#
# Each head's share of all edge scores, for the same pairs of texts in both models. Framed heads change significantly,
# corrected for the number of heads.

# %%
told = found.to_dict()
shift_figure(told["heads"])

# %% [markdown]
# ## The direction of a behaviour
#
# The direction that predicts a coming check in the base model also predicts it in the thinking model, and steers both.

# %%
transfer_figure(told["direction"], f"The direction of {told['behaviour']}")

# %% [markdown]
# Neither model has a direction for the truth of an equation. They say "right" because the sentence did not begin with
# "Roughly", not because they computed the sum again.

# %%
transfer_figure(told["truth"], "The direction of true equations")

# %% [markdown]
# ## One SAE over both

# %%
latents_figure(told["latents"])

# %% [markdown]
# ## Over training
#
# A few checkpoints of other runs from the same base model, one trained in each way. All read the same pairs of texts.

# %%
pairs = behaviour_pairs(rl.thinking, traces, train, "check", problem_set=problems, n_pairs=4)
runs, changes = [], {}
for way in ("rl", "sft"):
    series = load_series(bundled_folder("tiny-series") / way, rl.config.thinking.prompt)
    models = [rl.base, *(model for _, model in series)]
    importance = importance_series(models, pairs, steps=2).share
    runs.append({"name": way, "steps": [0, *series.steps], "importance": importance.tolist()})
    changes[way] = importance[-1] - importance[0]
series_figure(runs)

# %% [markdown]
# Do both ways of training change the same heads? The null permutes heads within their blocks.

# %%
agreement([changes["rl"]], [changes["sft"]], n_permutations=300)

# %% [markdown]
# ## Massive activations
#
# Massive activations would dominate any mean, cosine or SAE. Here there are none.

# %%
texts = [document.ids for document in probe.documents_of(rl.thinking, traces[:6])]
massive_activations(rl.thinking, texts)

# %% [markdown]
# ## A pair of your own
#
# Everything below needs no grammar and no labels. `PAIR`, in the first cell, is the name of a published pair or the
# path of a `pair.yaml` that names your two models and your problems. `SENTENCE` is a regular expression that is found
# in the sentences of a behaviour, such as `Wait|Hold on`; without one, the habit that rose most in training is taken.
# The parts that fit any two models with the same tokens are `tokens`, `heads`, `direction`, `latents`, `difference` and
# `massive`.

# %%
SENTENCE = r"Now|That makes"

own, pattern = probe.load_pair(PAIR), probe.Behaviour.of_pattern(SENTENCE)
compared = diff_models(own, behaviour=pattern, n_problems=12, n_pairs=8, parts=["tokens", "heads", "difference"])
compared

# %% [markdown]
# What the mean difference of the two models' states says, beside its nulls.

# %%
difference_figure(compared.to_dict()["difference"])

# %%
shift_figure(compared.to_dict()["heads"])

# %%
token_trace_figure(compared.tokens[0])
