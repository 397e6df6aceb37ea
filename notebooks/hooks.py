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
# # Reading and writing activations by hand
#
# ## What you will have in five minutes
# - The names of all sites of a model, and a trace of it.
# - Activations of any site at the tokens that you choose, in one pass.
# - A steering vector made from them, its effect on new problems, and a control.
# - The same reads and edits in nnsight and TransformerLens, with equal results.
# - All of this for a model of your own, in the last section.
#
# Every site of a model has a name. `probe.capture` reads sites, `probe.edit` changes them, and `probe.Tokens` selects
# the tokens. The same names work in nnsight and in TransformerLens. Everything here runs on a bundled pair, on a CPU.
# To read a model of your own, set `MODEL` in the first cell; the last section uses it.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

from collections import Counter
from html import escape

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

import probe

MODEL = None  # a folder or hub id of your own; None: the bundled base model. The last section uses it.

pair = probe.load_pair("tiny-rl", device="cpu")
problems = probe.load_problems("story")
train, validation, test = problems.take("train", 100), problems.take("validation", 24), problems.take("test", 40)
pair

# %% [markdown]
# ## Sites
# A site is a kind and a layer, counted from 0: `resid_post.2`, `z.1`, `pattern.3`. Anything that is not in the table
# can be reached by its module path, such as `model.layers.2.mlp.act_fn`.

# %%
model, tokenizer = pair.thinking, pair.thinking.tokenizer
probe.site_table(model)

# %% [markdown]
# ## A trace
# A trace is one greedy answer of the model, split into sentences. This problem set knows the true type of each
# sentence.

# %%
limit = pair.config.max_new_tokens
traces = probe.generate_traces(model, problems, train, max_new_tokens=limit)
trace, prompt = traces[0], model.prompt_ids(train[0].question)


def sentence_types(trace):
    return [problems.sentence_type(trace.sentence_text(sentence)) for sentence in trace.sentences]


traces[:1]

# %% [markdown]
# ## Capture: the logit lens
# Five sites are read in one pass over prompt and trace. Without `tokens=`, every position of a site is kept:
# `[batch, pos, d_model]`. Layers above the last requested site do not run, unless `stop=False`.

# %%
ids = torch.tensor([[*prompt, *trace.tokens]])
lens_sites = ["embed", *(f"resid_post.{layer}" for layer in range(model.n_layers))]
with torch.no_grad(), probe.capture(model, lens_sites) as acts:
    model.hf(ids)
acts

# %%
before = slice(len(prompt) - 1, -1)  # the positions that predict the tokens of the trace
emitted, read = ids[0, len(prompt) :], ids[0, before]
with torch.no_grad():
    resid = torch.stack([acts[site][0, before] for site in lens_sites])
    lens = model.unembed(resid).softmax(-1)  # [site, token of the trace, vocab]
p_top, top = lens.max(-1)
p_emitted = lens.gather(-1, emitted.expand(len(lens_sites), -1)[..., None])[..., 0]

# %% [markdown]
# Each column is a token of the trace, predicted from the position before it. Each line of the figure is one change of
# the story. The colour is the probability that the layer assigns to the token that was emitted. Hover to see the
# layer's most likely token.

# %%
GREY, ORANGE, BLUE = "#7d8590", "#c8641e", "#2f7fc1"
FAINT_TO_BLUE = [[0, "rgba(125,133,144,0.10)"], [1, "rgba(47,127,193,1)"]]
STYLE = {  # no background, grey letters: the same figure on a white page and on a dark one
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": GREY, "size": 12},
    "margin": {"l": 90, "r": 20, "t": 40, "b": 60},
}
words = [escape(model.decode([token])) for token in ids[0].tolist()]
said = [[escape(model.decode([token])) for token in row] for row in top.tolist()]

