"""Which sentence, and which token, a thinking model's answer hangs on: by rollouts from every place of a trace."""

from probe.anchors.anchors import Anchors as Anchors
from probe.anchors.anchors import thought_anchors as thought_anchors
from probe.anchors.critical import CriticalTokens as CriticalTokens
from probe.anchors.critical import contrast as contrast
from probe.anchors.critical import critical_tokens as critical_tokens
from probe.anchors.critical import entropy as entropy
from probe.anchors.critical import log_probs as log_probs
from probe.anchors.forced import ForcedAnswers as ForcedAnswers
from probe.anchors.forced import forced_answers as forced_answers
from probe.anchors.rollouts import Rollouts as Rollouts
from probe.anchors.rollouts import roll_out as roll_out
