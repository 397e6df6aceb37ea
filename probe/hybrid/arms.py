"""The arms of an experiment: the hybrid, and controls that are the hybrid with one part exchanged."""

from dataclasses import replace

from probe.hybrid.emit import AddVector, ForceToken, FuseLogits, Rerank
from probe.hybrid.moment import Arm, Where
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
    """Make the hybrid: steer where the models disagree, with the thinking model's behaviour and the learned strength.

    Args:
        which: what chooses the behaviour: a reader of the coming sentence, or a taxonomy, which reads the current one.
            The mechanism must have been learned at gates labelled in the same way.
        mechanism: what is added to the base model.
    """
    chosen = ThinkingBehaviour(which) if isinstance(which, Taxonomy) else ComingBehaviour(which)
    return Arm(name, Disagreement(), chosen, LearnedStrength(mechanism), AddVector(mechanism))


def oracle_free_arm(policy: BasePolicy, mechanism: Mechanism, name: str = "oracle-free") -> Arm:
    """Make the oracle-free hybrid, in which a policy that reads only the base model chooses where and which.

    Args:
        policy: from :func:`~probe.steering.learn_policy`.
        mechanism: what is added to the base model.
    """
    return Arm(name, LearnedGate(policy), LearnedBehaviour(policy), LearnedStrength(mechanism), AddVector(mechanism))


def with_mechanism(arm: Arm, mechanism: Mechanism, name: str) -> Arm:
    """Copy an arm with another mechanism and the strength of that mechanism.

    Args:
        mechanism: what the copy adds.
    """
    return replace(arm, name=name, how_strongly=LearnedStrength(mechanism), emit=AddVector(mechanism))


def control_arms(
    hybrid: Arm, mechanism: Mechanism, single: Mechanism, *, rate: float, seed: int, among: int = 5
) -> list[Arm]:
    """Make every control, each the hybrid with one part exchanged.

    Args:
        hybrid: from :func:`hybrid_arm`.
        mechanism: the mechanism of the hybrid.
        single: a mechanism with a single vector for all behaviours.
        rate: the fraction of tokens that the hybrid steers, which random-positions matches.
        seed: seeds the random directions.
        among: the number of the base model's most likely tokens that rerank-only chooses from.
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
    """Make the baseline in which the thinking model begins every sentence (Yang et al., 2504.12329).

    Args:
        tokens: the number of tokens of each sentence that the thinking model writes.
        opening: the number of tokens that it writes at the beginning of the answer.
    """
    return phased_arm(SentenceStart(tokens, opening), "speculative")


def phased_arm(where: Where, name: str) -> Arm:
    """Make the baseline in which the thinking model writes some phases of the text, and the base model the rest.

    Args:
        where: the phases: :class:`~probe.hybrid.Phase`, :class:`~probe.hybrid.SentenceStart`, or your own.
    """
    return Arm(name, where, OneBehaviour(), FixedStrength(), ForceToken())


def addition_arm(vector: Mechanism, strength: float, name: str) -> Arm:
    """Make the baseline that adds one vector to every token of the answer, and to the last token of the prompt.

    Args:
        vector: a mechanism with one vector.
        strength: its factor.
    """
    return Arm(name, Always(), OneBehaviour(), FixedStrength(strength), AddVector(vector))


def fusion_arm(weight: float = 0.5) -> Arm:
    """Make the baseline that mixes the logits of both models at every token (Fan et al., 2406.15480).

    Args:
        weight: the weight of the thinking model's logits.
    """
    return Arm("fusion", Always(), OneBehaviour(), FixedStrength(), FuseLogits(weight))