starts = [s.token_start for s, kind in zip(trace.sentences, sentence_types(trace), strict=True) if kind == "restate"]
lines = list(zip(starts, [*starts[1:], len(trace.tokens)], strict=True))
figure = make_subplots(rows=len(lines), cols=1, vertical_spacing=0.09)
for number, (start, end) in enumerate(lines, 1):
    notes = [
        [f"{word} {p:.2f}" for word, p in zip(row[start:end], ps[start:end], strict=True)]
        for row, ps in zip(said, p_top.tolist(), strict=True)
    ]
    heat = go.Heatmap(z=p_emitted[:, start:end].numpy().round(4), text=notes, y=lens_sites, coloraxis="coloraxis")
    heat.update(hovertemplate="%{y}, before “%{x}”<br>p(emitted) %{z:.3f}<br>top token %{text}<extra></extra>")
    heat.update(xgap=1, ygap=1, x=list(range(end - start)))
    figure.add_trace(heat, row=number, col=1)
    labels = words[len(prompt) + start : len(prompt) + end]
    figure.update_xaxes(tickvals=list(range(end - start)), ticktext=labels, tickangle=-60, row=number, col=1)
figure.update_xaxes(range=[-0.5, max(end - start for start, end in lines) - 0.5], showgrid=False, zeroline=False)
figure.update_yaxes(showgrid=False, zeroline=False)
colours = {"colorscale": FAINT_TO_BLUE, "cmin": 0, "cmax": 1, "colorbar": {"title": "p", "thickness": 10}}
figure.update_layout(STYLE, height=190 * len(lines), coloraxis=colours)
figure

# %%
firsts = torch.zeros(len(emitted), dtype=torch.bool)
firsts[[sentence.token_start for sentence in trace.sentences]] = True
lens_table = {
    site: {
        "top token is the emitted one": (top[i] == emitted).float().mean().item(),
        "top token is the one just read": (top[i] == read).float().mean().item(),
        "p(emitted), first token of a sentence": p_emitted[i][firsts].mean().item(),
        "p(emitted), other tokens": p_emitted[i][~firsts].mean().item(),
    }
    for i, site in enumerate(lens_sites)
}
{site: {what: round(value, 2) for what, value in row.items()} for site, row in lens_table.items()}

# %% [markdown]
# In this trace the embedding predicts the token just read (embedding and unembedding share one matrix), and each block
# ranks more of the emitted tokens first. At the last block all are first, because decoding was greedy. The first token
# of a sentence, which decides what the sentence does, gets less probability than the others. The rest of this notebook
# looks at the positions where that token is chosen: the full stops.

# %% [markdown]
# ## Attention of one head
# `pattern.i` is `[batch, n_heads, query, key]`. Fused attention never computes the pattern, so eager attention is used
# while one is captured. This is head 1 of layer 2 (*Gradients* below shows why):

# %%
with torch.no_grad(), probe.capture(model, "pattern.2") as acts:
    model.hf(ids)
attention = acts["pattern.2"][0, 1, len(prompt) :]  # [query in the trace, key]

names = [f"{word} ({position})" for position, word in enumerate(words)]
past = torch.ones_like(attention, dtype=torch.bool).tril(len(prompt))
figure = go.Figure(go.Heatmap(z=attention.where(past, torch.nan).numpy().round(3), x=names, y=names[len(prompt) :]))
figure.update_traces(
    coloraxis="coloraxis", hoverongaps=False, hovertemplate="“%{y}” looks at “%{x}”: %{z:.2f}<extra></extra>"
)
marks = [sentence.token_start for sentence in trace.sentences]
kinds = [str(kind) for kind in sentence_types(trace)]
colours = {"colorscale": FAINT_TO_BLUE, "cmin": 0, "cmax": 1, "colorbar": {"title": "weight", "thickness": 10}}
figure.update_layout(STYLE, height=660, margin={"l": 100, "r": 20, "t": 40, "b": 90}, coloraxis=colours)
keys = {"tickvals": [0, *(len(prompt) + mark for mark in marks)], "ticktext": ["prompt", *kinds], "tickangle": -60}
figure.update_xaxes(title="key", showgrid=False, zeroline=False, **keys)
figure.update_yaxes(title="query", autorange="reversed", showgrid=False, tickvals=marks, ticktext=kinds)
figure

