"""Taxonomies: the behaviours of a thinking model, found without labels by a small SAE."""

from probe.taxonomy.annotated import (
    AnnotatedTraces as AnnotatedTraces,
    Usage as Usage,
    annotate as annotate,
)
from probe.taxonomy.behaviour import Behaviour as Behaviour, find_behaviour as find_behaviour
from probe.taxonomy.config import TaxonomyConfig as TaxonomyConfig, taxonomy_sites as taxonomy_sites
from probe.taxonomy.edits import Edits as Edits
from probe.taxonomy.falsify import (
    Card as Card,
    FalsifyConfig as FalsifyConfig,
    Trial as Trial,
    falsify as falsify,
    read_cards as read_cards,
)
from probe.taxonomy.families import delimiter_documents as delimiter_documents
from probe.taxonomy.families.saelens import for_inference as for_inference, train_with_saelens as train_with_saelens
from probe.taxonomy.judge.judge import CachedJudge as CachedJudge, Judge as Judge, ScriptedJudge as ScriptedJudge
from probe.taxonomy.judge.language_models import EndpointJudge as EndpointJudge, LocalJudge as LocalJudge
from probe.taxonomy.judge.names import name_behaviours as name_behaviours
from probe.taxonomy.judge.scores import JudgedScores as JudgedScores, judge_scores as judge_scores
from probe.taxonomy.map import behaviour_map as behaviour_map
from probe.taxonomy.neuronpedia import write_neuronpedia as write_neuronpedia
from probe.taxonomy.sae.normaliser import Normaliser as Normaliser
from probe.taxonomy.search.fit import fit_taxonomy as fit_taxonomy, from_grid as from_grid
from probe.taxonomy.search.grid import Candidate as Candidate, Grid as Grid
from probe.taxonomy.search.search import explore as explore
from probe.taxonomy.taxonomy import Taxonomy as Taxonomy
