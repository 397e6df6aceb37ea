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
# # From traces to behaviours that one can believe
#
# The stages of `probe discover`, by hand: traces of a thinking model, the search for a taxonomy, a look at it, and the
# tests that ask whether a behaviour is about the reasoning or about its words. Sizes are small, so that everything runs
# on a CPU in two minutes.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait instead of spinning

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

pair = probe.load_pair("tiny-rl", device="cpu")
problems = probe.load_problems("story")
train, validation = problems.take("train", 150), problems.take("validation", 80)
model, limit = pair.thinking, pair.config.max_new_tokens
pair

# %% [markdown]
# ## Traces and sentence activations
# One vector a sentence and site: the mean over the sentence's tokens. All sites are read in one pass. `taxonomy_sites`
# spreads them over the model's blocks.

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
# Every site, family, size and seed is fitted on training sentences and scored on validation sentences. The family that
# is chosen from is a top-k SAE; its rivals are there to be compared with. Each row of the table is a mean over seeds.

# %%
config = TaxonomyConfig(sizes=(2, 4, 6, 8), rivals=("spherical-kmeans", "agglomerative"))
grid = probe.explore(acts, acts_checked, config, sentence_type=problems.sentence_type)
grid

# %%
grid_figure(grid.to_dicts(), metrics=("score", "variance_explained", "stability", "agreement", "text_f1"))

# %% [markdown]
# The rule that chooses is written down before anything is fitted, and it is kept with the taxonomy:

# %%
config.rule

# %%
taxonomy = probe.from_grid(grid, acts, acts_checked, sentence_type=problems.sentence_type)
taxonomy

# %% [markdown]
# Who knows better chooses by hand. This one is finer, and is kept for comparison.

# %%
finer = probe.from_grid(grid, acts, acts_checked, sentence_type=problems.sentence_type, site="resid_post.2", size=6)
finer

# %%
{each.n_behaviours: (each.scores["rule"].split(":")[0], round(each.scores["score"], 3)) for each in (taxonomy, finer)}

# %% [markdown]
# ## Looking
# `annotate` gives each sentence of some traces its behaviour. From here on everything is about validation problems.
# They had a part in the choice of site and size, but nothing was trained on them. Hover over a cell for its sentence.

# %%
annotated = probe.annotate(taxonomy, checked, acts_checked)
annotated

# %%
timeline_figure(annotated.records(12, problems.sentence_type), annotated.names)

# %%
transition_figure(annotated.transitions(), annotated.names, annotated.starts(), annotated.ends())

# %% [markdown]
# Shares in correct and in incorrect traces, with intervals over traces. The legend says how many traces there are of
# each: where few are incorrect, the interval is what to look at.

# %%
usage_figure(annotated.usage(), annotated.names)

# %% [markdown]
# The map shows what the taxonomy sees, sentences after the normaliser, in two dimensions.


# %%
def sentence_map(taxonomy):
    x = acts_checked.vectors[taxonomy.site]
    at = behaviour_map(taxonomy.normaliser(x), taxonomy.behaviour(x).tolist())
    return map_figure(at.record(acts_checked.texts), taxonomy.names)


sentence_map(taxonomy)

# %% [markdown]
# Sentences of a behaviour at random, each between its neighbours; `correct=False` draws from incorrect traces only.

# %%
first = max(range(taxonomy.n_behaviours), key=annotated.starts().__getitem__)  # the one that most traces begin with
annotated.sentences(first, n=3)

# %%
annotated.sentences(first, n=3, correct=False)

# %% [markdown]
# ## What words alone tell
# `text_f1` is how well a reader of words, which sees every number as `#`, recognises a behaviour in new sentences.
# Where it is near 1, the behaviour may be no more than its wording: nothing in the scores so far can tell. Beside it,
# `decodability`: how well a linear probe tells the behaviour from the activations.


# %%
def told(taxonomy):
    """For each behaviour: how well words tell it, and how well a linear probe does."""
    columns = zip(taxonomy.names, taxonomy.scores["text_f1"], taxonomy.scores["decodability"], strict=True)
    return {f"{i} {name}": (round(words, 2), round(probed, 2)) for i, (name, words, probed) in enumerate(columns)}


told(taxonomy), told(finer)

# %% [markdown]
# This problem set knows the true type of each sentence. It is a check, and had no part in any choice:


