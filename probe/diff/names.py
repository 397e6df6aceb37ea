"""The parts of a comparison by name."""

from collections.abc import Iterable

from probe.config import nearest
from probe.errors import ProbeError

#: The parts of a comparison.
PARTS = {
    "tokens": "divergence and entropy, token by token",
    "heads": "the heads that a behaviour depends on",
    "direction": "the direction of a behaviour, by probes and by steering",
    "truth": "the direction of true equations, by probes and by steering",
    "knowledge": "where an operand is represented",
    "neurons": "entropy neurons",
    "latents": "an SAE over both models",
    "difference": "what the mean difference of states says",
    "steering": "what the base writes with the mean difference added",
    "dictionary": "the latents of a given SAE or transcoder in both models",
    "massive": "massive activations",
}
#: The part that needs an SAE; it is computed by default if one is given.
OF_SAE = "dictionary"

#: The part in which two prompts of one model can differ.
OF_PROMPTS = "tokens"

#: The parts that compare one behaviour.
NEEDS_BEHAVIOUR = {"heads", "direction"}
#: The parts whose results depend on the behaviour; those of them that are not above can do without.
USES_BEHAVIOUR = {*NEEDS_BEHAVIOUR, "difference", "steering"}
#: The parts that compare states at one layer.
AT_LAYER = {"latents", "difference", "steering"}
#: The parts that are computed on pairs of texts.
ON_PAIRS = {"heads", "direction", "truth", "knowledge"}


def usual_parts(sae: object) -> tuple[str, ...]:
    """The parts that are computed unless others are named: all, without the one of an SAE if there is no SAE."""
    return tuple(part for part in PARTS if part != OF_SAE or sae is not None)


def check_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts as a tuple if all of them exist.

    Args:
        parts: keys of :data:`PARTS`.

    Raises:
        ProbeError: for an unknown part.
    """
    for part in (named := tuple(parts)):
        if part not in PARTS:
            raise ProbeError(f"there is no part {part!r}; {nearest(part, PARTS)} (choose from {', '.join(PARTS)})")
    return named
