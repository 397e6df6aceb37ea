"""The hybrid model: decoding with exchangeable parts, controls, baselines, evaluation and statistics."""

from probe.hybrid.arms import (
    control_arms as control_arms,
    fusion_arm as fusion_arm,
    hybrid_arm as hybrid_arm,
    oracle_free_arm as oracle_free_arm,
    speculative_arm as speculative_arm,
    with_mechanism as with_mechanism,
)
from probe.hybrid.baselines import (
    DistilConfig as DistilConfig,
    distil_lora as distil_lora,
    few_shot_prompt as few_shot_prompt,
    handbook_prompt as handbook_prompt,
    run_lora as run_lora,
    run_majority as run_majority,
    run_prompted as run_prompted,
)
from probe.hybrid.config import ARMS as ARMS, HybridConfig as HybridConfig
from probe.hybrid.decode import (
    HybridTrace as HybridTrace,
    decode_hybrid as decode_hybrid,
    stream_hybrid as stream_hybrid,
)
from probe.hybrid.effects import (
    classify_errors as classify_errors,
    counted as counted,
    flip_rates as flip_rates,
    naming_agreement as naming_agreement,
)
from probe.hybrid.emit import (
    AddVector as AddVector,
    ForceToken as ForceToken,
    FuseLogits as FuseLogits,
    Rerank as Rerank,
    SearchShifts as SearchShifts,
)
from probe.hybrid.evaluate import (
    ArmResult as ArmResult,
    answer_prompts as answer_prompts,
    evaluate_arm as evaluate_arm,
    grade_answers as grade_answers,
    summarise as summarise,
)
from probe.hybrid.gap import (
    compare_arms as compare_arms,
    detectable_gap as detectable_gap,
    gap_recovered as gap_recovered,
    seeds_recovered as seeds_recovered,
)
from probe.hybrid.moment import (
    Arm as Arm,
    Emit as Emit,
    Emitted as Emitted,
    HowStrongly as HowStrongly,
    Moment as Moment,
    Needs as Needs,
    Where as Where,
    Which as Which,
)
from probe.hybrid.oracle import agreement as agreement, oracle_bits as oracle_bits, surprisal as surprisal
from probe.hybrid.recipes import v1_arms as v1_arms, v2_arms as v2_arms
from probe.hybrid.strength import FixedStrength as FixedStrength, LearnedStrength as LearnedStrength
from probe.hybrid.where import (
    Always as Always,
    Disagreement as Disagreement,
    Divergence as Divergence,
    LearnedGate as LearnedGate,
    Never as Never,
    RandomPositions as RandomPositions,
    SentenceStart as SentenceStart,
    Uncertain as Uncertain,
)
from probe.hybrid.which import (
    ComingBehaviour as ComingBehaviour,
    LearnedBehaviour as LearnedBehaviour,
    LeastSimilar as LeastSimilar,
    OneBehaviour as OneBehaviour,
    RandomBehaviour as RandomBehaviour,
    ThinkingBehaviour as ThinkingBehaviour,
    least_similar as least_similar,
)
