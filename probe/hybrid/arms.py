"""The arms of an experiment: the hybrid, and each control as the hybrid with one part exchanged."""

from dataclasses import replace

from probe.hybrid.emit import AddVector, ForceToken, FuseLogits, Rerank
from probe.hybrid.moment import Arm
from probe.hybrid.strength import FixedStrength, LearnedStrength
from probe.hybrid.where import Always, Disagreement, LearnedGate, RandomPositions, SentenceStart
from probe.hybrid.which import (
    ComingBehaviour,
    LearnedBehaviour,
    LeastSimilar,
    OneBehaviour,
    RandomBehaviour,
    ThinkingBehaviour,
    least_similar,
)
from probe.steering import BasePolicy, ComingReader, Mechanism, random_like
from probe.taxonomy import Taxonomy


def hybrid_arm(which: ComingReader | Taxonomy, mechanism: Mechanism, name: str = "hybrid") -> Arm:
    """Steer where the models disagree, with the thinking model's behaviour, as strongly as was learned.

    Args:
        which: what tells the behaviour: a reader of the coming one, or a taxonomy, which tells the one under way. The
            mechanism must have been learned with gates named the same way.
    """
    told = ThinkingBehaviour(which) if isinstance(which, Taxonomy) else ComingBehaviour(which)
    return Arm(name, Disagreement(), told, LearnedStrength(mechanism), AddVector(mechanism))


def oracle_free_arm(policy: BasePolicy, mechanism: Mechanism, name: str = "oracle-free") -> Arm:
    """The hybrid that never asks: a policy that reads the base model says where, and which behaviour."""
    return Arm(name, LearnedGate(policy), LearnedBehaviour(policy), LearnedStrength(mechanism), AddVector(mechanism))


def with_mechanism(arm: Arm, mechanism: Mechanism, name: str) -> Arm:
    """The same arm, adding something else, as strongly as that says itself."""
    return replace(arm, name=name, how_strongly=LearnedStrength(mechanism), emit=AddVector(mechanism))


def control_arms(
    hybrid: Arm, mechanism: Mechanism, single: Mechanism, *, rate: float, seed: int, among: int = 5
) -> list[Arm]:
    """Every control and reference, each the hybrid with one part exchanged.

    Args:
        hybrid: from :func:`hybrid_arm`.
        mechanism: what the hybrid adds.
        single: learned with one behaviour only.
        rate: the fraction of tokens that the hybrid steered, for the rate-matched control.
        seed: draws the random directions.
        among: of how many tokens of the base model's the re-ranking chooses.
    """
    return [
        replace(with_mechanism(hybrid, single, "single-vector"), which=OneBehaviour()),
        replace(hybrid, name="random-category", which=RandomBehaviour(mechanism.n_behaviours)),
        replace(hybrid, name="min-cosine", which=LeastSimilar(hybrid.which, least_similar(mechanism.vectors))),
        replace(hybrid, name="random-vectors", emit=AddVector(random_like(mechanism, seed))),
        replace(hybrid, name="random-positions", where=RandomPositions(rate)),
        replace(hybrid, name="rerank-only", how_strongly=FixedStrength(), emit=Rerank(among)),
        replace(hybrid, name="force-token", how_strongly=FixedStrength(), emit=ForceToken()),
    ]


def speculative_arm(tokens: int = 1, opening: int = 0) -> Arm:
    """Speculative thinking (Yang et al., 2504.12329): the thinking model writes the first tokens of every sentence.

    Args:
        tokens: how many of every sentence.
        opening: how many of the answer.
    """
    return Arm("speculative", SentenceStart(tokens, opening), OneBehaviour(), FixedStrength(), ForceToken())


def fusion_arm(weight: float = 0.5) -> Arm:
    """Both models' logits at every token, added with a fixed weight (Fan et al., 2406.15480)."""
    return Arm("fusion", Always(), OneBehaviour(), FixedStrength(), FuseLogits(weight))
