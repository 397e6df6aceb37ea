"""Settings of sampling; this file does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probe.config import check_least
from probe.errors import ProbeError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the most likely one, or one sampled from a part of the distribution.

    The settings are applied in the order of transformers: the temperature, then ``top_k``, ``top_p`` and ``min_p``.

    Raises:
        ProbeError: if a setting is out of range.

    >>> Sampling(), Sampling(temperature=0.6, top_p=0.95)
    (Sampling(greedy), Sampling(temperature 0.6, top-p 0.95))
    """

    temperature: float = 0.0
    """Divides the logits; 0 chooses the most likely token."""

    top_p: float = 1.0
    """Nucleus: keeps the smallest set of most likely tokens whose probabilities add up to this; 1 keeps all tokens."""

    top_k: int | None = None
    """The number of most likely tokens that are kept; None keeps all tokens."""

    min_p: float = 0.0
    """Drops tokens whose probability is below this share of the highest probability; 0 keeps all tokens."""

    def __post_init__(self) -> None:
        check_least("sampling", self, temperature=0, top_k=1)
        if not 0 < self.top_p <= 1:
            raise ProbeError(f"sampling.top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p < 1:
            raise ProbeError(f"sampling.min_p is {self.min_p}; it must be at least 0 and below 1")
        cut = [name for name in ("top_p", "top_k", "min_p") if getattr(self, name) != type(self).__dict__[name]]
        if self.greedy and cut:
            raise ProbeError(
                f"sampling.{cut[0]} has no effect at temperature 0; give a temperature above 0, such as 0.6"
            )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is chosen."""
        return self.temperature == 0

    @classmethod
    def of_generation(cls, settings: Mapping[str, Any]) -> "Sampling":
        """The sampling in a model's ``generation_config.json``; greedy unless it sets ``do_sample``.

        Args:
            settings: the content of the file.

        Raises:
            ProbeError: if a setting is out of range.
        """
        if not settings.get("do_sample") or settings.get("temperature") == 0:
            return cls()
        # A missing setting removes no tokens, as in vLLM; transformers would keep the 50 most likely tokens.
        given = {name: settings.get(name) for name in ("temperature", "top_p", "top_k", "min_p")}
        return cls(
            temperature=1.0 if given["temperature"] is None else float(given["temperature"]),
            top_p=1.0 if given["top_p"] is None else float(given["top_p"]),
            top_k=int(given["top_k"]) or None if given["top_k"] is not None else None,
            min_p=0.0 if given["min_p"] is None else float(given["min_p"]),
        )

    def __str__(self) -> str:
        if self.greedy:
            return "greedy"
        told = [f"temperature {self.temperature:g}"]
        told += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        told += [f"top-k {self.top_k}"] if self.top_k is not None else []
        told += [f"min-p {self.min_p:g}"] if self.min_p else []
        return ", ".join(told)

    def __repr__(self) -> str:
        return f"Sampling({self})"


GREEDY = Sampling()
"""Every token is the most likely one."""


@dataclass(frozen=True)
class PairSampling:
    """How the two models of a pair are sampled, and the number of samples.

    Raises:
        ProbeError: for fewer than one sample.
    """

    base: Sampling = GREEDY
    """Chooses the tokens of the base model, steered or not."""

    thinking: Sampling = GREEDY
    """Chooses the tokens of the thinking model."""

    samples: int = 1
    """Number of answers to each problem; a greedy model gives one."""

    def __post_init__(self) -> None:
        check_least("sampling", self, samples=1)

    def number(self, *drawn: Sampling) -> int:
        """The number of answers to each problem: one, unless a token is sampled.

        >>> PairSampling(thinking=Sampling(temperature=0.6), samples=3).number(Sampling(temperature=0.6))
        3
        """
        return 1 if all(each.greedy for each in drawn) else self.samples


BOTH_GREEDY = PairSampling()
"""One greedy answer to each problem."""
