"""The two published versions of the hybrid as named arms, with their published controls and further ones.

Both follow Venhoff et al. (2510.07364), with known mistakes corrected:

- v1: activations are centred and scaled before the SAE reads them (published: raw); vectors are added where they were
  trained (published: off by one block); the unsteered token is a candidate (published: it is not); random vectors have
  the learned norms and no bias (published: unit norm beside the trained bias); resuming does not change accuracies.
- v2: training and decoding follow one convention (published: later tokens see the shifts in training but not in
  decoding); both compare with the thinking model's most likely token (published: sampled in training); vectors and
  strengths are of one training step (published: each vector of its own epoch).
"""

from dataclasses import replace

from probe.hybrid.arms import hybrid_arm
from probe.hybrid.emit import AddVector, Rerank, SearchShifts
from probe.hybrid.moment import Arm
from probe.hybrid.strength import FixedStrength, LearnedStrength
from probe.hybrid.where import Disagreement, RandomPositions
from probe.hybrid.which import ComingBehaviour, OneBehaviour, RandomBehaviour, ThinkingBehaviour
from probe.steering import ComingReader, Mechanism, random_like
from probe.taxonomy import Taxonomy


def v1_arms(
    taxonomy: Taxonomy,
    *,
    vectors: Mechanism,
    bias: Mechanism,
    learned: Mechanism,
    reader: ComingReader,
    strengths: tuple[float, ...],
    windows: tuple[int, ...],
    seed: int,
) -> list[Arm]:
    """Make version 1 and its controls: at disagreements the thinking model chooses among several shifts.

    Args:
        taxonomy: chooses the behaviour.
        vectors, bias: from :func:`~probe.steering.learn_on_sentences`.
        learned, reader: the mechanism and the reader of the hybrid. They replace those of version 1 in one arm, which
            separates the effect of the vectors from that of the search.
        strengths, windows: what the search tries; a window of 0 is the whole text.
        seed: seeds the random directions.
    """
    spans = tuple(window or None for window in windows)
    search = SearchShifts(vectors, strengths, spans)
    v1 = Arm("v1", Disagreement(), ThinkingBehaviour(taxonomy), FixedStrength(), search)
    return [
        v1,
        replace(v1, name="v1-bias-only", which=OneBehaviour(), emit=replace(search, mechanism=bias)),
        replace(v1, name="v1-random-category", which=RandomBehaviour(vectors.n_behaviours)),
        replace(v1, name="v1-random-vectors", emit=replace(search, mechanism=random_like(vectors, seed))),
        replace(v1, name="v1-random-choice", emit=replace(search, at_random=True)),
        replace(v1, name="v1-fixed", emit=SearchShifts(vectors, strengths[-1:], spans[:1], unsteered=False)),
        replace(v1, name="v1-rerank", emit=Rerank(len(strengths) * len(windows) + 1)),
        replace(
            v1,
            name="v1-learned-vectors",
            which=ComingBehaviour(reader),
            how_strongly=LearnedStrength(learned),
            emit=replace(search, mechanism=learned, windows=(1,)),
        ),
    ]


def v2_arms(taxonomy: Taxonomy, mechanism: Mechanism, *, rate: float, seed: int) -> list[Arm]:
    """Make version 2, which has learned strengths and no search, and its published controls.

    Args:
        taxonomy: chooses the behaviour.
        mechanism: learned with the published settings.
        rate: the fraction of tokens that version 2 steers, which v2-random-positions matches.
        seed: seeds the random directions.
    """
    v2 = hybrid_arm(taxonomy, mechanism, "v2")
    random = AddVector(random_like(mechanism, seed))
    anything = RandomBehaviour(mechanism.n_behaviours)
    return [
        v2,
        replace(v2, name="v2-random-category", which=anything),
        replace(v2, name="v2-random-vectors", emit=random),
        replace(v2, name="v2-random-both", which=anything, emit=random),
        replace(v2, name="v2-random-positions", where=RandomPositions(rate)),
    ]