# %%
def types_by_behaviour(taxonomy):
    found = defaultdict(Counter)
    for text, at in zip(acts_checked.texts, taxonomy.behaviour(acts_checked.vectors[taxonomy.site]), strict=True):
        found[at.item()][problems.sentence_type(text)] += 1
    return {i: dict(found[i]) for i in range(taxonomy.n_behaviours)}


{each.n_behaviours: (round(each.scores["ami"], 2), types_by_behaviour(each)) for each in (taxonomy, finer)}

# %% [markdown]
# ## Falsification
# Each behaviour is put to the test, by changing sentences where they stand and reading the model again: its cue words
# are put into other sentences, they are taken out of its own, its own are said in another wording, the directions in
# which questions differ are projected out, and its sentences are written anew from the text before them. Each test has
# a control. The verdict follows a written rule, too:

# %%
tests = FalsifyConfig(sentences=40, prefixes=4, samples=5)
tests.rule

# %% [markdown]
# Which sentences are changed, and how, is drawn. A verdict that another seed takes back is none to lean on; more
# sentences make its intervals narrower.

# %%
by_seed = [
    probe.falsify(model, taxonomy, checked, acts_checked, paraphrase=problems.reword, config=tests, seed=seed)
    for seed in range(3)
]
cards = by_seed[0]
verdicts = [[each[card.behaviour].verdict for each in by_seed] for card in cards]
dict(zip(taxonomy.names, verdicts, strict=True))

# %% [markdown]
# A behaviour that survives, if there is one, with the verdict that most seeds agree on. "State" says that its cue words
# neither suffice nor are needed:

# %%
by_agreement = sorted(cards, key=lambda card: verdicts[card.behaviour].count(card.verdict))
by_verdict = {card.verdict: card for card in by_agreement}  # the last of each stays
by_verdict.get("state")

# %% [markdown]
# And one that follows its cue. "Cue" does not say that the model has no such state, but that this latent reads the
# words: to use it as a measure of reasoning in other text would be to count words.

# %%
by_verdict.get("cue")

# %% [markdown]
# The rest is undecided: an interval straddles a limit, which more sentences may resolve, or the tests speak against
# each other.

# %%
[card.reasons[0] for card in cards if card.verdict == "undecided"]

# %% [markdown]
# "State" is not the end of doubt either. The tests look for words, and numbers are not words. In the finer taxonomy the
# computing sentences may have several behaviours, which words do not tell apart (see `text_f1` above). Their cards, and
# the numbers in their sentences:

# %%
types = types_by_behaviour(finer)
computing = [i for i in types if max(types[i], key=types[i].get, default=None) == "compute"]
quick = replace(tests, prefixes=0)  # nothing written anew: that has no part in the verdict
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
# Where the histograms lie apart, what tells these behaviours apart is the size of a number: content, and no step of
# the reasoning. That is a reason to look at a behaviour before believing its card.
#
# ### Do the cards find the truth?
# In `tiny-decoupled` cue and state come apart by construction: "Again," and "Redo it:" open small talk, and a step that
# a check found wrong is redone silently, in the words of any computing sentence. Latents were planted in it, one that
# reads the cue and one that reads the state, each in two forms. The cards are to reject the first and to accept the
# second.

# %%
from probe.models import ModelConfig, bundled_folder
from probe.organisms.decoupled import reword_decoupled
from probe.organisms.planted import Planted, decoupled_kinds, kinds_of, sampled_traces
from probe.organisms.tokenizer import THINKING_PROMPT

decoupled = probe.load_model(ModelConfig("bundled:tiny-decoupled", prompt=THINKING_PROMPT), device="cpu")
planted = Planted.load(bundled_folder("tiny-decoupled"))
sampled = sampled_traces(decoupled, problems, 80, seed=0)
acts_sampled = probe.harvest(decoupled, sampled, [planted.site])
sampled[:1]

# %%
planted_cards = probe.falsify(decoupled, planted, sampled, acts_sampled, paraphrase=reword_decoupled, config=quick)
{card.label: (card.verdict, card.reasons[0]) for card in planted_cards}

# %% [markdown]
# In which kinds of sentence the latents really fire:

# %%
kinds = kinds_of(sampled, acts_sampled, decoupled_kinds)
fires = planted.fires(acts_sampled.vectors[planted.site])
{
    label: Counter(kind for kind, hit in zip(kinds, hits.tolist(), strict=True) if hit).most_common(3)
    for label, hits in zip(planted.labels, fires.T, strict=True)
}

