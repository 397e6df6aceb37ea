"""Hybrid decoding: the base model and, if the arm asks it, the thinking model read the same emitted text.

Each step is one cached pass of each model over the unfinished rows. Where the gate is open, the layers above the
steering layer then run again. The next problem takes the place of a finished row.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks import Lane, Now, n_logits, stream
from probe.hybrid.fit import check_fit
from probe.hybrid.moment import Arm, Moment, Needs
from probe.hybrid.past import HistoryState
from probe.hybrid.sentence_state import SentenceState, sentence_enders
from probe.models import BOTH_GREEDY, Model, Pair, PairSampling
from probe.problems import Problem
from probe.traces import sample_key


@dataclass(repr=False)
class HybridTrace:
    """What an arm emitted on one problem, and why. Every list has one entry for each emitted token.

    Attributes:
        problem_id: the problem.
        tokens: the emitted token ids.
        steered: whether the gate was open.
        behaviour, strength: what was added; −1 and 0 where the gate was closed.
        choice: the index of the chosen candidate; 0 where there was only one.
        base_token, thinking_token: the most likely token of each unsteered model; −1 if the thinking model was not run.
        surprisal: −log2 of the probability that the unsteered base model gave the emitted token, in bits.
        truncated: whether the limit of tokens stopped the answer.
        sample: the number of the answer among those to its problem.
    """

    problem_id: str
    tokens: list[int] = field(default_factory=list)
    steered: list[bool] = field(default_factory=list)
    behaviour: list[int] = field(default_factory=list)
    strength: list[float] = field(default_factory=list)
    choice: list[int] = field(default_factory=list)
    base_token: list[int] = field(default_factory=list)
    thinking_token: list[int] = field(default_factory=list)
    surprisal: list[float] = field(default_factory=list)
    truncated: bool = True
    sample: int = 0

    def __repr__(self) -> str:
        cut = ", truncated" if self.truncated else ""
        return f"HybridTrace({self.problem_id!r}, {len(self.tokens)} tokens, {sum(self.steered)} steered{cut})"


#: What is recorded for each token, in the order of the columns that are chosen.
_RECORD = ("tokens", "steered", "behaviour", "strength", "choice", "base_token", "thinking_token", "surprisal")


def random_numbers(problem_id: str, seed: int, max_new_tokens: int, sample: int = 0) -> Float[Tensor, "tokens 3"]:
    """Make the uniform random numbers of the controls for one answer, which do not depend on the batch."""
    name = f"{seed}/{problem_id}" if sample == 0 else f"{seed}/{problem_id}/{sample}"
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(max_new_tokens, 3, generator=generator)


def decode_hybrid(
    models: Pair | Model,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    sampling: PairSampling = BOTH_GREEDY,
    seed: int = 0,
    batch_size: int = 64,
) -> list[HybridTrace]:
    """Decode problems under one arm.

    Where the base model is sampled, the gate still compares the most likely tokens of the unsteered models; the token
    of a steered row is drawn from the steered distribution, and every other token from the unsteered one.

    Args:
        models: the pair, or only the base model for an arm that never asks the thinking model. Each model reads a
            problem in its own prompt, followed by the same emitted tokens.
        arm: the arm, from :func:`~probe.hybrid.hybrid_arm` or made of your own parts.
        max_new_tokens: limit of emitted tokens, including the end token.
        sampling: how the models are sampled, and how many answers each problem gets.
        seed: seeds the sampling and the random controls. Results do not depend on the batch.
        batch_size: the number of answers that are decoded at the same time.

    Returns:
        The traces in the order of the problems, all answers to a problem together; one for each problem if the arm is
        greedy. An answer ends at an end token of either model.

    Raises:
        ProbeError: if the arm asks the thinking model and only the base model is given, a part does not fit its model,
            or logits are not finite.
    """
    answers = [(problem, number) for problem in problems for number in range(arm.samples(sampling))]
    found = dict(
        stream_hybrid(
            models, arm, answers, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, batch_size=batch_size
        )
    )
    return [found[item] for item in range(len(answers))]


def stream_hybrid(
    models: Pair | Model,
    arm: Arm,
    answers: Sequence[tuple[Problem, int]],
    *,
    max_new_tokens: int,
    sampling: PairSampling = BOTH_GREEDY,
    seed: int = 0,
    batch_size: int = 64,
    late: bool | None = None,
    watch: Callable[[dict[str, list[float]]], None] | None = None,
) -> Iterator[tuple[int, HybridTrace]]:
    """Decode answers like :func:`decode_hybrid`, and yield each trace as soon as it is finished.

    Args:
        models, arm, max_new_tokens, sampling, seed, batch_size: see :func:`decode_hybrid`.
        answers: the problem of each answer, and the number of the answer among those to its problem.
        late: see :func:`~probe.hooks.stream`.
        watch: called at every step with the record of each row: a list for each list attribute of
            :class:`HybridTrace`.

    Yields:
        The index of an answer, and its trace.

    Raises:
        ProbeError: if the arm asks the thinking model and only the base model is given, a part does not fit its model,
            or logits are not finite.
    """
    base, thinking = (models, None) if isinstance(models, Model) else (models.base, models.thinking)
    if not arm.asks:
        thinking = None
    elif thinking is None:
        raise ProbeError(f"the arm '{arm.name}' asks the thinking model ({', '.join(arm.asks)}); pass the pair")
    check_fit(arm, base, thinking)
    needs = [part.needs for part in arm.parts.values()]
    read = frozenset().union(*(need.base for need in needs))
    lanes = [
        Lane(
            base,
            [base.prompt_ids(problem.question) for problem, _ in answers],
            sorted(read),
            arm.emit.steers,
            any(need.window for need in needs),
        )
    ]
    ends = set(base.eos_ids)
    if thinking is not None:
        layers = sorted(frozenset().union(*(need.thinking for need in needs)))
        lanes.append(Lane(thinking, [thinking.prompt_ids(problem.question) for problem, _ in answers], layers))
        ends |= set(thinking.eos_ids)
    choose = _Chooser(
        arm,
        lanes,
        answers,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        needs=needs,
    )

    def watched(now: Now) -> tuple[Tensor, ...]:
        columns = choose(now)
        if watch is not None:
            watch({name: column.tolist() for name, column in zip(_RECORD, columns, strict=True)})
        return columns

    for item, columns, truncated in stream(
        lanes, watched, ends=ends, max_new_tokens=max_new_tokens, slots=batch_size, late=late
    ):
        record = dict(zip(_RECORD, columns, strict=True))
        problem, number = answers[item]
        yield item, HybridTrace(problem.id, **record, truncated=truncated, sample=number)


class _Chooser:
    """Asks the parts of an arm what each row emits next."""

    def __init__(
        self,
        arm: Arm,
        lanes: Sequence[Lane],
        answers: Sequence[tuple[Problem, int]],
        *,
        max_new_tokens: int,
        sampling: PairSampling,
        seed: int,
        needs: Sequence[Needs],
    ) -> None:
        self.arm, self.sampling = arm, sampling
        self.pooled = any(need.pooled for need in needs)
        base = lanes[0].model
        self.device = base.device
        # What all models can read. Rows of an embedding beyond the tokenizer's tokens must not be sampled.
        self.vocab = min(n_logits(lane.model) for lane in lanes)
        if not (sampling.base.greedy and sampling.thinking.greedy):
            self.vocab = min(self.vocab, len(base.tokenizer))
        self.answers, self.seed, self.max_new_tokens = answers, seed, max_new_tokens
        keys = [sample_key(seed, problem.id, number) for problem, number in answers]
        self.keys = torch.tensor(keys, dtype=torch.long, device=self.device)
        self.random: dict[int, Tensor] = {}
        self.table = torch.zeros(0, max_new_tokens, 3, device=self.device)
        vocab = int(base.hf.config.get_text_config().vocab_size)
        self.sentences = SentenceState(sentence_enders(base.tokenizer, vocab).to(self.device), len(answers))
        self.history = None
        if any(need.history for need in needs):
            tags = frozenset().union(*(need.closings for need in needs))
            self.history = HistoryState(len(answers), tags, self.device)

    def __call__(self, now: Now) -> tuple[Tensor, ...]:
        moment = self._moment(now)
        base_token = moment.base_token
        tokens = moment.draw(moment.base.logits)
        gate = self.arm.where(moment)
        behaviour = torch.full_like(tokens, -1)
        strength = torch.zeros(len(tokens), device=self.device)
        choice = torch.zeros_like(tokens)
        open_rows = [at for at, is_open in enumerate(now.fetch(gate)) if is_open]
        if open_rows:
            rows = torch.tensor(open_rows, device=self.device)
            there = moment.select(rows)
            behaviour[rows] = self.arm.which(there)
            strength[rows] = self.arm.how_strongly(there, behaviour[rows]).float()
            emitted = self.arm.emit(there, behaviour[rows], strength[rows])
            tokens[rows] = emitted.tokens
            if emitted.choice is not None:
                choice[rows] = emitted.choice
        if self.history is not None:
            self.history.steer(now.items, now.counts, gate)
        thinking_token = torch.full_like(tokens, -1) if moment.thinking is None else moment.thinking_token
        logits = moment.base.logits
        surprisal = (logits.logsumexp(-1) - logits.gather(-1, tokens.clamp(min=0)[:, None])[:, 0]) / math.log(2)
        return tokens, gate, behaviour, strength, choice, base_token, thinking_token, surprisal

    def _moment(self, now: Now) -> Moment:
        base, *others = (step.on(self.device, self.vocab) for step in now.steps)
        thinking = others[0] if others else None
        pooled = thinking.resid if thinking is not None and self.pooled else {}
        in_sentence, sentence = self.sentences.advance(now.items, now.last, pooled)
        return Moment(
            base=base,
            thinking=thinking,
            counts=now.counts,
            in_sentence=in_sentence,
            sentence=sentence,
            random=self._random(now),
            keys=self.keys[now.items],
            sampling=self.sampling,
            runner=now.runners[0],
            rows=torch.arange(len(now.items), device=self.device),
            history=None if self.history is None else self.history.advance(now.items, now.counts, now.last),
        )

    def _random(self, now: Now) -> Float[Tensor, "rows 3"]:
        """The random numbers of this step; those of a problem are held while it is decoded."""
        if list(self.random) != list(now.numbers):
            held = self.random
            self.random = {
                item: held[item] if item in held else self._numbers(item).to(self.device) for item in now.numbers
            }
            self.table = torch.stack([*self.random.values()])
        return self.table[torch.arange(len(now.counts), device=self.device), now.counts]

    def _numbers(self, item: int) -> Float[Tensor, "tokens 3"]:
        problem, sample = self.answers[item]
        return random_numbers(problem.id, self.seed, self.max_new_tokens, sample)
