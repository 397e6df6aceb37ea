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
# # From traces to trustworthy behaviours
#
# ## What you will have in five minutes
# - Traces of a thinking model, and a taxonomy of the behaviours in their sentences, found without labels.
# - Figures of it: a timeline of each trace, transitions, use in correct and incorrect traces, a map.
# - A card for each behaviour that says whether it is about the reasoning or only about its words.
# - Counts of verification, backtracking and other habits in both models.
# - The same for a pair of your own, in the last section.
#
# This notebook runs the stages of `probe discover` by hand, with small sizes. To use two models of your own, set `PAIR`
# in the first cell.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads wait instead of spinning

import json
import re
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import torch

import probe
from probe.counters import compare_counts
from probe.reports import grid_figure, map_figure, timeline_figure, transition_figure, usage_figure
from probe.taxonomy import FalsifyConfig, TaxonomyConfig, behaviour_map, taxonomy_sites

PAIR = "tiny-sft"  # or the path of your own pair.yaml; the last section reads it

pair = probe.load_pair("tiny-rl", device="cpu")
problems = probe.load_problems("story")
train, validation = problems.take("train", 120), problems.take("validation", 60)
model, limit = pair.thinking, pair.config.max_new_tokens
pair

# %% [markdown]
# ## Traces and sentence activations
# For each sentence and site one vector is kept: the mean over the sentence's tokens. All sites are read in one pass.
# `taxonomy_sites` chooses sites spread over the model's blocks.

# %%
traces = probe.generate_traces(model, problems, train, max_new_tokens=limit)
checked = probe.generate_traces(model, problems, validation, max_new_tokens=limit)
checked[:2]

# %%
sites = taxonomy_sites(model, (), spread=3)
acts, acts_checked = (probe.harvest(model, each, sites) for each in (traces, checked))
acts

# %% [markdown]
# ## The search
# Every site, family, size and seed is fitted on training sentences and scored on validation sentences. The taxonomy is
# chosen among the top-k SAEs; the other family is there for comparison. Each row of the table is a mean over seeds.

# %%
config = TaxonomyConfig(sizes=(2, 4, 6, 8), rivals=("spherical-kmeans",))
grid = probe.explore(acts, acts_checked, config, sentence_type=problems.sentence_type)
grid

# %%
grid_figure(grid.to_dicts(), metrics=("score", "variance_explained", "stability", "agreement", "text_f1"))

# %% [markdown]
# The rule that chooses is fixed before anything is fitted, and it is saved with the taxonomy:

# %%
config.rule

# %%
finer = probe.from_grid(grid, acts, acts_checked, sentence_type=problems.sentence_type)
finer

# %% [markdown]
# You can also choose by hand. This taxonomy is coarser, and the rest of the notebook compares it with the first.

# %%
taxonomy = probe.from_grid(grid, acts, acts_checked, sentence_type=problems.sentence_type, site="resid_post.1", size=4)
taxonomy

# %%
{each.n_behaviours: (each.scores["rule"].split(":")[0], round(each.scores["score"], 3)) for each in (taxonomy, finer)}

# %% [markdown]
# ## Figures
# `annotate` assigns a behaviour to each sentence of the traces. From here on everything uses validation problems. Site
# and size were chosen on them, but nothing was trained on them. Hover over a cell to read its sentence.

# %%
annotated = probe.annotate(taxonomy, checked, acts_checked)
annotated

# %%
timeline_figure(annotated.records(12, problems.sentence_type), annotated.names)

# %%
transition_figure(annotated.transitions(), annotated.names, annotated.starts(), annotated.ends())

# %% [markdown]
# Shares of the behaviours in correct and in incorrect traces, with intervals over traces. The legend gives the number
# of traces of each kind. If few are incorrect, their intervals are wide.

# %%
usage_figure(annotated.usage(), annotated.names)

# %% [markdown]
# The map shows the normalised activations of the sentences, which the taxonomy reads, in two dimensions.


# %%
def sentence_map(taxonomy):
    x = acts_checked.vectors[taxonomy.site]
    at = behaviour_map(taxonomy.normaliser(x), taxonomy.behaviour(x).tolist())
    return map_figure(at.record(acts_checked.texts), taxonomy.names)


sentence_map(taxonomy)

# %% [markdown]
# Random sentences of a behaviour, each between its neighbours. With `correct=False` they come from incorrect traces.

