"""Effects of steering on behaviour: whether a vector causes its behaviour, and what goes wrong in answers."""

from probe.hybrid.effects.counted import counted
from probe.hybrid.effects.errors import classify_errors, first_error
from probe.hybrid.effects.flip import FlipRates, flip_rates
from probe.hybrid.effects.naming import naming_agreement
from probe.hybrid.effects.two_by_two import two_by_two

__all__ = ["FlipRates", "classify_errors", "counted", "first_error", "flip_rates", "naming_agreement", "two_by_two"]
