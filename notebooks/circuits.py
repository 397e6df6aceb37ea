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
# # What makes a model begin a behaviour
#
# ## What you will have in five minutes
# - What every block would write next, by the logit lens and a Jacobian lens.
# - Attention token by token and sentence by sentence, and the heads that concentrate it.
# - The circuit that makes a model begin a behaviour, how much of the choice it keeps, and what ablating its heads does.
# - The sentences of a trace that its answer depends on.
# - The circuit of a behaviour of your own pair, in the last section.
#
# `tiny-rl` checks every sum that it has written. What in the model makes it begin a check? Everything runs on a bundled
# pair, on a CPU. To use two models of your own, set `PAIR` in the first cell; the last section reads it.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

from tempfile import TemporaryDirectory

import torch

import probe
from probe.anchors import forced_answers, thought_anchors
from probe.circuits import (
    Circuit,
    EdgeLens,
    attention,
    attribute,
    behaviour_look,
    behaviour_pairs,
    direct_attribution,
    effect_of_heads,
    faithfulness,
    find_heads,
    fit_jacobian_lens,
    kept_by,
    logit_lens,
    patch,
    path_effect,
    receiver_heads,
    receiver_scores,
    reference,
    sentence_attention,
    sentence_attribution,
    start_tokens,
    strongest_heads,
)
from probe.reports import (
    anchors_figure,
    attention_patterns,
    circuit_view,
    direct_figure,
    features_figure,
    forced_figure,
    head_gallery,
    heads_figure,
    lens_figure,
    patch_figure,
    receivers_figure,
    trace_map,
)

PAIR = "tiny-sft"  # or the path of your own pair.yaml; the last section reads it

pair, problems = probe.load_pair("tiny-rl"), probe.load_problems("story")
model, train = pair.thinking, problems.take("train", 60)
traces = probe.generate_traces(model, problems, train, max_new_tokens=200)
traces[:2]

# %% [markdown]
# ## The logit lens
#
# The logit lens applies the model's final norm and unembedding to the output of every block. At the end of a sentence,
# only the late blocks decide the first word of the next one.

# %%
trace, prompt = traces[0], model.prompt_ids(train[0].question)
text = torch.tensor([*prompt, *trace.tokens])
beginning = text[: len(prompt) + trace.sentences[2].token_start]
lens_figure(logit_lens(model, beginning))

# %% [markdown]
# A Jacobian lens first carries the output of each block to the last one, by the mean derivative over some texts. Four
# texts are enough for a look; a lens for measurements needs about a hundred.

# %%
jacobian = fit_jacobian_lens(model, traces[40:44])
lens_figure(logit_lens(model, beginning, jacobian))

# %% [markdown]
# ## Attention
#
# Choose a head and point at a token: blue shows what the token attends to; with Shift, orange shows what attends to it.

# %%
short = text[: len(prompt) + trace.sentences[3].token_start]
seen = attention(model, short, [2])
attention_patterns(seen.names, seen.patterns[0], [f"a2.h{head}" for head in range(4)])

# %% [markdown]
# Attention by sentence, and the receiver heads (*Thought Anchors*), which concentrate attention on few sentences.


# %%
def spans(i):
    start = len(model.prompt_ids(train[i].question))
    return [(start + each.token_start, start + each.token_end) for each in traces[i].sentences]


def whole(i):
    return torch.tensor([*model.prompt_ids(train[i].question), *traces[i].tokens])


by_sentence = [sentence_attention(model, whole(i), spans(i), n_links=6) for i in range(12)]
receivers = receiver_heads(by_sentence)
receivers_figure(receivers)

# %% [markdown]
# Which earlier sentences does each sentence attend to, and which does it depend on? Point at a sentence or a cell.
# Attribution is gradient × embedding, for the log-probability of the sentence. The map stays quick at thousands of
# tokens.

# %%
trace_map(by_sentence[0], sentence_attribution(model, whole(0), spans(0)), heads=receivers.strongest(8))

# %% [markdown]
# The heads as cards, those with the highest kurtosis first.

# %%
head_gallery(by_sentence[0], receiver_scores(model, by_sentence), n=8)

# %% [markdown]
# ## Where the choice is represented
#
# The texts are pairs of prefixes of equal length: a check follows the clean one, and another sentence follows the
# corrupt one. A state of the clean run is patched into the corrupt run, to measure how much of the choice it restores.

# %%
check = probe.find_behaviour("check", problem_set=problems)
pairs = behaviour_pairs(model, traces, train, check, n_pairs=24)
found, test = pairs.split()
few = behaviour_pairs(model, traces, train, check, n_pairs=4)
patch_figure(patch(model, few), [model.decode([token]) for token in few.clean[0][0].tolist()])

# %%
patch_figure(patch(model, test, "z"))

# %% [markdown]
# In the early blocks the choice is at the word " makes" of the previous sentence, which shows that it was a computing
# sentence. One head of block 2 moves it to the last token. Direct attribution measures something else, what each head
# and MLP adds to the logit itself: the last MLPs turn what that head has moved into a word.

# %%
lens = EdgeLens(model)
clean, _, right, wrong = next(iter(test))
direct_figure(direct_attribution(lens, clean, right, wrong))

