# The public names of `probe.taxonomy`, read by editors and, at run time, by `__init__.py`.
from .annotated import (
    AnnotatedTraces as AnnotatedTraces,
    Usage as Usage,
    annotate as annotate,
)
from .behaviour import Behaviour as Behaviour, find_behaviour as find_behaviour, show_behaviours as show_behaviours
from .config import TaxonomyConfig as TaxonomyConfig, sizes_for as sizes_for
from .edits import Edits as Edits
from .falsify.card import Card as Card, Trial as Trial
from .falsify.config import FalsifyConfig as FalsifyConfig
from .falsify.falsify import falsify as falsify, read_cards as read_cards
from .families import delimiter_documents as delimiter_documents
from .families.saelens import for_inference as for_inference, train_with_saelens as train_with_saelens
from .judge.judge import CachedJudge as CachedJudge, Judge as Judge, ScriptedJudge as ScriptedJudge
from .judge.language_models import EndpointJudge as EndpointJudge, LocalJudge as LocalJudge
from .judge.names import name_behaviours as name_behaviours, name_taxonomy as name_taxonomy
from .judge.scores import JudgedScores as JudgedScores, judge_scores as judge_scores
from .map import behaviour_map as behaviour_map
from .neuronpedia import write_neuronpedia as write_neuronpedia
from .places import taxonomy_sites as taxonomy_sites
from .sae.normaliser import Normaliser as Normaliser
from .search.fit import fit_taxonomy as fit_taxonomy, from_grid as from_grid
from .search.grid import Candidate as Candidate, Grid as Grid
from .search.search import explore as explore
from .taxonomy import Taxonomy as Taxonomy
