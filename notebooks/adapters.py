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
# ## What you will have in five minutes
# - An SAE of a base model, and how much the model suffers when the SAE stands in for its activations.
# - An adapter that was trained through that SAE, beside a control with noise.
# - A behaviour trained into the weights, and a test of whether it works through one latent of the SAE.
# - The adapter as files for PEFT, vLLM and llama.cpp.
#
# To train on a model of your own, set `MODEL` in the first cell. Its own answers to the bundled problems are the texts.
# The second half counts checks in story problems; for another model, name a behaviour that it shows there.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

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
from probe.reports import tuning_figure, verification_figure

MODEL = None  # a folder or hub id of your own; None: the bundled base model

runs = Path(tempfile.mkdtemp())
pair = probe.load_pair("tiny-rl", device="cpu")
base = pair.base if MODEL is None else probe.load_model(MODEL)
problems = probe.load_problems("story")
train, validation = problems.take("train", 100), problems.take("validation", 20)
limit = pair.config.max_new_tokens
traces, checked = (probe.generate_traces(base, problems, some, max_new_tokens=limit) for some in (train, validation))
texts, others = examples_of(base, list(traces), train), examples_of(base, list(checked), validation)
traces[0].text

# %% [markdown]
# ## An ordinary SAE
# SAELens trains it on the base model's activations at every token. Two numbers say how well it reconstructs them: the
# variance explained, and how much the model's predictions change when the reconstruction replaces the activations.

# %%
store = probe.harvest(base, [list(text.ids) for text in texts], "resid_post.1", unit="token", folder=runs / "acts")
sae = train_sae(store, "resid_post.1", latents=256, k=4, steps=600)
sae_quality(base, sae, others)

# %% [markdown]
# Inside the `with` block the reconstruction replaces the activations; after the block the model is restored bit for
# bit. With `keep_error=True` the part that the SAE does not explain is added back, so the logits hardly change.

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
# Resa's objective: with the SAE inserted, predict what the model predicts without it. The published code stops the
# gradient at the SAE, so layers at or below it cannot learn. A plan that asks for that is refused before training
# starts.

# %%
config = TuneConfig(steps=15, batch_tokens=1024, check_every=5)
stopped, everywhere = Objective("resa", sae, through=False), AdapterPlan(layers=tuple(range(base.n_layers)))
try:
    tune(base, texts, others, stopped, folder=runs / "dead", plan=everywhere, config=config)
except probe.ProbeError as error:
    refused = str(error)
refused

# %%
resa = tune(base, texts, others, Objective("resa", sae), folder=runs / "resa", config=config)
noise = tune(base, texts, others, Objective("resa", sae, "noise"), folder=runs / "noise", config=config)
tuning_figure(resa.history)

# %% [markdown]
# The adapter is used without the SAE, so it is measured without it: how far it moved the model (KL), and how the
# cross-entropy of the texts changed (negative: the texts became more likely).

# %%
deployed = {name: verify(base, done.folder, sae, others) for name, done in (("resa", resa), ("noise", noise))}
{name: {"KL": found.effect, "cross-entropy": found.damage["like"]["ce"]} for name, found in deployed.items()}

# %% [markdown]
# ## Training a behaviour into the weights
# First a latent is chosen that is active before the base model checks a step, and that makes the model check more when
# it is raised at every token. Then an adapter learns the steered model's predictions, and its activations at the SAE's
# site, on text that the steered model writes.


# %%
verification = probe.find_behaviour("story:verification")  # or probe.Behaviour.of_pattern("Wait|Let me check")


measured = validation


def checks():
    """Count the verifications in each rollout of the model as it is now."""
    rollouts = probe.generate_traces(base, problems, measured, max_new_tokens=limit)
    return [float(sum(marks)) for marks in verification.marks(rollouts)]


shown = places_before(texts, list(traces), verification)
chosen = choose_latent(base, sae, texts, shown, counted=checks, candidates=4, strengths=(0.5, 1.0))
chosen.tried

# %%
boost = Boost(sae, (chosen.latent,), chosen.value)
with inserted(base, boost):
    steered, steered_validation = (
        examples_of(base, list(probe.generate_traces(base, problems, some, max_new_tokens=limit)), some)
        for some in (train, validation)
    )
objective = Objective("steer-distil", sae, latents=(chosen.latent,), value=chosen.value)
config = TuneConfig(steps=60, batch_tokens=768)
baked = tune(base, steered, steered_validation, objective, folder=runs / "baked", config=config)
tuning_figure(baked.history)

# %% [markdown]
# Does the adapted model check more on test problems? And does it do so through that latent: does the change disappear
# when the latent is ablated, and not when another latent is?

# %%
measured = problems.take("test", 24)
unseen = examples_of(base, list(probe.generate_traces(base, problems, measured, max_new_tokens=limit)), measured)
found = verify(base, baked.folder, sae, unseen, latents=(chosen.latent,), counted=checks)
found.behaviour

# %%
verification_figure(found.to_dict())

# %% [markdown]
# ## Attach, detach, swap
# `attached` applies adapters inside a `with` block and restores the model bit for bit after it. Several adapters are
# summed, each with its own weight. To use many adapters one after another, `shell` prepares the model once and swaps
# them.

# %%
before = {name: tensor.clone() for name, tensor in base.hf.state_dict().items()}
counts = {}
with shell(base) as there:
    for name, adapter in {"baked": baked.folder, "resa": resa.folder, "none": None}.items():
        there.swap(adapter)
        counts[name] = sum(checks()) / len(measured)
with attached(base, Adapter(baked.folder, weight=0.5), resa.folder):
    counts["half of baked plus resa"] = sum(checks()) / len(measured)
assert all(torch.equal(tensor, before[name]) for name, tensor in base.hf.state_dict().items())
counts

# %% [markdown]
# ## Export
# `canonical` writes a form of the adapter that means the same in PEFT, vLLM and llama.cpp: scales folded in, one rank.
# `gguf_lora` writes llama.cpp's own format. `probe adapter export` also re-loads each export in a new process and
# compares logits, and `probe push` prepares a folder for a model hub.

# %%
folder = canonical(baked.folder, runs / "peft")
file = gguf_lora(base, baked.folder, runs / "adapter.gguf")
{"tensors": len(lora_tensors(folder)), "bytes of GGUF": file.stat().st_size}
