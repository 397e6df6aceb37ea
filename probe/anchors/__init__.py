"""Which sentence and which token of a trace its answer depends on, measured by rollouts from many places."""

from probe.anchors.alike import Alike as Alike, say_the_same as say_the_same
from probe.anchors.anchors import (
    FOUND as FOUND,
    Anchors as Anchors,
    anchors_of as anchors_of,
    sentence_places as sentence_places,
    thought_anchors as thought_anchors,
)
from probe.anchors.answers import (
    Shift as Shift,
    accuracy_difference as accuracy_difference,
    answer_clusters as answer_clusters,
    answer_shift as answer_shift,
)
from probe.anchors.branches import (
    Edit as Edit,
    Resilience as Resilience,
    edited as edited,
    own_sentences as own_sentences,
    resilience as resilience,
)
from probe.anchors.critical import (
    CriticalTokens as CriticalTokens,
    both_log_probs as both_log_probs,
    contrast as contrast,
    critical_tokens as critical_tokens,
    entropy as entropy,
)
from probe.anchors.forced import (
    ForcedAnswers as ForcedAnswers,
    forced_answers as forced_answers,
    forced_of as forced_of,
    forced_places as forced_places,
    usual_closing as usual_closing,
)
from probe.anchors.pivotal import (
    PivotalToken as PivotalToken,
    PivotalTokens as PivotalTokens,
    pivotal_tokens as pivotal_tokens,
)
from probe.anchors.rollouts import (
    Continuations as Continuations,
    RolloutSettings as RolloutSettings,
    roll_out as roll_out,
    stream_rollouts as stream_rollouts,
)
from probe.anchors.sets import (
    RolloutSet as RolloutSet,
    export_rollouts as export_rollouts,
    exported_folder as exported_folder,
    model_of as model_of,
    problem_of as problem_of,
    read_rollouts as read_rollouts,
    rollout_sets as rollout_sets,
    rollouts_hash as rollouts_hash,
)
