"""Stability by re-generation: does the text before a behaviour's sentence produce the behaviour again?

After *Reliable control points* (arXiv 2604.02113): the sentence is sampled several times from the same prefix, and it
is stable if nearly all samples show the behaviour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from probe.hooks import Runner, check_prompts, not_finite
from probe.models import Model
from probe.statistics import Interval, mean_interval, share_interval
from probe.taxonomy.falsify.config import FalsifyConfig
from probe.traces import first_sentence, nucleus, split_sentences

#: Steps between checks of which rows have finished their sentence.
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
    generator = torch.Generator().manual_seed(seed)
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))
    found: list[list[tuple[int, ...]]] = [[] for _ in prefixes]
    size = max(1, config.batch_tokens // (config.samples * (max(map(len, prefixes), default=1) + config.new_tokens)))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        rows = _continue(model, [prefixes[i] for i in batch], config, generator)
        for at, i in enumerate(batch):
            found[i] = [first_sentence(model, row) for row in rows[at * config.samples : (at + 1) * config.samples]]
    return found


def _continue(
    model: Model, prefixes: Sequence[Sequence[int]], config: FalsifyConfig, generator: torch.Generator
) -> list[list[int]]:
    """Samples of each prefix, next to each other, at least up to the end of the first sentence."""
    check_prompts(model, prefixes, config.new_tokens)
    out: list[list[int]] = [[] for _ in range(len(prefixes) * config.samples)]
    alive = list(range(len(out)))
    runner = Runner(model, prefixes, config.new_tokens)
    logits = runner.prefill().logits.repeat_interleave(config.samples, 0)
    runner.repeat(config.samples)
    for i in range(config.new_tokens):
        chances = nucleus(logits.cpu(), config.temperature, config.top_p)
        if chances[:, 0].isnan().any():  # one bad logit makes every probability of its row NaN
            raise not_finite(f"a logit at new token {i} of a sentence that is sampled again", model)
        tokens = torch.multinomial(chances, 1, generator=generator)[:, 0]
        look = (i + 1) % _LOOK == 0
        going = []
        for at, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            if token in model.eos_ids:
                continue
            out[row].append(token)
            if not (look and len(split_sentences(model.decode(out[row]), model.think_tags)) > 1):
                going.append(at)
        if not going or i == config.new_tokens - 1:
            break
        tokens = tokens.to(logits.device)
        if len(going) < len(alive):
            kept = torch.tensor(going, device=logits.device)
            runner.keep(kept)
            alive, tokens = [alive[at] for at in going], tokens[kept]
        logits = runner.step(tokens).logits
    return out
