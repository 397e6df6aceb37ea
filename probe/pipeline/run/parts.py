"""The names of the four parts of a user-made arm, and of arms, checked without a run."""

import math
import re

from probe.config import nearest
from probe.errors import ProbeError
from probe.hybrid import ARMS
from probe.problems import SPLITS

SEED = "hybrid-seed-"
"""The name of an arm that uses the vectors of a further seed begins with this."""
WHERE = (
    "disagreement",
    "divergence:BITS",
    "uncertain:BITS",
    "sentence-start:TOKENS",
    "opening:TOKENS",
    "thinking",
    "answer",
    "always",
    "never",
    "random:RATE",
    "learned",
)
"""Names of where to steer; some are followed by a colon and a number."""
WHICH = ("coming", "single", "pooled", "learned", "random", "one:BEHAVIOUR", "least-similar")
"""Names of which behaviour to steer with."""
STRENGTH = ("learned", "a number")
"""How strongly to steer."""
WHAT = (
    "hybrid",
    "single-vector",
    "mean-difference",
    "decoder-rows",
    "rank-1",
    "v1",
    "v2",
    "token",
    "rerank:AMONG",
    "fusion:WEIGHT",
)
"""Names of what is added or emitted; some are followed by a colon and a number."""
_DEFAULTS: dict[str, float] = {"sentence-start": 1, "rerank": 5, "fusion": 0.5}
"""Numbers that may be left out."""


def check_parts(where: str, which: str, strength: str, what: str, name: str, split: str = "validation") -> None:
    """Check the names of an arm's parts, without a run.

    Args:
        where, which, strength, what, name: see :func:`own_arm`.
        split: the split of the problems that the arm is tried on.

    Raises:
        ProbeError: for an unknown name, a number that is missing or invalid, or a name that an arm cannot have.
    """
    if name in ("base", "thinking") or not re.fullmatch(r"\w[\w.-]*", name):
        raise ProbeError(f"--name {name}: use letters, digits, '.', '-' and '_', and neither 'base' nor 'thinking'")
    if split not in SPLITS:
        raise ProbeError(f"--split {split}: there is no such split; {nearest(split, SPLITS)}")
    kind, number = part_of("what", what, WHAT)
    if kind == "rerank":
        whole("what", what, number)
    kind, number = part_of("where", where, WHERE)
    if kind == "random" and not 0 <= number <= 1:
        raise ProbeError(f"--where {where}: a rate is from 0 to 1")
    if kind in ("sentence-start", "opening"):
        whole("where", where, number)
    kind, number = part_of("which", which, WHICH)
    if kind == "one" and (number < 0 or not number.is_integer()):
        raise ProbeError(f"--which {which}: write the number of a behaviour after the colon")
    if strength != "learned":
        finite(strength)


def part_of(part: str, said: str, known: tuple[str, ...]) -> tuple[str, float]:
    name, _, number = said.partition(":")
    names = {each.partition(":")[0]: ":" in each for each in known}
    if name not in names:
        raise ProbeError(f"--{part} {said}: there is no {name!r}; {nearest(name, names)} (of: {', '.join(known)})")
    if not number and name in _DEFAULTS:
        return name, _DEFAULTS[name]
    if names[name] != bool(number):
        raise ProbeError(f"--{part} {said}: write it as one of {', '.join(known)}")
    try:
        value = float(number or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProbeError(f"--{part} {said}: {number!r} is not a number")
    return name, value


def whole(part: str, said: str, number: float) -> None:
    if number < 1 or not number.is_integer():
        raise ProbeError(f"--{part} {said}: write a whole number of at least 1 after the colon")


def finite(said: str) -> float:
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProbeError(f"--strength {said}: write 'learned', or a number")
    return value


def check_arm(name: str) -> None:
    """Check the name of an arm that answers questions.

    Raises:
        ProbeError: if there is no such arm.
    """
    known = ("base", "thinking", *ARMS)
    if name not in known and not name.startswith(SEED):
        raise ProbeError(f"there is no arm {name!r}; {nearest(name, known)}")