# %% [markdown]
# ## The circuit
#
# Every edge between heads, MLPs and logits is scored by integrated gradients. The circuit is the strongest sixteenth of
# them. On pairs that it was not found on, it keeps most of the choice.

# %%
scored = attribute(lens, found, "eap-ig-inputs", steps=3)
circuit = scored.top(len(scored.graph) // 16)
curve = faithfulness(lens, scored, test, (0.03, 0.1, 1.0))
{"edges": len(circuit), "kept": kept_by(lens, circuit, test), "CPR": curve.cpr, "CMD": curve.cmd}

# %%
circuit_view(circuit)

# %%
heads_figure(circuit)

# %% [markdown]
# One path through it: the change when only these edges carry the corrupt text.

# %%
edge = next(name for name, _ in circuit.listed() if name.startswith("a2."))
reader = edge.partition("->")[2]
path = [edge] if reader == "logits" else [edge, f"{reader.partition('<')[0]}->logits"]
path, path_effect(lens, test, path).mean().item()

# %% [markdown]
# ## Latents
#
# A small SAE of the output of block 1 has latents that carry the choice too. They are chosen on one half of the pairs
# and measured on the other. Look at the share of the error first: it is what the SAE does not explain.

# %%
with TemporaryDirectory() as folder:
    store = probe.harvest(model, traces[:20], "resid_post.1", unit="token", folder=folder)
    sae = probe.train_sae(store, "resid_post.1", latents=64, k=8, steps=100, batch_size=256)
latents = probe.feature_scores(model, sae, pairs, steps=2)
features_figure(latents)

# %%
probe.latent_examples(model, sae, traces[:20], [latents.top(1)[0].latent], behaviour=check)

# %% [markdown]
# ## Ablation
#
# Where a sentence begins, the outputs of the circuit's three strongest heads are replaced by their outputs at the
# beginning of other sentences. The model checks less. Doing the same to other heads of the same blocks has no such
# effect.

# %%
heads, starts = strongest_heads(circuit, 3), start_tokens(traces)
others = reference(model, traces, tokens=starts)
look = behaviour_look(model, problems, problems.take("test", 16), check, max_new_tokens=200)
effect = effect_of_heads(model, heads, look, reference=others, tokens=starts, n_controls=2)
heads, effect["share"]

# %% [markdown]
# ## Which sentences the answer depends on
#
# The model rolls out from every sentence, once with the sentence and once with another in its place. The second figure
# shows what the model answers if its thinking is stopped there.

# %%
anchors = thought_anchors(model, problems, train[0], trace, n_samples=12, max_new_tokens=160)
anchors_figure(anchors)

# %%
forced_figure(forced_answers(model, problems, train[0], trace, n_samples=8))

# %% [markdown]
# ## A pair of your own
#
# Everything below needs no grammar and no labels: a pair, and a pattern that is found in the sentences of a behaviour.
# `PAIR`, in the first cell, is the name of a published pair or the path of a `pair.yaml` that names your two models and
# your problems. `SENTENCE` is a regular expression, such as `Wait|Hold on`. A counter works in its place
# (`probe.find_behaviour`), and so does a category that an SAE found. On a large model, give `attribute` a window, such
# as `window=(-256, None)`.

# %%
SENTENCE = r"Now|That makes"

own, pattern = probe.load_pair(PAIR), probe.Behaviour.of_pattern(SENTENCE)
questions = probe.load_problems(own.config.problems)
some = questions.take("train", 40)
rollouts = probe.generate_traces(own.thinking, questions, some, max_new_tokens=200)
{"sentences with it": sum(map(sum, pattern.marks(rollouts))), "of": sum(len(each.sentences) for each in rollouts)}

# %% [markdown]
# The circuit, chosen on one half of the texts, and what it keeps on the other half. The controls are circuits of random
# edges that are at least as large and on whole paths too.

# %%
half, rest = behaviour_pairs(own.thinking, rollouts, some, pattern, n_pairs=16).split()
lens = EdgeLens(own.thinking)
scored = attribute(lens, half, "eap-ig-inputs", steps=3)
circuit = scored.top(len(scored.graph) // 8)


def random_circuit(seed):
    scores = torch.rand(scored.scores.shape, generator=torch.Generator().manual_seed(seed))
    sizes = (Circuit(scored.graph, scores).top(n) for n in range(len(circuit), len(scored.graph) + 1))
    return next(each for each in sizes if len(each) >= len(circuit))


controls = [random_circuit(seed) for seed in range(3)]
{
    "edges": len(circuit),
    "kept": kept_by(lens, circuit, rest),
    "random edges": [len(each) for each in controls],
    "they keep": [kept_by(lens, each, rest) for each in controls],
}

# %%
circuit_view(circuit)

# %% [markdown]
# The circuit's strongest heads over a whole trace, and what kind of heads they are. Each kind has a p value, corrected
# over all heads of the model.

# %%
start = own.thinking.prompt_ids(some[0].question)
ids = torch.tensor([*start, *rollouts[0].tokens])
places = [(len(start) + each.token_start, len(start) + each.token_end) for each in rollouts[0].sentences]
strongest = strongest_heads(circuit, 6)
seen = sentence_attention(own.thinking, ids, places, sorted({layer for layer, _ in strongest}), n_links=6)
head_gallery(seen, find_heads(own.thinking), heads=strongest)

# %%
trace_map(seen, heads=strongest)
