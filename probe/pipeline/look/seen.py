"""What a look saw: the answers of both models to a few problems."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from probe.hybrid import summarise
from probe.models import Model, Sampling
from probe.problems import Grade, Problem, ProblemSet
from probe.statistics import Interval, share_difference
from probe.traces import Trace, Traces, looping

_GENERIC = r"(?:question|problem|exercise|user|human|q)[ \t]*\d*[ \t]*[:.)]"
"""How a further question begins that a base model poses itself."""


@dataclass(frozen=True)
class Side:
    """The answers of one model, one to each problem."""

    role: str
    """``base`` or ``thinking``."""
    model: Model
    traces: Traces
    problems: Sequence[Problem]
    problem_set: ProblemSet
    sampling: Sampling
    max_new_tokens: int

    @property
    def name(self) -> str:
        """How sentences call the model."""
        return f"the {self.role} model"

    def count(self, true_of: Callable[[Trace], bool]) -> int:
        """The number of answers of which something is true."""
        return sum(map(true_of, self.traces))

    def half(self, n: int) -> bool:
        """Whether a number of answers is at least half of them."""
        return 2 * n >= len(self.traces)

    @cached_property
    def ended(self) -> list[Trace]:
        """The answers that the model ended itself."""
        return [trace for trace in self.traces if not trace.truncated]

    @cached_property
    def correct(self) -> list[bool | None]:
        """Whether each answer is right; None where that could not be decided."""
        return [None if trace.failed else trace.correct for trace in self.traces]

    @property
    def none_right(self) -> bool:
        """Whether no answer is right, of those that could be graded."""
        return not any(self.correct)

    @cached_property
    def loops(self) -> list[bool]:
        """Whether each answer ends in a loop."""
        return [looping(trace.tokens) for trace in self.traces]

    def unclosed(self, trace: Trace) -> bool:
        """Whether the thinking of an answer was opened, and not closed before the model ended."""
        return not trace.truncated and trace.think_tags.answer_in(trace.text, trace.prompt) is None

    @cached_property
    def continued(self) -> list[int | None]:
        """For each answer, the index at which it continues with another question; None if it does not."""
        before = self.model.config.prompt.partition("{question}")[0] if self.model.config.prompt != "chat" else ""
        own = before.rpartition("\n")[2].strip()
        begins = "|".join([*([re.escape(own)] if len(own) > 1 else []), _GENERIC])
        further = re.compile(rf"\n\s*(?:{begins})", re.IGNORECASE)
        found = []
        for trace, problem in zip(self.traces, self.problems, strict=True):
            match = further.search(trace.text, trace.think_end or 0)
            # A question that is repeated before anything is answered is no further one.
            answered = match is not None and self.graded(trace, problem, match.start()).answer is not None
            found.append(match.start() if match is not None and answered else None)
        return found

    def graded(self, trace: Trace, problem: Problem, end: int | None) -> Grade:
        """Grade an answer that is read up to a character."""
        return self.problem_set.grade(trace.text[:end], problem, think_close=trace.think_tags, prompt=trace.prompt)

    def right_before(self) -> int:
        """The number of answers that are right if they are read up to the further question."""
        read = zip(self.traces, self.problems, self.continued, strict=True)
        return sum(self.graded(trace, problem, end).correct for trace, problem, end in read)

    def to_dict(self) -> dict[str, Any]:
        """The figures of the model, for ``look.json``."""
        entry = summarise(
            self.correct,
            emitted=[trace.tokens for trace in self.traces],
            texts=[trace.text for trace in self.traces],
            truncated=[trace.truncated for trace in self.traces],
            steered_fraction=0.0,
            seconds=self.traces.seconds,
        )
        no_answer = self.count(lambda trace: trace.answer is None) / len(self.traces)
        return {"name": self.model.name, **entry, "no_answer": no_answer}


@dataclass(frozen=True)
class Seen:
    """The answers of both models to the same problems."""

    base: Side
    thinking: Side
    same_weights: bool
    """Whether both models are the same weights, which are asked in two ways."""

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both models."""
        return self.base, self.thinking

    @cached_property
    def difference(self) -> Interval:
        """The accuracy of the thinking model minus that of the base model, over problems graded for both."""
        both = zip(self.thinking.correct, self.base.correct, strict=True)
        return share_difference([(a, b) for a, b in both if a is not None and b is not None])

    def examples(self, n: int) -> list[dict[str, Any]]:
        """The first problems, each with its known answer, and the answer and the end of the text of both models."""
        return [
            {
                "problem_id": problem.id,
                "question": problem.question,
                "answer": problem.answer,
                **{
                    side.role: {
                        "answer": side.traces[i].answer,
                        "correct": side.correct[i],
                        "end": side.traces[i].text[-_END:],
                    }
                    for side in self.sides
                },
            }
            for i, problem in enumerate(self.base.problems[:n])
        ]


_END = 300
"""Characters of the end of a text that are kept."""