# %%
stop_looks_at = []
for sentence, kind in zip(trace.sentences, kinds, strict=True):
    weight, key = attention[sentence.token_end - 1].max(-1)
    stop_looks_at.append((f"stop after {kind}", words[key], round(weight.item(), 2)))
looked_at = Counter()
for word, weight in zip(words, attention.mean(0).tolist(), strict=True):
    looked_at[word] += weight
most = [(word, round(weight, 2)) for word, weight in looked_at.most_common(3)]
stop_looks_at, {"most attended to, mean over all queries": most}

# %% [markdown]
# At the full stop after a computing sentence the head attends to that sentence's " makes"; at the full stop after a
# check it attends to the verdict. So it distinguishes the two places. (The stripes are the word " doubles", which it
# attends to from many other places, for unknown reasons.)

# %% [markdown]
# ## Selecting tokens: a steering vector
# `Tokens(spans=...)` selects spans of each row. Here each span is one token: the last one before a sentence, where that
# sentence is chosen. The vector is the mean activation before checks minus the mean activation before all other
# sentences.

# %%
site, dot = "resid_post.2", tokenizer.convert_tokens_to_ids(".")
prompts = [model.prompt_ids(problem.question) for problem in train]
rows = [[*prompt, *trace.tokens] for prompt, trace in zip(prompts, traces, strict=True)]
batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
choices = [
    [(len(prompt) + sentence.token_start - 1, len(prompt) + sentence.token_start) for sentence in trace.sentences]
    for prompt, trace in zip(prompts, traces, strict=True)
]
with torch.no_grad(), probe.capture(model, [site, "z.2"], tokens=probe.Tokens(spans=choices)) as at_choice:
    model.hf(**batch)
is_check = torch.tensor([kind == "check" for trace in traces for kind in sentence_types(trace)])


def difference(states):
    return states[is_check].mean(0) - states[~is_check].mean(0)


vector = difference(at_choice[site])
at_choice, {"norm of the vector": round(vector.norm().item(), 1)}

# %% [markdown]
# The vector is added at every full stop that the model writes, with a negative strength, to remove checks. While an
# edit is active, it applies to every pass of `generate_traces` and `generate`. The strength is chosen on validation
# problems.


# %%
def steered(changes, questions):
    with probe.edit(model, changes):
        return probe.generate_traces(model, problems, questions, max_new_tokens=limit)


def summary(traces):
    counts = Counter(kind for trace in traces for kind in sentence_types(trace))
    a_trace = {f"{kind} a trace": round(counts[kind] / len(traces), 2) for kind in ("restate", "compute", "check")}
    return a_trace | {"correct": round(traces.accuracy, 3), "truncated": round(traces.truncated, 3)}


stops = probe.Tokens(ids=dot, phase="generation")
strengths = [0.0, -0.5, -0.75, -1.0]
curve = [summary(steered({site: probe.Add(vector, s, tokens=stops)}, validation)) for s in strengths]

figure = make_subplots(rows=1, cols=2, subplot_titles=("sentences a trace", "correct"))
for what, colour, column in (
    ("check a trace", BLUE, 1),
    ("compute a trace", ORANGE, 1),
    ("restate a trace", GREY, 1),
    ("correct", GREY, 2),
):
    line = go.Scatter(x=strengths, y=[row[what] for row in curve], name=what, line_color=colour, cliponaxis=False)
    line.update(showlegend=column == 1)
    figure.add_trace(line, row=1, col=column)
figure.update_xaxes(title="strength", gridcolor="rgba(128,128,128,0.2)", zeroline=False)
figure.update_yaxes(rangemode="tozero", gridcolor="rgba(128,128,128,0.2)", zeroline=False)
figure.update_yaxes(range=[0, 1.03], tickformat=".0%", col=2)
figure.update_layout(STYLE, height=320)
figure