# %%
first = max(range(taxonomy.n_behaviours), key=annotated.starts().__getitem__)  # the one that most traces begin with
annotated.sentences(first, n=3)

# %%
annotated.sentences(first, n=3, correct=False)

# %% [markdown]
# ## Wording
# `text_f1` is how well a classifier that sees only the words, with every number replaced by `#`, recognises a behaviour
# in new sentences. If it is near 1, the behaviour may be no more than its wording; the scores so far cannot exclude
# that. `decodability` is how well a linear probe predicts the behaviour from the activations.


# %%
def told(taxonomy):
    """The text F1 and the decodability of each behaviour."""
    columns = zip(taxonomy.names, taxonomy.scores["text_f1"], taxonomy.scores["decodability"], strict=True)
    return {f"{i} {name}": (round(words, 2), round(probed, 2)) for i, (name, words, probed) in enumerate(columns)}


told(taxonomy), told(finer)

# %% [markdown]
# This problem set knows the true type of each sentence. The types are a check and were not used in any choice:


# %%
def types_by_behaviour(taxonomy):
    found = defaultdict(Counter)
    for text, at in zip(acts_checked.texts, taxonomy.behaviour(acts_checked.vectors[taxonomy.site]), strict=True):
        found[at.item()][problems.sentence_type(text)] += 1
    return {i: dict(found[i]) for i in range(taxonomy.n_behaviours)}


{each.n_behaviours: (round(each.scores["ami"], 2), types_by_behaviour(each)) for each in (taxonomy, finer)}

# %% [markdown]
# ## Falsification
# Each behaviour is tested by changing sentences in their traces and reading the model again. Its cue words are inserted
# into other sentences and removed from its own; its own sentences are reworded; the directions in which questions
# differ are projected out; and its sentences are sampled again from the text before them. Each test has a control, and
# the verdict follows a fixed rule:

# %%
tests = FalsifyConfig(sentences=30, prefixes=3, samples=4)
tests.rule

# %% [markdown]
# The sentences and their changes are random. A verdict that differs between seeds is not reliable; more sentences make
# its intervals narrower. The cards below are those of the first seed. The other seeds skip sampling sentences again,
# which has no effect on the verdict.

# %%
quick = replace(tests, prefixes=0)
by_seed = [
    probe.falsify(
        model, taxonomy, checked, acts_checked, paraphrase=problems.reword, config=quick if seed else tests, seed=seed
    )
    for seed in range(3)
]
cards = by_seed[0]
verdicts = [[each[card.behaviour].verdict for each in by_seed] for card in cards]
dict(zip(taxonomy.names, verdicts, strict=True))

# %% [markdown]
# A behaviour that survives, if there is one; of several, the one on whose verdict most seeds agree. "State" means that
# its cue words are neither sufficient nor necessary:

# %%
by_agreement = sorted(cards, key=lambda card: verdicts[card.behaviour].count(card.verdict))
by_verdict = {card.verdict: card for card in by_agreement}  # the last of each stays
by_verdict.get("state")

# %% [markdown]
# And a behaviour that follows its cue. "Cue" does not mean that the model has no such state. It means that this latent
# reads the words, so using it to measure reasoning in other text would only count words.

# %%
by_verdict.get("cue")

# %% [markdown]
# The rest is undecided: an interval includes a limit of the rule, which more sentences may resolve, or the tests
# contradict each other.

# %%
[card.reasons[0] for card in cards if card.verdict == "undecided"]

# %% [markdown]
# A verdict of "state" can be misleading too, because the tests change words and not numbers. In the finer taxonomy the
# computing sentences may have several behaviours, which words do not distinguish (see `text_f1` above). These are their
# verdicts and the numbers in their sentences:

# %%
types = types_by_behaviour(finer)
computing = [i for i in types if max(types[i], key=types[i].get, default=None) == "compute"]
finer_cards = probe.falsify(model, finer, checked, acts_checked, paraphrase=problems.reword, config=quick)
{finer_cards[i].label + f" ({i})": finer_cards[i].verdict for i in computing}

# %%
results = defaultdict(list)
for text, at in zip(acts_checked.texts, finer.behaviour(acts_checked.vectors[finer.site]).tolist(), strict=True):
    if at in computing and (found := re.search(r"= (\d+)", text)):
        results[at].append(int(found[1]))
