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
# # Adapters through SAEs
#
# An SAE in a model's way, a LoRA that is trained through it, the noise that it must beat; a named behaviour baked into
# the weights, and the proof that it works through the latent that it is said to; and the way out, to PEFT and to
# llama.cpp. On the bundled base model everything takes about three minutes on a CPU.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait instead of spinning

import tempfile
from pathlib import Path

import torch

import probe
from probe.adapters import (
    Adapter,
    AdapterPlan,
    Boost,
    Objective,
    Replace,
    TuneConfig,
    attached,
    canonical,
    choose_latent,
    examples_of,
    gguf_lora,
    inserted,
    lora_tensors,
    places_before,
    sae_quality,
    shell,
    train_sae,
    tune,
    verify,
)
from probe.counters import SCHEMES
from probe.reports import tuning_figure, verification_figure

runs = Path(tempfile.mkdtemp())
pair = probe.load_pair("tiny-rl", device="cpu")
base = pair.base
problems = probe.load_problems("story")
train, held = problems.take("train", 200), problems.take("validation", 40)
limit = pair.config.max_new_tokens
traces, checked = (probe.generate_traces(base, problems, some, max_new_tokens=limit) for some in (train, held))
texts, others = examples_of(base, list(traces), train), examples_of(base, list(checked), held)
traces[0].text

# %% [markdown]
# ## An ordinary SAE
# SAELens trains it on the states of the base model at every token. How well it stands in for them is two numbers: the
# variance that it explains, and how far the model's predictions move when it is put in their place.

# %%
store = probe.harvest(base, [list(text.ids) for text in texts], "resid_post.1", unit="token", folder=runs / "acts")
sae = train_sae(store, "resid_post.1", latents=256, k=4, steps=600)
sae_quality(base, sae, others)

# %% [markdown]
# Its reconstruction in the state's place, for the passes inside the block; afterwards the model is what it was, bit for
# bit. With what the SAE does not explain added back, nothing changes at all.

# %%
ids = torch.tensor([texts[0].ids])
with torch.no_grad():
    plain = base.hf(ids).logits
    with inserted(base, Replace(sae)):
        replaced = base.hf(ids).logits
    with inserted(base, Replace(sae, keep_error=True)):
        whole = base.hf(ids).logits
{"greatest change of a logit": (replaced - plain).abs().max(), "with the error": (whole - plain).abs().max()}

# %% [markdown]
# ## SAE-tuning, and its control
# Resa's objective: with the SAE in the way, predict what the model predicts without. Published code lets no gradient
# cross the SAE, so nothing at or below it can learn; a plan that wants that is refused before the first step.

# %%
config = TuneConfig(steps=30, batch_tokens=1024, check_every=10)
stopped, everywhere = Objective("resa", sae, through=False), AdapterPlan(layers=(0, 1, 2, 3))
try:
    tune(base, texts, others, stopped, runs / "dead", everywhere, config)
except probe.ProbeError as error:
    refused = str(error)
refused

# %%
resa = tune(base, texts, others, Objective("resa", sae), runs / "resa", config=config)
noise = tune(base, texts, others, Objective("resa", sae, "noise"), runs / "noise", config=config)
tuning_figure(resa.history)

# %% [markdown]
# What counts is the deployed adapter, with the SAE taken out again: how far it moved the model, and whether the texts
# became likelier (below zero) or less so.

# %%
deployed = {name: verify(base, done.folder, sae, others) for name, done in (("resa", resa), ("noise", noise))}
{name: {"KL": found.effect, "cross-entropy": found.damage["like"]["ce"]} for name, found in deployed.items()}

# %% [markdown]
# ## A behaviour baked into the weights
# A latent that is active before the base model checks a step. Raised at every token it makes the model check more; then
# an adapter learns the predictions of the steered model, and its state at the SAE's site, on what the steered model
# writes itself.


# %%
def verifications(trace):
    return float(SCHEMES["story"].count(trace)["verification"])


def checks():
    """How often each rollout verifies a step, with the model as it is now."""
    return [verifications(trace) for trace in probe.generate_traces(base, problems, held, max_new_tokens=limit)]


shown = places_before(texts, list(traces), verifications)
chosen = choose_latent(base, sae, texts, shown, checks, candidates=4, strengths=(0.5, 1.0))
chosen.tried

# %%
boost = Boost(sae, (chosen.latent,), chosen.value)
with inserted(base, boost):
    steered, steered_held = (
        examples_of(base, list(probe.generate_traces(base, problems, some, max_new_tokens=limit)), some)
        for some in (train, held)
    )
objective = Objective("steer-distil", sae, latents=(chosen.latent,), value=chosen.value)
baked = tune(base, steered, steered_held, objective, runs / "baked", config=TuneConfig(steps=100, batch_tokens=1024))
tuning_figure(baked.history)

# %% [markdown]
# Does it check more, on problems that nothing was chosen or trained on? And does it do so through that latent: is the
# change gone when the latent is ablated, and not when another one is?

# %%
held = problems.take("test", 60)
unseen = examples_of(base, list(probe.generate_traces(base, problems, held, max_new_tokens=limit)), held)
found = verify(base, baked.folder, sae, unseen, latents=(chosen.latent,), counted=checks)
found.behaviour

# %%
verification_figure(found.to_dict())

# %% [markdown]
# ## On, off, exchanged
# Adapters go on for a block and come off bit for bit; several are summed, each with a weight and at some blocks. Where
# many follow one another, a shell is put on once and they are swapped through it.

# %%
before = {name: tensor.clone() for name, tensor in base.hf.state_dict().items()}
counts = {}
with shell(base) as there:
    for name, adapter in {"baked": baked.folder, "resa": resa.folder, "none": None}.items():
        there.swap(adapter)
        counts[name] = sum(checks()) / len(held)
with attached(base, Adapter(baked.folder, weight=0.5), resa.folder):
    counts["half of baked, and resa"] = sum(checks()) / len(held)
assert all(torch.equal(tensor, before[name]) for name, tensor in base.hf.state_dict().items())
counts

# %% [markdown]
# ## Out
# One form that means the same in PEFT, vLLM and llama.cpp: scales folded in, one rank. And llama.cpp's own file.
# `probe adapter export` also reads each again in a fresh process and compares logits; `probe push` lays out a folder of
# a model hub.

# %%
folder = canonical(baked.folder, runs / "peft")
file = gguf_lora(base, baked.folder, runs / "adapter.gguf")
{"tensors": len(lora_tensors(folder)), "bytes of GGUF": file.stat().st_size}
