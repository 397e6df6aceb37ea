"""The hybrid model: decoding with exchangeable parts, controls, rivals, evaluation and statistics."""

from probe.hybrid.arms import (
    control_arms,
    fusion_arm,
    hybrid_arm,
    oracle_free_arm,
    speculative_arm,
    with_mechanism,
)
from probe.hybrid.decode import HybridTrace, decode_hybrid
from probe.hybrid.emit import AddVector, ForceToken, FuseDynamically, FuseLogits, Judged, Rerank
from probe.hybrid.evaluate import ArmResult, evaluate_arm, judge, summarise
from probe.hybrid.moment import Arm, Emit, Emitted, HowStrongly, Moment, Needs, Where, Which
from probe.hybrid.statistics import accuracy_interval, gap_recovered
from probe.hybrid.strength import FixedStrength, LearnedStrength
from probe.hybrid.where import (
    Always,
    Disagreement,
    Divergence,
    LearnedGate,
    Never,
    RandomPositions,
    SentenceStart,
    Uncertain,
)
from probe.hybrid.which import (
    ComingBehaviour,
    LearnedBehaviour,
    LeastSimilar,
    OneBehaviour,
    RandomBehaviour,
    ThinkingBehaviour,
    least_similar,
)

__all__ = [
    "AddVector",
    "Always",
    "Arm",
    "ArmResult",
    "ComingBehaviour",
    "Disagreement",
    "Divergence",
    "Emit",
    "Emitted",
    "FixedStrength",
    "ForceToken",
    "FuseDynamically",
    "FuseLogits",
    "HowStrongly",
    "HybridTrace",
    "Judged",
    "LearnedBehaviour",
    "LearnedGate",
    "LearnedStrength",
    "LeastSimilar",
    "Moment",
    "Needs",
    "Never",
    "OneBehaviour",
    "RandomBehaviour",
    "RandomPositions",
    "Rerank",
    "SentenceStart",
    "ThinkingBehaviour",
    "Uncertain",
    "Where",
    "Which",
    "accuracy_interval",
    "control_arms",
    "decode_hybrid",
    "evaluate_arm",
    "fusion_arm",
    "gap_recovered",
    "hybrid_arm",
    "judge",
    "least_similar",
    "oracle_free_arm",
    "speculative_arm",
    "summarise",
    "with_mechanism",
]
