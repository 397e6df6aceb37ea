"""What the authors of a published pair report about it: where it comes from, how large it is and how they ran it.

None of this changes a run by itself. A recipe of ``probe run`` takes the site, the size and the layer from here.
"""

import re
from dataclasses import dataclass

from probe.config import check_above_zero, check_least
from probe.errors import ProbeError


@dataclass(frozen=True)
class MemberFacts:
    """Facts about one model of a published pair."""

    parameters: int
    """Number of parameters, each counted once: an unembedding that is the embedding is not counted again."""

    licence: str
    """Licence of the weights, as the hub writes it, such as ``apache-2.0``."""

    def __post_init__(self) -> None:
        check_least("published", self, parameters=1)


@dataclass(frozen=True)
class SamplingFacts:
    """How the authors sampled the thinking model's answers. A run samples them by its setting ``decoding.thinking``."""

    temperature: float
    """Sampling temperature."""

    top_p: float
    """Nucleus: tokens are sampled from the most likely ones that together have this probability."""

    top_k: int | None = None
    """Tokens are sampled from this many most likely ones; None: from all."""

    max_new_tokens: int | None = None
    """Longest answer, in tokens; None if the authors name none."""

    def __post_init__(self) -> None:
        check_least("published.sampling", self, temperature=0, top_k=1, max_new_tokens=1)
        check_above_zero("published.sampling", self, "top_p")


@dataclass(frozen=True)
class Published:
    """The facts about a published pair; a fact that no source gives is left out.

    Raises:
        ProbeError: if a value is out of range, or the site is not the output of a block.
    """

    source: str
    """Paper or model card that the facts are from, such as ``arXiv 2510.07364v4``."""

    base: MemberFacts
    """Facts about the base model."""

    thinking: MemberFacts
    """Facts about the thinking model."""

    sampling: SamplingFacts | None = None
    """How the authors sampled the thinking model's answers."""

    site: str | None = None
    """Site of the thinking model at which the authors found behaviours, such as ``resid_post.4``."""

    size: int | None = None
    """Number of behaviours in the authors' taxonomy."""

    steering_layer: int | None = None
    """0-based layer of the base model whose output the authors steered."""

    def __post_init__(self) -> None:
        check_least("published", self, size=2, steering_layer=0)
        if self.site is not None and not re.fullmatch(r"resid_post\.\d+", self.site):
            raise ProbeError(f"published.site is {self.site!r}; write the output of a block, such as resid_post.4")
