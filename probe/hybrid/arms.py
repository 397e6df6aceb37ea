"""The arms of an experiment: the hybrid, and each control as the hybrid with one part exchanged."""

from dataclasses import replace

from probe.hybrid.decode import Arm
from probe.hybrid.emit import AddVector, ForceToken, Rerank
from probe.hybrid.policy import (
    Disagreement,
    LearnedStrength,
    OneBehaviour,
    RandomBehaviour,
    RandomPositions,
    ThinkingBehaviour,
)
from probe.steering import BehaviourVectors, random_like
from probe.taxonomy import Taxonomy


def hybrid_arm(taxonomy: Taxonomy, vectors: BehaviourVectors, name: str = "hybrid") -> Arm:
    """Steer where the models disagree, with the thinking model's behaviour, as strongly as was learned."""
    return Arm(name, Disagreement(), ThinkingBehaviour(taxonomy), LearnedStrength(vectors), AddVector(vectors))


def control_arms(
    hybrid: Arm, vectors: BehaviourVectors, single: BehaviourVectors, *, rate: float, seed: int
) -> list[Arm]:
    """Every control and reference, each the hybrid with one part exchanged.

    Args:
        hybrid: from :func:`hybrid_arm`.
        vectors: the hybrid's vectors.
        single: vectors learned with one behaviour only.
        rate: the fraction of tokens that the hybrid steered, for the rate-matched control.
        seed: draws the random directions.
    """
    random = random_like(vectors, seed)
    return [
        replace(
            hybrid,
            name="single-vector",
            which=OneBehaviour(),
            how_strongly=LearnedStrength(single),
            emit=AddVector(single),
        ),
        replace(hybrid, name="random-category", which=RandomBehaviour(vectors.n_behaviours)),
        replace(hybrid, name="random-vectors", emit=AddVector(random)),
        replace(hybrid, name="random-positions", where=RandomPositions(rate)),
        replace(hybrid, name="rerank-only", emit=Rerank()),
        replace(hybrid, name="force-token", emit=ForceToken()),
    ]
