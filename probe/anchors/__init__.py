"""Which sentence and which token of a trace its answer depends on, measured by rollouts from many places."""

from probe.anchors.anchors import Anchors as Anchors, thought_anchors as thought_anchors
from probe.anchors.critical import (
    CriticalTokens as CriticalTokens,
    both_log_probs as both_log_probs,
    contrast as contrast,
    critical_tokens as critical_tokens,
    entropy as entropy,
)
from probe.anchors.forced import ForcedAnswers as ForcedAnswers, forced_answers as forced_answers
from probe.anchors.rollouts import (
    Continuations as Continuations,
    RolloutSettings as RolloutSettings,
    roll_out as roll_out,
)