# %% [markdown]
# On the test problems, the weakest strength that leaves less than one check a trace is compared with three random
# vectors of the same norm at the same tokens.

# %%
strength = max(s for s, row in zip(strengths, curve, strict=True) if row["check a trace"] < 1)
controls = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
controls *= vector.norm() / controls.norm(dim=-1, keepdim=True)

plain, taken = probe.generate_traces(model, problems, test, max_new_tokens=limit), {}
taken["vector"] = steered({site: probe.Add(vector, strength, tokens=stops)}, test)
for number, control in enumerate(controls, 1):
    taken[f"random {number}"] = steered({site: probe.Add(control, strength, tokens=stops)}, test)
{"strength": strength, "no edit": summary(plain)} | {name: summary(each) for name, each in taken.items()}

# %%
taken["vector"][:2]

# %% [markdown]
# The vector removes most checks; with the random vectors there is still one check for every computation. (They are not
# all harmless: one of them costs correct answers.) But the vector changes more than checks: the model computes more
# often than it restates, because it computes again where the check was, and most answers become wrong. In these traces
# a check always follows a computation, so the difference of means also contains "a computation has just been written",
# and removing that asks for another one. So this direction influences which sentence comes next. It does not show that
# checks make the answers right: at -0.5 most checks are still written, and accuracy is already lower.

# %% [markdown]
# ## The same in nnsight and TransformerLens
# Reading a site, steering it and generating while steered give the same tensors and the same tokens in all three.
# `nnsight_value` returns a site inside an nnsight trace, in the shape that `capture` gives. `Site.lens` is the name of
# the site's TransformerLens hook.

# %%
question = torch.tensor([model.prompt_ids(test[0].question)])
inputs = {"input_ids": question, "attention_mask": torch.ones_like(question)}
close = {"atol": 1e-5, "rtol": 1e-5}
push = strength * vector

with torch.no_grad(), probe.capture(model, site) as acts:
    model.hf(**inputs)
with torch.no_grad(), probe.edit(model, {site: push}):
    logits = model.hf(**inputs).logits
with torch.no_grad(), probe.edit(model, {site: probe.Add(vector, strength, tokens=probe.Tokens(ids=dot))}):
    text = model.hf.generate(**inputs, max_new_tokens=limit, do_sample=False)
max_new_tokens = text.shape[1] - question.shape[1]
model.decode(text[0, question.shape[1] :].tolist())

# %%
lm = model.nnsight()  # the same weights
with lm.trace(inputs):
    state = probe.nnsight_value(lm, site).save()
with lm.trace(inputs):
    probe.nnsight_value(lm, site)[:] += push
    pushed = lm.output.logits.save()
with lm.generate(max_new_tokens=limit, do_sample=False) as tracer:
    with tracer.invoke(inputs):
        for _ in tracer.iter[:max_new_tokens]:
            at_dot = (lm.model.embed_tokens.input == dot)[..., None]
            probe.nnsight_value(lm, site)[:] += push * at_dot
    with tracer.invoke():
        generated = tracer.result.save()

torch.testing.assert_close(state, acts[site], **close)
torch.testing.assert_close(pushed, logits, **close)
assert torch.equal(generated, text)

# %%
bridge = model.lens()  # a copy of the weights
hook_name = probe.Site.parse(site).lens
seen = {}


def remember_dots(tokens, hook):  # noqa: ARG001 - TransformerLens names the argument
    seen["dots"] = (tokens == dot)[..., None]


with torch.no_grad():
    _, cache = bridge.run_with_cache(question)
    pushed = bridge.run_with_hooks(question, fwd_hooks=[(hook_name, lambda state, hook: state + push)])  # noqa: ARG005
    steer_dots = (hook_name, lambda state, hook: state + push * seen["dots"])  # noqa: ARG005
    with bridge.hooks(fwd_hooks=[("embed.hook_in", remember_dots), steer_dots]):
        generated = bridge.generate(
            question, max_new_tokens=max_new_tokens, do_sample=False, stop_at_eos=False, verbose=False
        )

