# The public names of `probe.diff`, read by editors and, at run time, by `__init__.py`.
from .difference import (
    NULLS as NULLS,
    PLACES as PLACES,
    ActivationDifference as ActivationDifference,
    Reading as Reading,
    activation_difference as activation_difference,
    probability_rise as probability_rise,
)
from .directions import (
    Direction as Direction,
    DirectionTransfer as DirectionTransfer,
    direction_transfer as direction_transfer,
    fit_direction as fit_direction,
)
from .findings import Finding as Finding, PairDiff as PairDiff
from .heads import (
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
from .knowledge import KnowledgeMaps as KnowledgeMaps, knowledge_maps as knowledge_maps
from .latents import LatentDifference as LatentDifference, latent_difference as latent_difference
from .massive import (
    LEAST as LEAST,
    MassiveActivations as MassiveActivations,
    Rise as Rise,
    fit_rise as fit_rise,
    massive_activations as massive_activations,
)
from .models import compare_parts as compare_parts, diff_models as diff_models
from .names import (
    AT_LAYER as AT_LAYER,
    NEEDS_BEHAVIOUR as NEEDS_BEHAVIOUR,
    OF_PROMPTS as OF_PROMPTS,
    OF_SAE as OF_SAE,
    ON_PAIRS as ON_PAIRS,
    PARTS as PARTS,
    USES_BEHAVIOUR as USES_BEHAVIOUR,
    check_parts as check_parts,
    usual_parts as usual_parts,
)
from .neurons import (
    EntropyNeurons as EntropyNeurons,
    NeuronOverlap as NeuronOverlap,
    entropy_neurons as entropy_neurons,
    entropy_overlap as entropy_overlap,
)
from .risen import Risen as Risen, risen_behaviour as risen_behaviour
from .series import Series as Series, load_series as load_series
from .shared import (
    SharedLatents as SharedLatents,
    scaled_latents as scaled_latents,
    shared_latents as shared_latents,
)
from .steered import (
    Effect as Effect,
    SteeredTexts as SteeredTexts,
    steer_with_difference as steer_with_difference,
)
from .texts import Texts as Texts
from .tokens import (
    TokenShift as TokenShift,
    TokenTrace as TokenTrace,
    running_mean as running_mean,
    token_trace as token_trace,
)
