"""The hybrid model: decoding with exchangeable parts, controls, rivals, evaluation and statistics."""

from probe.hybrid.arms import control_arms, hybrid_arm
from probe.hybrid.decode import Arm, HybridTrace, decode_hybrid
from probe.hybrid.emit import AddVector, ForceToken, Rerank
from probe.hybrid.evaluate import ArmResult, evaluate_arm, judge, oracle_bits, summarise
from probe.hybrid.policy import (
    Always,
    Disagreement,
    FixedStrength,
    LearnedStrength,
    Moment,
    Never,
    OneBehaviour,
    RandomBehaviour,
    RandomPositions,
    ThinkingBehaviour,
)
from probe.hybrid.statistics import accuracy_interval, gap_recovered

__all__ = [
    "AddVector",
    "Always",
    "Arm",
    "ArmResult",
    "Disagreement",
    "FixedStrength",
    "ForceToken",
    "HybridTrace",
    "LearnedStrength",
    "Moment",
    "Never",
    "OneBehaviour",
    "RandomBehaviour",
    "RandomPositions",
    "Rerank",
    "ThinkingBehaviour",
    "accuracy_interval",
    "control_arms",
    "decode_hybrid",
    "evaluate_arm",
    "gap_recovered",
    "hybrid_arm",
    "judge",
    "oracle_bits",
    "summarise",
]