# %% [markdown]
# ## Names and merges by people
# A saved taxonomy is a folder with a file `behaviours.yaml` in it, for people to write in. Edits concern how behaviours
# are shown and counted, not the SAE. Here the computing sentences are made one behaviour again.

# %%
folder = finer.save(Path(tempfile.mkdtemp()) / "taxonomy")
one, *others = computing
edits = [f"{one}:\n  name: computes\n  note: what it was split by are numbers\n"]
edits += [f"{other}:\n  merge_into: {one}\n" for other in others]
(folder / "behaviours.yaml").write_text("".join(edits))
edited = probe.Taxonomy.load(folder)
edited.names

# %%
probe.annotate(edited, checked, acts_checked)

# %% [markdown]
# ## Counting behaviours
# Counters work on text alone, so they measure any model, whichever way it is steered. In story problems the four habits
# are counted exactly; `habits`, `six` and `eight` are rules for any text, and `countdown` is exact there. Base and
# thinking model on the same problems, paired:

# %%
base = probe.generate_traces(pair.base, problems, validation, max_new_tokens=limit)
counts = {name: probe.count_behaviours(each, "story") for name, each in (("base", base), ("thinking", checked))}
{name: (f"{each.accuracy:.0%} correct", counts[name]) for name, each in (("base", base), ("thinking", checked))}

# %%
compare_counts(counts["base"], counts["thinking"])

# %% [markdown]
# A count is no merit: what is counted has to be looked at, as in this trace of the base model.

# %%
base[:1]

# %% [markdown]
# ## Handing over
# The folder is one that SAELens reads; the normaliser is folded in, so that the SAE takes raw activations. The same
# latents are active; their size is that of the taxonomy's times the length of the centred activation.

# %%
from sae_lens import SAE

sae = SAE.load_from_disk(str(folder))
x = acts_checked.vectors[finer.site]
length = (x - finer.normaliser.mean).norm(dim=-1, keepdim=True)
torch.testing.assert_close(sae.encode(x), finer.latents(x) * length, atol=1e-3, rtol=1e-4)
sae.cfg.metadata.hook_name, sorted(path.name for path in folder.iterdir())

# %% [markdown]
# Neuronpedia's records: features, their top sentences token by token, and explanations.

# %%
written = probe.write_neuronpedia(
    folder / "neuronpedia", edited, model, checked, acts_checked, examples=5, names=edited.names
)
feature = json.loads((written / "features.jsonl").read_text().splitlines()[0])
{name: feature[name] for name in ("modelId", "layer", "index", "hookName", "frac_nonzero", "pos_str")}

# %% [markdown]
# ## A judge
# All of the above works without one. A judge is anything that has `complete(prompts)`; a line makes one of a server or
# of a local chat model, with answers that are kept on disk:
#
# ```python
# judge = CachedJudge(EndpointJudge("http://localhost:8000/v1", "model-name"), folder)
# judge = CachedJudge(LocalJudge(probe.load_model("path/or/hub-id", device="cuda")), folder)
# ```
#
# The one below answers by rule, so that this notebook runs offline: it calls a sentence what it is by its opening.

# %%
from probe.taxonomy.judge.judge import ScriptedJudge
from probe.taxonomy.judge.names import name_behaviours
from probe.taxonomy.judge.scores import judge_scores

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
# It names the behaviours from sentences that the taxonomy was made of, and scores the names on validation sentences:
# can sentences be sorted by them (consistency), do they fit their sentences (completeness), do they differ
# (independence). Where two behaviours do one job, consistency and independence say so.


# %%
def judged(taxonomy):
    seen, held_out = acts.vectors[taxonomy.site], acts_checked.vectors[taxonomy.site]
    names = name_behaviours(judge, acts.texts, taxonomy.behaviour(seen), taxonomy.pre_activations(seen))
    titles = [name.title or label for name, label in zip(names, taxonomy.labels, strict=True)]
    said = [name.description or "" for name in names]
    found = judge_scores(judge, titles, said, acts_checked.texts, taxonomy.behaviour(held_out), sample=50)
    scores = {name: round(getattr(found, name), 2) for name in ("consistency", "completeness", "independence")}
    return titles, scores, {"asked": found.asked, "failed": found.failed}


{each.n_behaviours: judged(each) for each in (taxonomy, finer)}

# %% [markdown]
# ## The same in one command
# `probe discover --pair tiny-rl --out runs/behaviours` goes from traces to cards, keeps what is finished, and writes a
# page with these figures and every card; `--judge` names a judge.
