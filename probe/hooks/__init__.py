"""Read and write activations at named sites and selected tokens through torch hooks; decode in cached batches."""

from probe.hooks.attention import exchange_attention as exchange_attention
from probe.hooks.captured import Captured as Captured
from probe.hooks.checks import check_finite as check_finite, likeliest as likeliest, not_finite as not_finite
from probe.hooks.cost import TrainingCost as TrainingCost
from probe.hooks.decoding.branches import (
    Branches as Branches,
    TokenForwards as TokenForwards,
    can_branch as can_branch,
)
from probe.hooks.decoding.runner import Runner as Runner, Step as Step, check_prompts as check_prompts
from probe.hooks.decoding.streaming import Lane as Lane, Now as Now, stream as stream
from probe.hooks.forced import (
    Forced as Forced,
    ForcedPass as ForcedPass,
    force as force,
    forced_pass as forced_pass,
    in_rows as in_rows,
    row_bytes as row_bytes,
)
from probe.hooks.head import (
    Head as Head,
    checkpointed as checkpointed,
    cross_entropy as cross_entropy,
    n_logits as n_logits,
    score_logits as score_logits,
    states_of as states_of,
)
from probe.hooks.operations import (
    Add as Add,
    Apply as Apply,
    Clamp as Clamp,
    Operation as Operation,
    ProjectOut as ProjectOut,
    Scale as Scale,
    Swap as Swap,
)
from probe.hooks.passes import Pass as Pass
from probe.hooks.patterns import watch_patterns as watch_patterns
from probe.hooks.reading import as_sites as as_sites, capture as capture
from probe.hooks.selection import Selection as Selection, Tokens as Tokens
from probe.hooks.upper import (
    Masks as Masks,
    UpperLayers as UpperLayers,
    additive_masks as additive_masks,
    causal_masks as causal_masks,
)
from probe.hooks.writing import edit as edit
