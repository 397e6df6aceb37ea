"""Rewards of LatentSeek, from −1 to 0: what the base model says of an answer, how sure it is of it, or its grade."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from probe.errors import ProbeError
from probe.models import GREEDY, Model, ThinkTags
from probe.problems import Problem, ProblemSet
from probe.traces import stream_draws


@dataclass(frozen=True)
class Attempt:
    """An answer that may be kept.

    Attributes:
        problem: the problem that it answers.
        tokens: the emitted token ids, without the end token.
        text: the tokens as text.
        truncated: whether the limit on tokens stopped it.
        log_probability: the mean log probability of its tokens in nats; 0 if it has none.
    """

    problem: Problem
    tokens: list[int]
    text: str
    truncated: bool
    log_probability: float


@dataclass(frozen=True)
class Reward:
    """The reward of an attempt.

    Attributes:
        value: from −1 to 0.
        passes: the passes of the model that gave the tokens of replies, end tokens included.
        unread: the number of verifications that gave no verdict.
    """

    value: float
    passes: int = 0
    unread: int = 0


class Rewards(ABC):
    """Rewards attempts."""

    @property
    @abstractmethod
    def key(self) -> Mapping[str, Any]:
        """What rewards depend on beside the model, in values that JSON can store."""

    @abstractmethod
    def __call__(self, attempts: Sequence[Attempt]) -> list[Reward]:
        """Give the reward of each attempt; it does not depend on the others."""


@dataclass(frozen=True)
class GradeReward(Rewards):
    """0 for a right answer and −1 for a wrong one. It knows the right answers, so it gives an upper bound.

    An answer that cannot be graded has the reward 0: it is kept.

    Attributes:
        model: the model that answers.
        problems: supplies the grader.
        think_close: the tag that closes the thinking, or both tags; None for those of the model.
    """

    model: Model
    problems: ProblemSet
    think_close: str | ThinkTags | None = None

    @property
    def key(self) -> Mapping[str, Any]:
        """The problems with their answers, their grader, and the tags around thinking."""
        return {"reward": "grade", "graded": self.problems.hash, "tags": asdict(self._tags)}

    @property
    def _tags(self) -> ThinkTags:
        return ThinkTags.of(self.model.think_tags if self.think_close is None else self.think_close)

    def __call__(self, attempts: Sequence[Attempt]) -> list[Reward]:
        """Grade each attempt."""
        tags = self._tags
        return [
            Reward(0.0 if grade.correct or grade.failed else -1.0)
            for each in attempts
            for prompt in [self.model.prompt_text(each.problem.question)]
            for grade in [self.problems.grade(each.text, each.problem, think_close=tags, prompt=prompt)]
        ]


@dataclass(frozen=True)
class ConfidenceReward(Rewards):
    """The geometric mean of the probabilities that the base model gives the tokens of an answer, minus 1.

    An answer without a token has the reward −1.
    """

    @property
    def key(self) -> Mapping[str, Any]:
        """The kind alone."""
        return {"reward": "confidence"}

    def __call__(self, attempts: Sequence[Attempt]) -> list[Reward]:
        """Read the probabilities that were recorded while the attempts were decoded."""
        return [Reward(math.expm1(each.log_probability) if each.tokens else -1.0) for each in attempts]


MARK = "FINAL VERIFICATION ANSWER IS:"
"""What stands before the verdict of a verification."""
_OPENING = (
    "You verify solutions of mathematical problems. Read the question and the proposed solution, and follow the "
    "instructions."
)
_ENDING = f"End your reply with '{MARK} True' if it passes, or with '{MARK} False' if it does not."
CHECKS = {
    "calculation": (
        2,
        "Find every calculation in the solution, compute it again on your own, and compare the results. Numbers that "
        "are not part of a calculation need no check. The solution passes if all calculations are right.",
    ),
    "answer": (
        1,
        "Decide whether the final answer is correct. Do not judge the steps that lead to it. The solution passes if "
        "its final answer is correct.",
    ),
    "completeness": (
        2,
        "Decide whether the solution ends with one explicit final answer. A formula that is not worked out, a refusal, "
        "or a text that stops early is no final answer. The solution passes if it has a final answer.",
    ),
    "understanding": (
        1,
        "Decide whether the solution understands the question: it uses everything that is given, misreads nothing, and "
        "answers what is asked. The solution passes if it does.",
    ),
}
"""The verifications: the published weight of each, and its instruction."""


@dataclass(frozen=True)
class VerifierReward(Rewards):
    """The base model is asked to verify an answer in four ways; each that does not approve costs its weight.

    The verifications and their weights are published (Li et al., 2505.13308); the wording is probe's own. A reply
    without a verdict does not approve.

    Attributes:
        model: the model that answers and verifies.
        tokens: the maximum number of tokens of a reply.
        slots: the largest number of replies that are decoded at the same time.
    """

    model: Model
    tokens: int = 4096
    slots: int = 64

    @property
    def key(self) -> Mapping[str, Any]:
        """The instructions and the limit on tokens."""
        told = {name: [weight, text] for name, (weight, text) in CHECKS.items()}
        return {"reward": "verifiers", "checks": told, "form": [_OPENING, _ENDING], "tokens": self.tokens}

    def prompt(self, check: str, question: str, solution: str) -> list[int]:
        """The token ids of the prompt of one verification, in the prompt format of the model.

        Args:
            check: a key of ``CHECKS``.
            question: the problem.
            solution: the answer that is verified.
        """
        text = (
            f"{_OPENING}\n\nQUESTION:\n{question}\n\nPROPOSED SOLUTION:\n{solution}\n\n"
            f"INSTRUCTIONS:\n{CHECKS[check][1]} {_ENDING}"
        )
        return self.model.encode_prompt(self.model.prompt_text(text))

    def check(self, problems: Sequence[Problem], max_new_tokens: int) -> None:
        """Refuse a model that cannot read the verifications.

        Args:
            problems: the problems that will be answered.
            max_new_tokens: maximum number of tokens of an answer.

        Raises:
            ProbeError: if the tokenizer lacks their words, or they need more positions than the model has.
        """
        longest = max((problem.question for problem in problems), key=len, default="")
        prompts = [self.prompt(check, longest, "") for check in CHECKS]
        unknown = self.model.tokenizer.unk_token_id
        if unknown is not None and any(unknown in ids for ids in prompts):
            raise ProbeError(
                f"latent-seek: the tokenizer of {self.model.name} lacks words of the verifications; set "
                "latent_seek.reward to confidence, or leave out the arm"
            )
        self.model.check_ids(prompts, max_new_tokens=max_new_tokens + self.tokens)

    def __call__(self, attempts: Sequence[Attempt]) -> list[Reward]:
        """Ask for all verifications of all attempts together, and read the verdicts."""
        prompts = [self.prompt(check, each.problem.question, each.text) for each in attempts for check in CHECKS]
        replies = [_Reply([], False)] * len(prompts)
        for at, tokens, truncated in stream_draws(
            self.model,
            prompts,
            [0] * len(prompts),
            self.tokens,
            slots=self.slots,
            sampling=GREEDY,
            called=lambda item: f"verification {item}",
        ):
            replies[at] = _Reply(tokens, truncated)
        some = range(0, len(prompts), len(CHECKS))
        return [self._reward(replies[start : start + len(CHECKS)]) for start in some]

    def _reward(self, replies: Sequence["_Reply"]) -> Reward:
        verdicts = [verdict(self.model.decode(each.tokens)) for each in replies]
        weights = [weight for weight, _ in CHECKS.values()]
        lost = sum(weight for weight, each in zip(weights, verdicts, strict=True) if not each)
        passes = sum(len(each.tokens) + (not each.truncated) for each in replies)
        return Reward(-lost / sum(weights), passes, verdicts.count(None))


class _Reply(NamedTuple):
    tokens: list[int]
    truncated: bool


def verdict(reply: str) -> bool | None:
    """Read the verdict of a reply: the word after the last mark, or its first word if there is no mark.

    Returns:
        Whether the reply approves; None if it has no verdict.

    >>> verdict("... FINAL VERIFICATION ANSWER IS: **False**, which is true of most"), verdict("I do not know.")
    (False, None)
    """
    word = r"\W*(true|false)\b"
    found = re.findall(MARK + word, reply, flags=re.IGNORECASE) or re.findall("^" + word, reply, flags=re.IGNORECASE)
    return found[-1].lower() == "true" if found else None