bars = [go.Histogram(x=results[i], name=f"behaviour {i}", xbins={"size": 5}, opacity=0.6) for i in computing]
figure = go.Figure(bars).update_layout(barmode="overlay", template="none", height=300, margin={"t": 20, "r": 20})
figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_color="#7d8590")
figure.update_xaxes(title="what the sentence computes", gridcolor="rgba(128,128,128,0.2)")
figure.update_yaxes(title="sentences", gridcolor="rgba(128,128,128,0.2)")
figure

# %% [markdown]
# If the histograms are apart, the behaviours differ in the size of a number, which is content and not a step of the
# reasoning. So look at the sentences of a behaviour before you trust its card.
#
# ### Are the cards right?
# In `tiny-decoupled` cue and state are independent by construction: "Again," and "Redo it:" open small talk, and a step
# that a check found wrong is redone silently, in the words of any computing sentence. Two kinds of latent were planted
# in it, one that reads the cue and one that reads the state, each in two forms. The cards should say "cue" for the
# first kind and must not say it for the second.

# %%
from probe.models import ModelConfig, bundled_folder
from probe.organisms.decoupled import reword_decoupled
from probe.organisms.planted import Planted, decoupled_kinds, kinds_of, sampled_traces
from probe.organisms.tokenizer import THINKING_PROMPT

decoupled = probe.load_model(ModelConfig("bundled:tiny-decoupled", prompt=THINKING_PROMPT), device="cpu")
planted = Planted.load(bundled_folder("tiny-decoupled"))
sampled = sampled_traces(decoupled, problems, 60, seed=0)
acts_sampled = probe.harvest(decoupled, sampled, [planted.site])
sampled[:1]

# %%
planted_cards = probe.falsify(decoupled, planted, sampled, acts_sampled, paraphrase=reword_decoupled, config=quick)
{card.label: (card.verdict, card.reasons[0]) for card in planted_cards}

# %% [markdown]
# The kinds of sentence in which each latent fires:

# %%
kinds = kinds_of(sampled, acts_sampled, decoupled_kinds)
fires = planted.fires(acts_sampled.vectors[planted.site])
{
    label: Counter(kind for kind, hit in zip(kinds, hits.tolist(), strict=True) if hit).most_common(3)
    for label, hits in zip(planted.labels, fires.T, strict=True)
}

# %% [markdown]
# ## Names and merges by hand
# A saved taxonomy is a folder. You can name and merge behaviours in its file `behaviours.yaml`, which changes how they
# are shown and counted, but not the SAE. Here the computing sentences become one behaviour again.

# %%
folder = finer.save(Path(tempfile.mkdtemp()) / "taxonomy")
one, *others = computing
edits = [f"{one}:\n  name: computes\n  note: was split by the size of numbers\n"]
edits += [f"{other}:\n  merge_into: {one}\n" for other in others]
(folder / "behaviours.yaml").write_text("".join(edits))
edited = probe.Taxonomy.load(folder)
edited.names

# %%
probe.annotate(edited, checked, acts_checked)

# %% [markdown]
# ## Counting behaviours
# Counters read only text, so they can measure any model, steered or not. `story` counts the four habits exactly in
# story problems, and `countdown` in the countdown game; `habits`, `six` and `eight` are rules for any text. Base and
# thinking model on the same problems, paired:

# %%
base = probe.generate_traces(pair.base, problems, validation, max_new_tokens=limit)
counts = {name: probe.count_behaviours(each, "story") for name, each in (("base", base), ("thinking", checked))}
{name: (f"{each.accuracy:.0%} correct", counts[name]) for name, each in (("base", base), ("thinking", checked))}

# %%
compare_counts(counts["base"], counts["thinking"])

# %% [markdown]
# A higher count is not necessarily better, so look at what was counted, as in this trace of the base model.

# %%
base[:1]

# %% [markdown]
# ## Export
# SAELens can load the folder. The normaliser is folded into the SAE, so it reads raw activations. The same latents are
# active; their values are those of the taxonomy times the norm of the centred activation.

# %%
from sae_lens import SAE

sae = SAE.load_from_disk(str(folder))
x = acts_checked.vectors[finer.site]
length = (x - finer.normaliser.mean).norm(dim=-1, keepdim=True)
torch.testing.assert_close(sae.encode(x), finer.latents(x) * length, atol=1e-3, rtol=1e-4)
sae.cfg.metadata.hook_name, sorted(path.name for path in folder.iterdir())

