"""Problems with checkable answers, in splits that do not overlap."""

import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from probe.config import nearest
from probe.errors import ProbeError
from probe.files import object_hash
from probe.models import ThinkTags
from probe.problems.answers import readings
from probe.problems.grading import ByProblem, Grade, find_grader, refuse_unreadable

SPLITS = {"train": 0.5, "validation": 0.2, "test": 0.3}
"""The splits, and the share of problems in each where the source has no splits."""


def split_of(question: str) -> str:
    """Assign a question to a split by a stable hash of its words, whatever its position in the source.

    A question is therefore never in two splits, and adding problems to a file moves no other problem.

    >>> split_of("What is 1 + 1?") == split_of("What is  1 + 1? ")
    True
    """
    digest = hashlib.sha256(" ".join(question.split()).encode("utf-8")).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SPLITS.items():
        if point < share:
            return split
        point -= share
    return "test"


@dataclass(frozen=True)
class Problem:
    """A question, with its answer if it is known."""

    id: str
    """The name of the problem, unique in its set."""
    question: str
    """The text of the question, without a prompt around it."""
    answer: str | None = None
    """The known answer. If it is None, answers of models are not graded."""


Verifier = Callable[[str, Problem], bool | None]
"""Grades an answer that was found in a text: True if it is right, False if it is wrong, None if it cannot decide. It is
called only if the problem has a known answer."""


@dataclass(frozen=True, repr=False)
class ProblemSet:
    """Problems in train, validation and test splits, and how answers are graded.

    :func:`load_problems` makes one; to make one of your own, give each split as a tuple of :class:`Problem`.

    Raises:
        ProbeError: for an unknown split or grader, an id used twice, a question in two splits, or a known answer that
            the grader cannot read.
    """

    name: str
    """The name of the set in tables and reports."""
    grader: str
    """``exact``, ``numeric`` or ``math-verify``; with a ``verifier``, any name for it."""
    splits: Mapping[str, Sequence[Problem]]
    """The problems of each split: a tuple, which is checked, or a sequence that generates its problems on demand."""
    sentence_type: Callable[[str], str | None] | None = None
    """Returns the true type of a sentence of a trace; None for problems without a grammar."""
    sentence_types: tuple[str, ...] = ()
    """Every type that ``sentence_type`` returns."""
    reword: Callable[[str], str | None] | None = None
    """Returns another wording of a sentence of a trace, or None; None for problems without a grammar."""
    verifier: Verifier | None = None
    """Grades answers in place of the named grader."""
    counter: str = "habits"
    """The scheme of :func:`probe.count_behaviours` that fits answers to these problems."""
    note: str = ""
    """How the set was made, for example how it was split."""

    def __post_init__(self) -> None:
        if self.verifier is None:
            find_grader(self.grader)
        ids: set[str] = set()
        home: dict[str, str] = {}
        for split, problems in self.splits.items():
            if split not in SPLITS:
                raise ProbeError(f"unknown split {split!r} in {self.name}; {nearest(split, SPLITS)}")
            if self.verifier is None:
                some = problems if isinstance(problems, tuple) else problems[:20]
                known = [(repr(each.id), each.answer) for each in some if each.answer is not None]
                refuse_unreadable(self.name, self.grader, known)
            for problem in problems if isinstance(problems, tuple) else ():
                if problem.id in ids:
                    raise ProbeError(f"two problems of {self.name} have the id {problem.id!r}; ids must differ")
                ids.add(problem.id)
                other = home.setdefault(" ".join(problem.question.split()), split)
                if other != split:
                    raise ProbeError(
                        f"the question of {problem.id} is in the {split} and the {other} split of {self.name}; "
                        "splits must not overlap"
                    )

    def take(self, split: str, n: int | None = None, *, fewer: bool = False) -> tuple[Problem, ...]:
        """Return the first ``n`` problems of a split; all of them if ``n`` is None.

        Args:
            split: ``train``, ``validation`` or ``test``.
            n: the number of problems; at least 1.
            fewer: whether a split with fewer than ``n`` problems returns all of them instead of raising an error.

        Raises:
            ProbeError: if the split does not exist, is empty or, unless ``fewer``, has fewer than ``n`` problems.
        """
        if split not in SPLITS:
            raise ProbeError(f"{self.name} has no split {split!r}; {nearest(split, SPLITS)}")
        problems = self.splits.get(split, ())
        if n is not None and n < 1:
            raise ProbeError(f"{n} problems requested; at least 1 is needed")
        found = tuple(problems[:n])
        if len(found) < (1 if fewer else n or 1):
            # A task of reasoning-gym may have fewer questions than requested.
            there = self.counts if len(found) == len(problems) else f"only {len(found)} different ones"
            raise ProbeError(f"{n or 1} {split} problems requested, but {self.name} has {there}")
        return found

    def grade(
        self, text: str, problem: Problem, *, think_close: str | ThinkTags = "</think>", prompt: str = ""
    ) -> Grade:
        """Find the answer in a model's text and grade it.

        Args:
            think_close: the text that ends the thinking, or both tags; the answer comes after it.
            prompt: what stood before the text. If it opens the thinking and the text does not close it, nothing was
                answered.

        Returns:
            The grade. A text without an answer is wrong. If the grader cannot decide, or the problem has no known
            answer, the grade is ``failed``.
        """
        found = readings(text, think_close, like=problem.answer, prompt=prompt)
        if problem.answer is None:
            return Grade(found[0] if found else None, correct=False, failed=True)
        if not found:
            return Grade(None, correct=False)
        failed = True
        for answer in found:
            verdict = self.verdict(answer, problem)
            if verdict:
                return Grade(answer, correct=True)
            failed = failed and verdict is None
        return Grade(found[0], correct=False, failed=failed)

    def verdict(self, answer: str, problem: Problem) -> bool | None:
        """Whether an answer that was found in a text is right; None if the grader cannot decide, or the problem has no
        known answer."""
        if problem.answer is None:
            return None
        if self.verifier is not None:
            return self.verifier(answer, problem)
        return find_grader(self.grader)(answer, problem.answer)

    def same_answer(self, one: str, other: str, problem: Problem) -> bool:
        """Whether two answers to a problem say the same, by its grader; neither needs to be right.

        A verifier that is no grader cannot compare two answers; then white space alone makes no difference.
        """
        if one.split() == other.split():
            return True
        if self.verifier is not None and not isinstance(self.verifier, ByProblem):
            return False
        return bool(self.verdict(one, replace(problem, answer=other)))

    @cached_property
    def hash(self) -> str:
        """A hash of 64 hex digits that changes with any problem, split or grader.

        For problems generated on demand, it covers the first 20 problems and the number of problems of each split.
        """
        splits = {}
        for name, problems in self.splits.items():
            shown = problems if isinstance(problems, tuple) else problems[:20]
            splits[name] = [len(problems), [(each.id, each.question, each.answer) for each in shown]]
        return object_hash({"grader": self.grader, "splits": splits})

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    @property
    def counts(self) -> str:
        """The number of problems of each split, in words."""
        return ", ".join(f"{len(self.splits.get(name, ()))} {name}" for name in SPLITS)

    def __repr__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"ProblemSet({self.name!r}: {self.counts}; graded by {self.grader}{note})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(each.question)}</td>"
            f"<td>{html.escape(each.answer or 'not known')}</td></tr>"
            for name in SPLITS
            for each in self.splits.get(name, ())[:2]
        )
        head = "<tr><th>split</th><th>question</th><th>answer</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{rows}</table>"