torch.testing.assert_close(cache[hook_name], acts[site], **close)
torch.testing.assert_close(pushed, logits, **close)
assert torch.equal(generated, text)
hook_name

# %% [markdown]
# ## Gradients: which heads choose the check?
# With `grad=True` the capture keeps the graph, and `acts.grad(site)` is the gradient after `backward()`. At the full
# stop after the first computing sentence, how much does each head's output (`z`) add to the logit of the check's first
# token, minus that of the restatement that would follow otherwise? Gradient × activation, summed over `d_head`,
# estimates this to first order, through everything that comes after the head. Setting the head to zero at that token
# measures it.

# %%
first_check = kinds.index("check")
upto = ids[:, : len(prompt) + trace.sentences[first_check].token_start]
check, restate = (trace.tokens[trace.sentences[i].token_start] for i in (first_check, first_check + 1))
heads = [f"z.{layer}" for layer in range(model.n_layers)]


def preference(logits):
    return logits[0, -1, check] - logits[0, -1, restate]


with probe.capture(model, heads, stop=False, grad=True) as acts:
    score = preference(model.hf(upto).logits)
    score.backward()
attributed = torch.stack([(acts.grad(z) * acts[z].detach())[0, -1].sum(-1) for z in heads])  # [layer, head]


def without(head):
    def zero(z):
        z = z.clone()
        z[:, :, head] = 0
        return z

    return zero


ablated = torch.zeros_like(attributed)
for layer, z in enumerate(heads):
    for head in range(ablated.shape[1]):
        with torch.no_grad(), probe.edit(model, {z: without(head)}, tokens=probe.Tokens(positions=-1)):
            ablated[layer, head] = score.detach() - preference(model.hf(upto).logits)

labels = [f"{layer}.{head}" for layer in range(model.n_layers) for head in range(ablated.shape[1])]
figure = go.Figure()
for name, values, colour in (("gradient × activation", attributed, BLUE), ("lost when set to zero", ablated, ORANGE)):
    figure.add_bar(x=labels, y=values.flatten().numpy().round(3), name=name, marker_color=colour)
figure.update_xaxes(title="layer.head", type="category", showgrid=False)
figure.update_yaxes(title="logits", gridcolor="rgba(128,128,128,0.2)", zerolinecolor=GREY)
figure.update_layout(STYLE, height=320, legend={"orientation": "h", "y": 1.15})
figure

# %%
both = torch.stack([attributed.flatten(), ablated.flatten()])
{
    "for": model.decode([check]),
    "against": model.decode([restate]),
    "difference of logits": round(score.item(), 2),
    "most for it": labels[int(both[0].argmax())],
    "most against it": labels[int(both[0].argmin())],
    "correlation of gradient and ablation": round(torch.corrcoef(both)[0, 1].item(), 3),
}

# %% [markdown]
# Here the gradient finds what ablation finds, in one backward pass instead of one pass for each head. The head that
# favours the check most is the one whose attention is shown above. This is one position of one trace: an example, not a
# circuit.

# %% [markdown]
# ## A gate that reads another site
# A gate is a function that is given the current pass and returns booleans. `latest` returns the activations of another
# site in the same pass, if that site comes before the edited one. Here the output of that head (`z.2`, head 1) predicts
# where a check would come, and the vector is added at `resid_post.2` only there.

# %%
direction = difference(at_choice["z.2"][:, 1])
along = at_choice["z.2"][:, 1] @ direction
threshold = (along[is_check].mean() + along[~is_check].mean()) / 2
fired = []


def a_check_would_come(now):
    says = head_states.latest("z.2")[:, :, 1] @ direction > threshold
    fired.append(int((says & now.real & now.after_prompt & (now.ids == dot)).sum()))
    return says


