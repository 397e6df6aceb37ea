"""Inside a model: the edges, heads and states that carry a behaviour, and what heads attend to."""

from probe.circuits.attention import (
    Attention as Attention,
    Receivers as Receivers,
    attention as attention,
    receiver_heads as receiver_heads,
    sentence_attention as sentence_attention,
)
from probe.circuits.attribution import METHODS as METHODS, attribute as attribute, edge_scores as edge_scores
from probe.circuits.circuit import Circuit as Circuit
from probe.circuits.direct import (
    LogitLens as LogitLens,
    direct_attribution as direct_attribution,
    logit_lens as logit_lens,
)
from probe.circuits.effect import (
    HeadEffect as HeadEffect,
    behaviour_look as behaviour_look,
    effect_of_heads as effect_of_heads,
)
from probe.circuits.equations import operand_pairs as operand_pairs, statement_pairs as statement_pairs
from probe.circuits.faithful import Faithfulness as Faithfulness, faithfulness as faithfulness, kept_by as kept_by
from probe.circuits.graph import Graph as Graph, Reader as Reader
from probe.circuits.heads import (
    ABLATIONS as ABLATIONS,
    Head as Head,
    Reference as Reference,
    heads_changed as heads_changed,
    matched_heads as matched_heads,
    reference as reference,
    start_tokens as start_tokens,
    strongest_heads as strongest_heads,
)
from probe.circuits.lens import EdgeLens as EdgeLens
from probe.circuits.pairs import (
    Pairs as Pairs,
    behaviour_pairs as behaviour_pairs,
    divergence as divergence,
    logit_difference as logit_difference,
    read_pairs as read_pairs,
)
from probe.circuits.patching import PatchMap as PatchMap, patch as patch
from probe.circuits.paths import path_effect as path_effect
