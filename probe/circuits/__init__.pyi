# The public names of `probe.circuits`, read by editors and, at run time, by `__init__.py`.
from .edges.attribution import attribute as attribute, edge_scores as edge_scores
from .edges.circuit import Circuit as Circuit
from .edges.faithful import (
    Faithfulness as Faithfulness,
    Keeping as Keeping,
    faithfulness as faithfulness,
    kept_by as kept_by,
    sizes_of as sizes_of,
)
from .edges.graph import Graph as Graph, Reader as Reader
from .edges.lens import EdgeLens as EdgeLens, Window as Window
from .edges.paths import path_effect as path_effect
from .features.check import (
    FeatureCheck as FeatureCheck,
    feature_check as feature_check,
    feature_effects as feature_effects,
)
from .features.detector import LatentDetector as LatentDetector, latent_detector as latent_detector
from .features.examples import (
    Example as Example,
    LatentExamples as LatentExamples,
    Telling as Telling,
    latent_examples as latent_examples,
)
from .features.scores import (
    Feature as Feature,
    FeatureScores as FeatureScores,
    SiteScores as SiteScores,
    feature_places as feature_places,
    feature_scores as feature_scores,
)
from .features.summary import latents_of as latents_of
from .heads.attention import (
    Attention as Attention,
    Links as Links,
    Receivers as Receivers,
    attention as attention,
    peaked_heads as peaked_heads,
    receiver_heads as receiver_heads,
    sentence_attention as sentence_attention,
)
from .heads.behaviour import behaviour_heads as behaviour_heads
from .heads.changed import (
    Head as Head,
    Reference as Reference,
    heads_changed as heads_changed,
    matched_heads as matched_heads,
    reference as reference,
    start_tokens as start_tokens,
    strongest_heads as strongest_heads,
    with_others as with_others,
)
from .heads.effect import (
    HeadEffect as HeadEffect,
    Look as Look,
    Measured as Measured,
    behaviour_look as behaviour_look,
    effect_of_heads as effect_of_heads,
    pairs_look as pairs_look,
)
from .heads.finder import find_heads as find_heads, receiver_scores as receiver_scores
from .heads.qk import QKAttribution as QKAttribution, qk_attribution as qk_attribution
from .heads.table import HeadScores as HeadScores, HeadTable as HeadTable
from .lenses.direct import direct_attribution as direct_attribution
from .lenses.entry import ConceptEntry as ConceptEntry, concept_entry as concept_entry
from .lenses.fitting import fit_jacobian_lens as fit_jacobian_lens
from .lenses.foresight import (
    Foresight as Foresight,
    Written as Written,
    equation_results as equation_results,
    foresight as foresight,
)
from .lenses.jacobian import JacobianLens as JacobianLens
from .lenses.published import load_jacobian_lens as load_jacobian_lens, published_lenses as published_lenses
from .lenses.reading import (
    LensReading as LensReading,
    Readable as Readable,
    logit_lens as logit_lens,
    readable as readable,
)
from .names import ABLATIONS as ABLATIONS, METHODS as METHODS, METRICS as METRICS
from .pairs.equations import operand_pairs as operand_pairs, statement_pairs as statement_pairs
from .pairs.pairs import (
    Pairs as Pairs,
    divergence as divergence,
    logit_difference as logit_difference,
    read_pairs as read_pairs,
    rows_that_fit as rows_that_fit,
)
from .pairs.prefixes import behaviour_pairs as behaviour_pairs
from .patching import PatchMap as PatchMap, patch as patch
from .tokens import (
    SentenceAttribution as SentenceAttribution,
    sentence_attribution as sentence_attribution,
    token_attribution as token_attribution,
)