with probe.capture(model, "z.2", stop=False) as head_states:
    gated_stops = probe.Tokens(ids=dot, phase="generation", mask=a_check_would_come)
    gated = steered({site: probe.Add(vector, strength, tokens=gated_stops)}, test)
{
    "accuracy on the training traces": round(((along > threshold) == is_check).float().mean().item(), 3),
    "tokens steered, without and with the gate": (sum(t.tokens.count(dot) for t in taken["vector"]), sum(fired)),
    "every stop": summary(taken["vector"]),
    "gated": summary(gated),
}

# %% [markdown]
# About half as many tokens are steered and as many checks disappear, so the other full stops had little effect. Most
# answers are still wrong, so the damage is also done where the head predicts a check.

# %% [markdown]
# ## A model of your own
# The mean state of two kinds of text, and what the model writes with their difference added at every new token.

# %%
own = pair.base if MODEL is None else probe.load_model(MODEL)
probe.site_table(own)

# %%
first, second = ("Mia has 22 cards.", "Tom buys 5 apples."), ("So the answer is 7.", "Right.")
middle = f"resid_post.{own.n_layers // 2}"


def mean_state(texts):
    """The mean over the last tokens of some texts, each read alone."""
    states = []
    for text in texts:
        with torch.no_grad(), probe.capture(own, middle, tokens=probe.Tokens(positions=-1)) as acts:
            own.hf(torch.tensor([own.tokenizer(text).input_ids], device=own.device))
        states.append(acts[middle].flatten())
    return torch.stack(states).mean(0)


towards = mean_state(second) - mean_state(first)
start = torch.tensor([own.tokenizer(first[0]).input_ids], device=own.device)
written = {}
for name, factor in (("no edit", 0.0), ("edited", 1.0)):
    with (
        torch.no_grad(),
        probe.edit(own, {middle: probe.Add(towards, factor, tokens=probe.Tokens(phase="generation"))}),
    ):
        ids = own.hf.generate(
            input_ids=start, attention_mask=torch.ones_like(start), max_new_tokens=24, do_sample=False
        )
    written[name] = own.decode(ids[0, start.shape[1] :].tolist())
written

# %% [markdown]
# ## Cheat sheet
#
# | tokens | `Tokens(...)` |
# |---|---|
# | all | leave `tokens` out |
# | the prompt; what follows it | `phase="prompt"`; `phase="generation"` |
# | the prompt's last token | `positions=-1` |
# | the first 64 tokens; everything from the prompt's last 4 tokens on | `window=(0, 64)`; `window=(-4, None)` |
# | the first three generated tokens | `steps=[0, 1, 2]` |
# | full stops | `ids=tokenizer.convert_tokens_to_ids(".")` |
# | sentences, row by row | `spans=[[(40, 52), (52, 60)], ...]` |
# | a table of booleans `[row, position]`; a function of the pass | `mask=table`; `mask=function` |
# | both; either; but not | `Tokens(phase=..., ids=...)`; `Tokens(...) \| Tokens(...)`; `Tokens(...) - Tokens(...)` |
#
# Positions count the tokens of each row from 0; negative positions count back from the end of the prompt. Padding is
# never selected. A clause that selects nothing raises an error.
#
# | change | in `probe.edit(model, {site: ...})` |
# |---|---|
# | add a vector | `Add(vector, strength, tokens=...)`, or just the tensor |
# | remove a direction, or several | `ProjectOut(directions)` |
# | fix or limit a coordinate | `Clamp(direction, low, high)` |
# | scale all, or along a direction | `Scale(factor, direction)` |
# | patch in another state, or a mean | `Swap(state)` |
# | anything else | a function from the old state to a new one |
# | several, in order | a list |
#
# | reading | in `probe.capture(model, sites, ...)` |
# |---|---|
# | whole, `[batch, pos, ...]` | no `tokens` |
# | selected, `[token, ...]` | `tokens=...`; `acts.rows` and `acts.positions` say which |
# | one vector a row or span | `tokens=...`, `pool="mean"` (or `sum`, `max`, `last`) |
# | and run the rest of the model | `stop=False` |
# | gradients | `grad=True`, `stop=False`; `acts.grad(site)` after `backward()` |
