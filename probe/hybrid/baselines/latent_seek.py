"""LatentSeek: the policy gradient changes the latent states of an answer's first tokens (Li et al., 2505.13308).

The base model answers, and its answer is rewarded. The states that its head read at the first tokens become parameters.
An update is a step of Adam on ``−reward · Σ log p(token)``, where the tokens are those that the states give now. Then
the states give new tokens, and the base model writes the rest after them. This ends when a reward is above a threshold,
or after a number of updates; the last answer is given. As no reward is above 0, an update makes tokens less likely that
were not rewarded. Adam divides by the size of the gradient, so the size of the reward matters little.

Mistakes of the published code that are corrected here:

- States and moments are float32. Published: the model's bfloat16, in which a step of 0.03 changes no number above 8.
- A verdict is the word after the last mark of a greedy reply. Published: replies are sampled, the mark is also found
  in the prompt, which contains it, and "true" anywhere after it approves.
- An end token among the new tokens ends the answer, tokens after it are no part of the loss, and the limit on tokens is
  for the whole answer. Published: the model writes on after it, and writes up to 1025 tokens beside those that are
  changed.
- One state is updated at least. Published: answers of fewer than 10 tokens are left as they are.
- The head is run by the model's own code, with its scale or cap. Published: the bare unembedding, with 1e-8 added to
  each probability.
- Answers are decoded in batches with a cache, and no answer is written or rewarded twice. Published: one problem at a
  time, without a cache.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probe.config import to_dict
from probe.engine import Shards
from probe.hooks import Lane, Now, n_logits, stream
from probe.hybrid.baselines.latent_seek_rewards import Attempt, Reward, Rewards
from probe.hybrid.baselines.latent_seek_states import NUMBERS, Latents
from probe.hybrid.config import LatentSeekConfig
from probe.hybrid.decode import HybridTrace
from probe.hybrid.evaluate import ArmResult, problems_hash
from probe.hybrid.oracle import DIGITS
from probe.models import GREEDY, Model, Sampling, fitting, identity
from probe.problems import Problem
from probe.traces import draw, kept_rows, sample_key, sampling_key

_SHARD = 32
"""The number of answers in a shard: an interrupted run repeats at most this many."""


@dataclass
class Sought:
    """What LatentSeek found for one answer.

    Attributes:
        tokens: the emitted token ids of the last answer, without the end token.
        truncated: whether the limit on tokens stopped it.
        rewards: the reward of the first answer, and of the answer after each update; empty if none may be updated.
        passes: the passes of the model that gave the tokens of all answers and replies, end tokens included; the first
            tokens of an answer after an update come from the states, so they cost none.
        unread: the number of verifications that gave no verdict.
    """

    tokens: list[int] = field(default_factory=list)
    truncated: bool = True
    rewards: list[float] = field(default_factory=list)
    passes: int = 0
    unread: int = 0


def run_latent_seek(
    base: Model,
    problems: Sequence[Problem],
    rewards: Rewards,
    name: str = "latent-seek",
    *,
    config: LatentSeekConfig | None = None,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    folder: str | Path | None = None,
    progress: bool = False,
) -> ArmResult:
    """Answer problems by LatentSeek. Weights stay as they are, and no problem learns from another.

    Args:
        base: the model that answers.
        rewards: rewards the answers.
        name: the name of the arm.
        config: the settings; None for the published ones.
        max_new_tokens, batch_size, folder, progress: see :func:`~probe.hybrid.evaluate_arm`.
        sampling: how tokens are chosen; a sampled token comes from the same random number after each update.
        samples: the number of answers to each problem; a greedy model gives one.
        seed: seeds the sampling.

    Raises:
        ProbeError: if the weights pass no gradient, or the folder keeps other work.
    """
    base.check_gradient("LatentSeek")
    chosen, samples = config or LatentSeekConfig(), 1 if sampling.greedy else samples
    answers = [(problem, number) for problem in problems for number in range(samples)]

    def work(items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        some = [answers[item] for item in items]
        for at, found in _Search(base, some, rewards, chosen, max_new_tokens, sampling, seed, batch_size).run():
            yield items[at], asdict(found)

    def key() -> dict[str, Any]:
        settings = {each: value for each, value in to_dict(chosen).items() if each not in ("reward", "verdict_tokens")}
        told = {"work": "latent-seek", "model": identity(base), "problems": problems_hash(problems), **rewards.key}
        return (
            told | {"settings": settings, "max_new_tokens": max_new_tokens} | _drawn(sampling, samples, seed, problems)
        )

    how = {"device": str(base.device), "batch_size": batch_size}
    shards = Shards(len(answers), work, name, key, folder, size=_SHARD, how=how)
    rows, seconds = shards.rows(progress=progress)
    found = kept_rows(Sought, rows, base, folder)
    traces = [
        HybridTrace(problem.id, tokens=each.tokens, truncated=each.truncated, sample=number)
        for (problem, number), each in zip(answers, found, strict=True)
    ]
    texts = [base.decode(trace.tokens) for trace in traces]
    passes = sum(each.passes for each in found) / max(1, len(found))
    return ArmResult(name, traces, texts, seconds, samples=samples, base_passes=passes, told=_told(found))


def _drawn(sampling: Sampling, samples: int, seed: int, problems: Sequence[Problem]) -> dict[str, Any]:
    return {} if sampling.greedy else dict(sampling_key(sampling, samples, seed, problems))


def _told(found: Sequence[Sought]) -> Mapping[str, float]:
    """What the report tells of all answers: means over them; nothing of rewards if none was rewarded."""
    if not all(each.rewards for each in found):
        return {"updates": 0.0}
    n = max(1, len(found))
    return {
        "updates": sum(len(each.rewards) - 1 for each in found) / n,
        "first_reward": round(sum(each.rewards[0] for each in found) / n, DIGITS),
        "last_reward": round(sum(each.rewards[-1] for each in found) / n, DIGITS),
        "unread_verdicts": sum(each.unread for each in found) / n,
    }


class _Search:
    """The answers of one shard. The arguments are those of :func:`run_latent_seek`."""

    def __init__(
        self,
        base: Model,
        answers: Sequence[tuple[Problem, int]],
        rewards: Rewards,
        config: LatentSeekConfig,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int,
        slots: int,
    ) -> None:
        self.base, self.answers, self.rewards, self.config = base, answers, rewards, config
        self.max_new_tokens, self.sampling, self.slots = max_new_tokens, sampling, slots
        self.prompts = [base.prompt_ids(problem.question) for problem, _ in answers]
        self.keys = [sample_key(seed, problem.id, number) for problem, number in answers]

    def run(self) -> Iterator[tuple[int, Sought]]:
        """Yield each answer, as many at a time as their latent states fit into memory."""
        held = self._updated(self.max_new_tokens) * self.base.d_model * NUMBERS * torch.float32.itemsize
        for group in fitting(range(len(self.answers)), lambda _: held, self.base.budget // 4):
            yield from zip(group, self._sought(group), strict=True)

    def _updated(self, tokens: int) -> int:
        """The number of states that are updated of an answer with so many tokens."""
        return min(tokens, self.config.most, max(1, int(self.config.share * tokens)))

    def _sought(self, group: Sequence[int]) -> list[Sought]:
        first = self._attempts(group, [()] * len(group))
        if not self.config.updates:
            return [Sought(each.tokens, each.truncated, passes=_given(each, ())) for each in first]
        last = dict(zip(group, self._rewarded(first), strict=True))
        found = {item: self._taken(Sought(), *last[item], (), new=True) for item in group}
        # An answer without a token has no states.
        open_ = [item for item in group if last[item][0].tokens and self._is_open(last[item][1])]
        if not open_:
            return [*found.values()]
        row = {item: at for at, item in enumerate(open_)}
        begins = {item: last[item][0].tokens for item in open_}
        begins = {item: tuple(tokens[: self._updated(len(tokens))]) for item, tokens in begins.items()}
        seen = {item: {begins[item]: last[item]} for item in open_}
        latents = Latents(
            self.base,
            [self.prompts[item] for item in open_],
            [begins[item] for item in open_],
            [self.keys[item] for item in open_],
            lr=self.config.lr,
            sampling=self.sampling,
        )
        for _ in range(self.config.updates):
            latents.update([row[item] for item in open_], [found[item].rewards[-1] for item in open_])
            begins = {item: self._ended(latents.tokens[row[item]]) for item in open_}
            new = [item for item in open_ if begins[item] not in seen[item]]
            tried = self._rewarded(self._attempts(new, [begins[item] for item in new]))
            for item, each in zip(new, tried, strict=True):
                seen[item][begins[item]] = each
            for item in open_:
                self._taken(found[item], *seen[item][begins[item]], begins[item], new=item in new)
            open_ = [item for item in open_ if self._is_open(seen[item][begins[item]][1])]
            if not open_:
                break
        return [*found.values()]

    def _is_open(self, reward: Reward) -> bool:
        """Whether an answer with this reward is to be updated."""
        return reward.value <= self.config.stop_above

    @staticmethod
    def _taken(sought: Sought, attempt: Attempt, reward: Reward, begin: Sequence[int], *, new: bool) -> Sought:
        """Take an attempt that begins with given tokens as the last one; what was tried before costs nothing."""
        sought.tokens, sought.truncated = attempt.tokens, attempt.truncated
        sought.rewards.append(reward.value)
        sought.passes += (_given(attempt, begin) + reward.passes) * new
        sought.unread += reward.unread * new
        return sought

    def _ended(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Tokens up to their first end token."""
        ends = [at for at, token in enumerate(tokens) if token in self.base.eos_ids]
        return tuple(tokens[: ends[0] + 1] if ends else tokens)

    def _attempts(self, items: Sequence[int], begins: Sequence[Sequence[int]]) -> list[Attempt]:
        """Write the answers that begin with given tokens."""
        return [attempt for _, attempt in sorted(self._write(items, begins), key=lambda each: each[0])]

    def _rewarded(self, attempts: Sequence[Attempt]) -> list[tuple[Attempt, Reward]]:
        """Attempts with their rewards, which are rounded so that they do not depend on the batch."""
        rewards = [replace(each, value=round(each.value, DIGITS)) for each in self.rewards(attempts)]
        return list(zip(attempts, rewards, strict=True))

    def _write(self, items: Sequence[int], begins: Sequence[Sequence[int]]) -> Iterator[tuple[int, Attempt]]:
        if not items:
            return
        base, device = self.base, self.base.device
        vocab = n_logits(base) if self.sampling.greedy else len(base.tokenizer)
        keys = torch.tensor([self.keys[item] for item in items], device=device)
        lengths = torch.tensor([len(each) for each in begins], device=device)
        given = torch.zeros(len(items), max(1, *map(len, begins)), dtype=torch.long)
        for at, each in enumerate(begins):
            given[at, : len(each)] = torch.tensor(each, dtype=torch.long)
        given = given.to(device)

        def choose(now: Now) -> tuple[Tensor, Tensor]:
            logits = now.steps[0].logits[:, :vocab]
            drawn = draw(logits, keys[now.items], now.counts, self.sampling)
            at = now.counts.clamp(max=given.shape[1] - 1)
            tokens = torch.where(now.counts < lengths[now.items], given[now.items, at], drawn)
            return tokens, logits.log_softmax(-1).gather(-1, tokens.clamp(min=0)[:, None])[:, 0]

        lane = Lane(base, [self.prompts[item] for item in items])
        for at, (tokens, chances), truncated in stream(
            [lane], choose, ends=set(base.eos_ids), max_new_tokens=self.max_new_tokens, slots=self.slots
        ):
            mean = math.fsum(chances) / max(1, len(chances))
            yield at, Attempt(self.answers[items[at]][0], tokens, base.decode(tokens), truncated, mean)


def _given(attempt: Attempt, begin: Sequence[int]) -> int:
    """The number of tokens that the model gave after the given ones, the end token included."""
    return len(attempt.tokens) + (not attempt.truncated) - len(begin)
