"""Stability by re-generation: does the text before a behaviour's sentence produce the behaviour again?

After *Reliable control points* (arXiv 2604.02113): the sentence is sampled several times from the same prefix, and it
is stable if nearly all samples show the behaviour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from probe.models import Model, Sampling
from probe.statistics import Interval, mean_interval, share_interval
from probe.taxonomy.falsify.config import FalsifyConfig
from probe.traces import first_sentence, split_sentences, stream_samples

#: Tokens between checks whether a sample has finished its sentence.
_LOOK = 8


@dataclass(frozen=True)
class Stability:
    """How often a behaviour's sentences show it again when they are sampled from the text before them."""

    prefixes: int
    """The number of sentences."""
    samples: int
    """The number of samples of each sentence."""
    mean: float | None
    """The mean share of samples that show the behaviour."""
    low: float | None
    """The lower end of its 95 % bootstrap interval over prefixes."""
    high: float | None
    """The upper end of that interval."""
    stable: Interval
    """The share of prefixes that are stable: enough of their samples show the behaviour."""
    expected: float
    """The share expected of a random sentence: that of the behaviour among all sentences."""

    @classmethod
    def of(cls, shown: Bool[np.ndarray, "prefix sample"], stable: float, expected: float, seed: int) -> "Stability":
        """Summarise which samples of which prefixes show the behaviour.

        Args:
            shown: whether each sample shows the behaviour.
            stable: the share of samples that makes a prefix stable.
            expected: the share expected of a random sentence.
            seed: seeds the bootstrap.
        """
        shares = shown.mean(1) if shown.size else np.empty(0)
        mean = mean_interval(shares, seed=seed)
        often = share_interval([bool(share >= stable - 1e-9) for share in shares])
        return cls(len(shares), shown.shape[1], mean.value, mean.low, mean.high, often, expected)


def sample_sentences(
    model: Model, prefixes: Sequence[Sequence[int]], config: FalsifyConfig, seed: int
) -> list[list[tuple[int, ...]]]:
    """Sample the sentence that follows each prefix ``config.samples`` times.

    A token belongs to the sentence that has its first character, as in traces.

    Args:
        model: the model that samples.
        prefixes: token ids, the prompt included.
        config: the number of samples, temperature, top_p and limits.
        seed: seeds the sampling.

    Returns:
        For each prefix, the token ids of each sample; empty where the model ends its text at once.
    """
    longest = max(map(len, prefixes), default=1) + config.new_tokens

    def enough(tokens: Sequence[int]) -> bool:
        return len(tokens) % _LOOK == 0 and len(split_sentences(model.decode(tokens), model.think_tags)) > 1

    found: list[list[tuple[int, ...]]] = [[()] * config.samples for _ in prefixes]
    for prefix, number, tokens, _ in stream_samples(
        model,
        prefixes,
        config.samples,
        config.new_tokens,
        slots=max(1, config.batch_tokens // longest),
        sampling=Sampling(temperature=config.temperature, top_p=config.top_p),
        seed=seed,
        until=enough,
    ):
        found[prefix][number] = first_sentence(model, tokens)
    return found
