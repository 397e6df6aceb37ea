"""What training changed between two models or along a checkpoint series, with a null for each figure."""

from probe.diff.directions import (
    Direction as Direction,
    DirectionTransfer as DirectionTransfer,
    direction_transfer as direction_transfer,
    fit_direction as fit_direction,
)
from probe.diff.findings import PARTS as PARTS, Finding as Finding, PairDiff as PairDiff
from probe.diff.heads import (
    Agreement as Agreement,
    HeadImportance as HeadImportance,
    HeadShift as HeadShift,
    SharedHeads as SharedHeads,
    agreement as agreement,
    head_importance as head_importance,
    head_shift as head_shift,
    importance_series as importance_series,
    shared_heads as shared_heads,
)
from probe.diff.knowledge import KnowledgeMaps as KnowledgeMaps, knowledge_maps as knowledge_maps
from probe.diff.massive import (
    LEAST as LEAST,
    MassiveActivations as MassiveActivations,
    Rise as Rise,
    fit_rise as fit_rise,
    massive_activations as massive_activations,
)
from probe.diff.models import check_parts as check_parts, diff_models as diff_models
from probe.diff.neurons import (
    EntropyNeurons as EntropyNeurons,
    NeuronOverlap as NeuronOverlap,
    entropy_neurons as entropy_neurons,
    entropy_overlap as entropy_overlap,
)
from probe.diff.series import Series as Series, load_series as load_series
from probe.diff.shared import (
    SharedLatents as SharedLatents,
    scaled_latents as scaled_latents,
    shared_latents as shared_latents,
)
from probe.diff.tokens import TokenTrace as TokenTrace, running_mean as running_mean, token_trace as token_trace
