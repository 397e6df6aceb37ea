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
    "massive": "massive activations",
}


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