# %% [markdown]
# Records for Neuronpedia: features, their top sentences token by token, and explanations.

# %%
written = probe.write_neuronpedia(
    folder / "neuronpedia", edited, model, checked, acts_checked, examples=5, names=edited.names
)
feature = json.loads((written / "features.jsonl").read_text().splitlines()[0])
{name: feature[name] for name in ("modelId", "layer", "index", "hookName", "frac_nonzero", "pos_str")}

# %% [markdown]
# ## A judge
# A judge is an LLM that names and rates behaviours; everything above works without one. Any object with
# `complete(prompts)` is a judge. These lines make one from a server or from a local chat model, and keep its answers on
# disk:
#
# ```python
# judge = CachedJudge(EndpointJudge("http://localhost:8000/v1", "model-name"), folder)
# judge = CachedJudge(LocalJudge(probe.load_model("path/or/hub-id", device="cuda")), folder)
# ```
#
# The judge below answers by rule, so that this notebook runs offline: it names a sentence by its opening.

# %%
from probe.taxonomy import ScriptedJudge, judge_scores, name_behaviours

OPENINGS = {"checks a result": "Is it true|Check that", "computes": "That makes|Now", "answers": ".*answer is"}


def kind_of(sentence):
    return next((kind for kind, opening in OPENINGS.items() if re.match(opening, sentence)), "restates the problem")


def answer(prompt):
    if "Title:" in prompt:
        own = prompt.partition("Sentences of other kinds")[0]
        kind = Counter(map(kind_of, re.findall("^- (.*)", own, re.MULTILINE))).most_common(1)[0][0]
        return f"Title: {kind}\nDescription: Such a sentence {kind}."
    said = re.findall(r"kind(?: of step)?: (.*)", prompt, re.IGNORECASE)
    said += [kind_of(sentence) for sentence in re.findall("^Sentence: (.*)", prompt, re.MULTILINE)]
    same = said[0] == said[1]
    return ("yes" if same else "no") if "yes or no" in prompt else ("10" if same else "0")


judge = ScriptedJudge(answer)

# %% [markdown]
# The judge names the behaviours from training sentences, and the names are scored on validation sentences: can
# sentences be assigned by name (consistency), do the names fit their sentences (completeness), and do they differ
# (independence)? Two behaviours that mean the same lower consistency and independence.


# %%
def judged(taxonomy):
    seen, unseen = acts.vectors[taxonomy.site], acts_checked.vectors[taxonomy.site]
    names = name_behaviours(judge, acts.texts, taxonomy.behaviour(seen), taxonomy.pre_activations(seen))
    titles = [name.title or label for name, label in zip(names, taxonomy.labels, strict=True)]
    said = [name.description or "" for name in names]
    found = judge_scores(judge, titles, said, acts_checked.texts, taxonomy.behaviour(unseen), sample=50)
    scores = {name: round(getattr(found, name), 2) for name in ("consistency", "completeness", "independence")}
    return titles, scores, {"asked": found.asked, "failed": found.failed}


{each.n_behaviours: judged(each) for each in (taxonomy, finer)}

# %% [markdown]
# ## The same in one command
# `probe discover --pair tiny-rl --out runs/behaviours` does all of this, resumes where it was interrupted, and writes a
# page with these figures and every card. `--judge` sets a judge.

# %% [markdown]
# ## A pair of your own
# Nothing below needs labels. The habits are counted by rules that fit any text.

# %%
own = probe.load_pair(PAIR)
questions = probe.load_problems(own.config.problems or "story")
asked, asked_later = questions.take("train", 80), questions.take("validation", 40)
rollouts, later = (
    probe.generate_traces(own.thinking, questions, some, max_new_tokens=own.config.max_new_tokens)
    for some in (asked, asked_later)
)
states, states_later = (
    probe.harvest(own.thinking, each, taxonomy_sites(own.thinking, ())) for each in (rollouts, later)
)
found = probe.fit_taxonomy(states, states_later, TaxonomyConfig(sizes=(4, 6), seeds=(0, 1)))
found

# %%
annotated = probe.annotate(found, later, states_later)
timeline_figure(annotated.records(12), annotated.names)

# %%
probe.count_behaviours(later, "habits")
