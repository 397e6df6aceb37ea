# The public names of `probe.hybrid`, read by editors and, at run time, by `__init__.py`.
from .arms import (
    addition_arm as addition_arm,
    control_arms as control_arms,
    fusion_arm as fusion_arm,
    hybrid_arm as hybrid_arm,
    oracle_free_arm as oracle_free_arm,
    phased_arm as phased_arm,
    speculative_arm as speculative_arm,
    with_mechanism as with_mechanism,
)
from .baselines import (
    ConfidenceReward as ConfidenceReward,
    GradeReward as GradeReward,
    VerifierReward as VerifierReward,
    distil_lora as distil_lora,
    few_shot_prompt as few_shot_prompt,
    handbook_prompt as handbook_prompt,
    prompted_ids as prompted_ids,
    run_latent_seek as run_latent_seek,
    run_lora as run_lora,
    run_majority as run_majority,
    run_prompted as run_prompted,
)
from .closing import Closing as Closing
from .config import (
    ARMS as ARMS,
    INFERENCE as INFERENCE,
    LATENT_SEEK as LATENT_SEEK,
    DistilConfig as DistilConfig,
    HybridConfig as HybridConfig,
    LatentSeekConfig as LatentSeekConfig,
)
from .decode import (
    HybridTrace as HybridTrace,
    decode_hybrid as decode_hybrid,
    stream_hybrid as stream_hybrid,
)
from .effects import (
    classify_errors as classify_errors,
    counted as counted,
    flip_rates as flip_rates,
    naming_agreement as naming_agreement,
)
from .emit import (
    AddVector as AddVector,
    ForceToken as ForceToken,
    FuseLogits as FuseLogits,
    Rerank as Rerank,
    SearchShifts as SearchShifts,
)
from .evaluate import (
    ArmResult as ArmResult,
    answer_prompts as answer_prompts,
    arm_shards as arm_shards,
    by_problem as by_problem,
    evaluate_arm as evaluate_arm,
    grade_answers as grade_answers,
    summarise as summarise,
)
from .gap import (
    compare_arms as compare_arms,
    detectable_gap as detectable_gap,
    gap_recovered as gap_recovered,
    seeds_recovered as seeds_recovered,
)
from .insertion import (
    Budget as Budget,
    Inserted as Inserted,
    Inserts as Inserts,
    Instruction as Instruction,
    Script as Script,
    script_arm as script_arm,
)
from .moment import (
    Arm as Arm,
    Emit as Emit,
    Emitted as Emitted,
    HowStrongly as HowStrongly,
    Moment as Moment,
    Needs as Needs,
    Where as Where,
    Which as Which,
)
from .oracle import (
    agreement as agreement,
    oracle_bits as oracle_bits,
    surprisal as surprisal,
    text_bits as text_bits,
)
from .passes import decoding_passes as decoding_passes, passes as passes
from .past import History as History
from .recipes import v1_arms as v1_arms, v2_arms as v2_arms
from .strength import FixedStrength as FixedStrength, LearnedStrength as LearnedStrength
from .where import (
    Always as Always,
    Disagreement as Disagreement,
    Divergence as Divergence,
    LearnedGate as LearnedGate,
    Never as Never,
    Phase as Phase,
    RandomPositions as RandomPositions,
    SentenceStart as SentenceStart,
    Uncertain as Uncertain,
)
from .which import (
    ComingBehaviour as ComingBehaviour,
    LearnedBehaviour as LearnedBehaviour,
    LeastSimilar as LeastSimilar,
    OneBehaviour as OneBehaviour,
    RandomBehaviour as RandomBehaviour,
    ThinkingBehaviour as ThinkingBehaviour,
    least_similar as least_similar,
)
