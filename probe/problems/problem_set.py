"""Problems with checkable answers, in splits that do not overlap."""

import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from probe.config import nearest
from probe.errors import ProbeError
from probe.files import object_hash
from probe.problems.grading import Grade, extract_answer, find_grader, read_number

#: The splits and the share of problems that each gets where the source does not say.
SPLITS = {"train": 0.5, "validation": 0.2, "test": 0.3}


def split_of(question: str) -> str:
    """The split of a question where the source does not say: a stable hash of its words decides, never its place.

    So a question cannot be in two splits, and adding problems to a file moves none of those that were there.

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
    """A question with a checkable answer."""

    id: str
    question: str
    answer: str


#: Judges an answer found in a text: right, wrong or, with None, no judgement.
Judge = Callable[[str, Problem], bool | None]


@dataclass(frozen=True, repr=False)
class ProblemSet:
    """Problems in train, validation and test splits, and how answers are graded.

    Raises:
        ProbeError: unknown split or grader, an id used twice, a question in two splits, or a known answer that the
            numeric grader cannot read.
    """

    name: str
    grader: str
    """``exact``, ``numeric`` or ``math-verify``; or, for sets that bring their own ``judge``, any name for it."""
    splits: Mapping[str, Sequence[Problem]]
    """Tuples, which are checked; or another sequence, which draws its problems when they are asked for."""
    sentence_type: Callable[[str], str | None] | None = None
    """The true type of a sentence of a trace, where the problems come with a grammar that tells; else None."""
    sentence_types: tuple[str, ...] = ()
    """Every type that ``sentence_type`` gives."""
    reword: Callable[[str], str | None] | None = None
    """Another wording of a sentence of a trace, where the grammar has one; else None."""
    judge: Judge | None = None
    """Grades instead of the named grader."""
    counter: str = "habits"
    """The scheme of :func:`probe.count_behaviours` that fits answers to these problems."""
    note: str = ""
    """What a reader should know about how the set came about, such as how it was split."""

    def __post_init__(self) -> None:
        if self.judge is None:
            find_grader(self.grader)
        ids: set[str] = set()
        home: dict[str, str] = {}
        for split, problems in self.splits.items():
            if split not in SPLITS:
                raise ProbeError(f"unknown split {split!r} in {self.name}; {nearest(split, SPLITS)}")
            for problem in problems if isinstance(problems, tuple) else ():
                if problem.id in ids:
                    raise ProbeError(f"two problems of {self.name} have the id {problem.id!r}; ids must differ")
                ids.add(problem.id)
                other = home.setdefault(problem.question, split)
                if other != split:
                    raise ProbeError(
                        f"the question of {problem.id}, in the {split} split of {self.name}, is in its {other} split "
                        "too; splits must not overlap"
                    )
                if self.judge is None and self.grader == "numeric" and read_number(problem.answer) is None:
                    raise ProbeError(
                        f"the answer of {problem.id}, {problem.answer!r}, is not one number; "
                        "use the grader 'exact' or 'math-verify'"
                    )

    def take(self, split: str, n: int | None = None) -> tuple[Problem, ...]:
        """The first ``n`` problems of a split; all of them if ``n`` is None.

        Raises:
            ProbeError: if the split does not exist, is empty or has fewer than ``n``; with the counts.
        """
        if split not in SPLITS:
            raise ProbeError(f"{self.name} has no split {split!r}; {nearest(split, SPLITS)}")
        problems = self.splits.get(split, ())
        if n is not None and n < 1:
            raise ProbeError(f"{n} problems asked for; at least 1 is needed")
        if len(problems) < (n or 1):
            raise ProbeError(f"{n or 1} {split} problems asked for, but {self.name} has {self._counts()}")
        return tuple(problems[:n])

    def grade(self, text: str, problem: Problem, *, think_close: str = "</think>") -> Grade:
        """Find the answer in a model's text and grade it; a text without an answer is wrong.

        Nothing is raised, whatever the text: where the grader breaks down, the grade is ``failed``.
        """
        answer = extract_answer(text, think_close)
        if answer is None:
            return Grade(None, correct=False)
        try:
            verdict = self.judge(answer, problem) if self.judge else find_grader(self.grader)(answer, problem.answer)
        except Exception:  # a verifier of another library may choke on anything a model can write
            verdict = None
        return Grade(answer, correct=bool(verdict), failed=verdict is None)

    @cached_property
    def hash(self) -> str:
        """64 hex digits that change with any problem, split or grader.

        Of problems that are drawn when asked for, the first of each split and their number stand for all.
        """
        splits = {}
        for name, problems in self.splits.items():
            shown = problems if isinstance(problems, tuple) else problems[:20]
            splits[name] = [len(problems), [(each.id, each.question, each.answer) for each in shown]]
        return object_hash({"grader": self.grader, "splits": splits})

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def _counts(self) -> str:
        return ", ".join(f"{len(self.splits.get(name, ()))} {name}" for name in SPLITS)

    def __repr__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"ProblemSet({self.name!r}: {self._counts()}; graded by {self.grader}{note})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(each.question)}</td><td>{html.escape(each.answer)}</td></tr>"
            for name in SPLITS
            for each in self.splits.get(name, ())[:2]
        )
        head = "<tr><th>split</th><th>question</th><th>answer</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{rows}</table>"
