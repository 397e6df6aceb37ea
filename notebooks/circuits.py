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
# # A behaviour, from picture to cause
#
# `tiny-rl` checks every sum that it has written. What in the model makes it begin a check? We look at what it reads,
# find the edges that carry the choice, take their heads away, and ask which of its sentences the answer hangs on.
# Everything runs on a bundled pair, on a CPU, in about two minutes.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait instead of spinning

import torch

import probe
from probe.anchors import forced_answers, thought_anchors
from probe.circuits import (
    EdgeLens,
    attention,
    attribute,
    behaviour_look,
    behaviour_pairs,
    direct_attribution,
    effect_of_heads,
    faithfulness,
    kept_by,
    logit_lens,
    patch,
    path_effect,
    receiver_heads,
    reference,
    sentence_attention,
    start_tokens,
    strongest_heads,
)
from probe.reports import (
    anchors_figure,
    attention_patterns,
    circuit_figure,
    direct_figure,
    forced_figure,
    heads_figure,
    lens_figure,
    patch_figure,
    receivers_figure,
    sentence_figure,
)

pair, problems = probe.load_pair("tiny-rl"), probe.load_problems("story")
model, train = pair.thinking, problems.take("train", 60)
traces = probe.generate_traces(model, problems, train, max_new_tokens=200)
traces[:2]

# %% [markdown]
# ## What it says, block by block
#
# The logit lens reads every block's output by the model's own last norm and unembedding. Where a sentence ends, the
# next one's first word is settled late.

# %%
trace, prompt = traces[0], model.prompt_ids(train[0].question)
text = torch.tensor([*prompt, *trace.tokens])
lens_figure(logit_lens(model, text[: len(prompt) + trace.sentences[2].token_start]))

# %% [markdown]
# ## What its heads look at
#
# Choose a head, point at a token: blue is what it looks at; with Shift, orange is what looks at it.

# %%
short = text[: len(prompt) + trace.sentences[3].token_start]
seen = attention(model, short, [2])
attention_patterns(seen.names, seen.patterns[0], [f"a2.h{head}" for head in range(4)])

# %% [markdown]
# By sentence, and which heads narrow attention to few of them (receiver heads, from *Thought Anchors*).


# %%
def spans(i):
    start = len(model.prompt_ids(train[i].question))
    return [(start + each.token_start, start + each.token_end) for each in traces[i].sentences]


def whole(i):
    return torch.tensor([*model.prompt_ids(train[i].question), *traces[i].tokens])


by_sentence = [sentence_attention(model, whole(i), spans(i)) for i in range(12)]
receivers = receiver_heads(by_sentence)
receivers_figure(receivers)

# %%
sentence_figure(by_sentence[0], *receivers.strongest(1)[0])

# %% [markdown]
# ## Where the choice is represented
#
# Pairs of prefixes of one length: after the clean one a check follows, after the corrupt one something else. A state of
# the clean run is put into the corrupt run, and we see how much of the choice it brings back.

# %%
check = probe.find_behaviour("check", problem_set=problems)
pairs = behaviour_pairs(model, traces, train, check, n_pairs=32)
found, test = pairs.split()
few = behaviour_pairs(model, traces, train, check, n_pairs=6)
patch_figure(patch(model, few), [model.decode([token]) for token in few.clean[0][0].tolist()])

# %%
patch_figure(patch(model, test, "z"))

# %% [markdown]
# Below, the choice is carried by the word " makes" of the sentence before: that it was a computing sentence. One head
# of block 2 moves it to the last token. What each writer adds to the logit by itself is another matter: the last MLPs
# turn what the head has moved into a word.

# %%
lens = EdgeLens(model)
clean, _, right, wrong = next(iter(test))
direct_figure(direct_attribution(lens, clean, right, wrong))

# %% [markdown]
# ## The circuit
#
# Every edge between heads, MLPs and logits is scored by integrated gradients; the circuit is the strongest sixteenth of
# them. On pairs that it was not found on it keeps most of the choice.

# %%
scored = attribute(lens, found, "eap-ig-inputs", steps=5)
circuit = scored.top(len(scored.graph) // 16)
curve = faithfulness(lens, scored, test, (0.02, 0.05, 0.1, 0.2, 1.0))
{"edges": len(circuit), "kept": kept_by(lens, circuit, test), "CPR": curve.cpr, "CMD": curve.cmd}

# %%
circuit_figure(circuit)

# %%
heads_figure(circuit)

# %% [markdown]
# One path through it: what changes if the corrupt text comes in along these edges alone.

# %%
edge = next(name for name, _ in circuit.listed() if name.startswith("a2."))
reader = edge.partition("->")[2]
path = [edge] if reader == "logits" else [edge, f"{reader.partition('<')[0]}->logits"]
path, path_effect(lens, test, path).mean().item()

# %% [markdown]
# ## Cause
#
# The circuit's three strongest heads are given, where a sentence begins, what they wrote at the beginning of other
# sentences. The model checks less; as many other heads of the same blocks do not do that.

# %%
heads, starts = strongest_heads(circuit, 3), start_tokens(traces)
others = reference(model, traces, tokens=starts)
look = behaviour_look(model, problems, problems.take("test", 24), check, max_new_tokens=200)
effect = effect_of_heads(model, heads, look, reference=others, tokens=starts, n_controls=2)
heads, effect["share"]

# %% [markdown]
# ## Which sentences the answer hangs on
#
# Rollouts from the start of every sentence, with the sentence and with another in its place; and what the model would
# answer if it had to stop there.

# %%
anchors = thought_anchors(model, problems, train[0], trace, n_samples=20, max_new_tokens=160)
anchors_figure(anchors)

# %%
forced_figure(forced_answers(model, problems, train[0], trace, n_samples=8))
