"""Reads a source: its shape, its problems, and its rollouts one by one."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.models import Model
from probe.problems import GRADERS, Grade, Problem, ProblemSet, extract_answer, known_answer, set_of_records
from probe.traces.reading.asked import Asked, words
from probe.traces.reading.raw import Raw, Reject, Shape
from probe.traces.reading.shapes import shape_of
from probe.traces.reading.sources import Source, open_source
from probe.traces.reading.tokens import Written, written

_FIRST = 20
"""The number of records by which the shape is found."""
_LONGEST = 200
"""The longest known answer in characters. A longer one without a box is a worked solution, which no grader compares."""
UNKNOWN = "unknown"
"""The author of rollouts with the markers of OpenThoughts, which other models do not write."""


@dataclass(frozen=True)
class Rollout:
    """A rollout that a model can read, and the problem that it answers."""

    problem: Problem
    written: Written
    sample: int
    author: str | None
    grade: Grade | None
    """The grade, if it is known without grading."""


class Reading:
    """Rollouts of a source, as a model reads them.

    Each call of :meth:`rollouts` reads the source from the first record on, with one record in memory at a time.
    Without a problem set the source is first read once more, to make problems from its questions.

    Args:
        model: reads the rollouts; only its tokenizer and its prompt are used.
        source: see :func:`~probe.traces.reading.sources.open_source`.
        problem_set: the problems that the rollouts answer; None makes them from the rollouts.
        grader: how answers are graded if the problems are made from the rollouts.
        columns: a column map, see :func:`~probe.traces.reading.plain.mapped`.
        author: who wrote the rollouts; replaces what the records say.

    Attributes:
        shape: the shape that was found.
        problem_set: the problems.
        rejects: the place of each rollout that the last call of :meth:`rollouts` rejected, and the reason.
        remarks: how many rollouts that call changed, for each kind of change.

    Raises:
        ProbeError: if the source is missing, empty or of no known shape, or a column map does not fit.
    """

    def __init__(
        self,
        model: Model,
        source: str | Path | Source,
        *,
        problem_set: ProblemSet | None = None,
        grader: str | None = None,
        columns: Mapping[str, str] | None = None,
        author: str | None = None,
    ) -> None:
        self.model, self.source = model, source if isinstance(source, Source) else open_source(source)
        self._author, self._grader = author, grader
        first = [record for _, record in islice(self.source.records(), _FIRST) if isinstance(record, dict)]
        if not first:
            raise ProbeError(f"{self.source.name} holds no records")
        self.shape: Shape = shape_of(first, columns, self.source.name)
        self._given = problem_set is not None
        self.rejects: list[tuple[str, str]] = []
        self.remarks: Counter[str] = Counter()
        self._asked = Asked(model, problem_set)
        self._n: int | None = None
        self._split = self._given
        self.problem_set = problem_set if problem_set is not None else self._made()
        self._asked = Asked(model, self.problem_set)

    @property
    def n(self) -> int | None:
        """The number of rollouts, rejected ones included; None if they were not counted."""
        return self._n

    def problem(self, name: str) -> Problem:
        """The problem with this id."""
        return self._asked.by_id[name]

    def split(self, problem: Problem) -> str | None:
        """The split of a problem; None if it is not given, so that a hash of the question decides."""
        return self._asked.split(problem) if self._split else None

    def rollouts(self) -> Iterator[Rollout]:
        """Read the source, and yield the rollouts that can be read."""
        self.rejects, self.remarks = [], Counter()
        used: dict[str, set[int]] = {}
        for where, raw in self._raws():
            try:
                if isinstance(raw, Reject):
                    raise raw
                asked = self._asked.question(raw)
                problem = self._asked.problem(asked)
                if problem is None:
                    raise Reject(f"its question is not in {self.problem_set.name}" if self._given else _NO_QUESTION)
                if not self._given and (gold := _gold(raw)) not in (None, problem.answer):
                    raise Reject(f"its question was asked before with another answer ({problem.answer}, now {gold})")
                asked = replace(asked, question=problem.question) if asked.prompt is None else asked
                said = written(self.model, asked)
            except Reject as reason:
                self.rejects.append((where, str(reason)))
                continue
            taken = used.setdefault(problem.id, set())
            sample = raw.sample if raw.sample is not None and raw.sample not in taken else _free(taken)
            taken.add(sample)
            self.remarks.update(said.remarks)
            yield Rollout(problem, said, sample, self._author_of(raw), self._grade(raw, said, problem))

    def _raws(self) -> Iterator[tuple[str, Raw | Reject]]:
        for where, record in self.source.records():
            if isinstance(record, ProbeError):
                yield where, Reject(str(record))
                continue
            try:
                if not self.shape.fits(record):
                    raise Reject(f"it is not of the shape {self.shape.name}")
                for raw in self.shape.read(record):
                    yield where, raw
            except Reject as reason:
                yield where, reason
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                yield (
                    where,
                    Reject(f"it does not follow the shape {self.shape.name} ({type(error).__name__}: {error})"),
                )

    def _made(self) -> ProblemSet:
        """The problems that the rollouts answer, in the order in which they first occur."""
        made: dict[str, dict[str, Any]] = {}
        ids: set[str] = set()
        graders: set[str | None] = set()
        name = Path(self.source.name.partition(":")[0]).stem or "traces"
        self._n, named = 0, set()
        for _, raw in self._raws():
            self._n += 1
            if isinstance(raw, Reject):
                continue
            try:
                asked = self._asked.question(raw)
            except Reject:
                continue
            if asked.question is None or not (key := words(asked.question)):
                continue
            named.add(raw.problems)
            graders.add(raw.grader)
            if key in made:
                made[key]["answer"] = made[key]["answer"] or _gold(raw)
                continue
            own = raw.problem_id if raw.problem_id not in (None, *ids) else f"{name}/{len(made)}"
            ids.add(str(own))
            made[key] = {"id": own, "question": asked.question, "answer": _gold(raw), "split": raw.split}
        if not made:
            raise ProbeError(
                f"no question was found in {self.source.name} ({self.shape.name}); name the column, such as --columns "
                "question=COLUMN,text=COLUMN, or the problems (--problems)"
            )
        if any(each["split"] is None for each in made.values()):
            made = {key: {**each, "split": None} for key, each in made.items()}
        else:
            self._split = True
        known = graders.pop() if len(graders) == 1 else None
        grader = self._grader or (known if known in GRADERS else None)
        rows = ((f"{self.source.name}, problem {i}", row) for i, row in enumerate(made.values()))
        title = named.pop() if len(named) == 1 else None
        return set_of_records(title or name, rows, grader, source=self.source.name)

    def _author_of(self, raw: Raw) -> str | None:
        marked = raw.text is not None and "<|begin_of_thought|>" in raw.text
        foreign = marked and self.model.think_tags.open != "<|begin_of_thought|>"
        author = self._author or raw.author or self.shape.author or (UNKNOWN if foreign else None)
        return None if author is None or is_name_of(author, self.model) else author

    def _grade(self, raw: Raw, said: Written, problem: Problem) -> Grade | None:
        """The record's own grade, if its problem has no known answer or its grader is not available."""
        if self._given:
            return None
        if raw.grade is not None:
            return raw.grade
        if raw.correct is None or problem.answer is not None:
            return None
        text = self.model.decode(said.tokens)
        return Grade(extract_answer(text, said.tags, prompt=said.prompt), raw.correct)


_NO_QUESTION = (
    "its prompt is not the model's own, so its question is unknown: give a column with the question, or the problems"
)


def is_name_of(name: str, model: Model) -> bool:
    """Whether a name is the name of a model; organisation, folder and case are ignored."""
    own = (model.name, model.config.path, model.config.adapter or "")
    return _bare(name) in {_bare(each) for each in own if each}


def _bare(name: str) -> str:
    return name.removeprefix("bundled:").rstrip("/").rpartition("/")[2].lower()


def _gold(raw: Raw) -> str | None:
    """The known answer of a record; None if it has none, or only a worked solution without a box."""
    if raw.gold is None or not raw.gold.strip():
        return None
    answer = known_answer(raw.gold.strip())
    worked = answer == raw.gold.strip() and ("\n" in answer or len(answer) > _LONGEST)
    return None if worked else answer


def _free(taken: set[int]) -> int:
    return next(number for number in range(len(taken) + 1) if number not in taken)
