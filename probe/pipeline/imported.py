"""Imported traces as the start of a run or a discovery: the problem and the split that each trace belongs to."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from probe.engine import KeptFolder
from probe.errors import ProbeError
from probe.models import Model, PairConfig, check_length
from probe.problems import Problem, ProblemSet, load_problems, with_splits
from probe.traces import ImportedTraces, Trace, Traces, reader_of, write_traces


@dataclass(frozen=True)
class ImportedSplits:
    """Imported traces, divided into the splits of a problem set.

    Attributes:
        folder: the imported traces.
        problem_set: the problems and their grader.
        rows: for each split, the numbers of its traces, in the order of the problems and their samples.
        problems: for each split, the problem of each of its traces.
    """

    folder: ImportedTraces
    problem_set: ProblemSet
    rows: Mapping[str, Sequence[int]]
    problems: Mapping[str, Sequence[Problem]]

    def take(self, split: str, n: int) -> tuple[Problem, ...]:
        """The first ``n`` problems of a split that have traces, or all of them if there are fewer.

        Raises:
            ProbeError: if there are none.
        """
        found = tuple({problem.id: problem for problem in self.problems[split]}.values())[:n]
        if not found:
            counts = ", ".join(f"{len({each.id for each in some})} {name}" for name, some in self.problems.items())
            raise ProbeError(
                f"no trace of {self.folder.folder} answers a {split} problem of {self.problem_set.name} (problems with "
                f"traces: {counts}); import more traces, or give each problem a split"
            )
        return found

    @property
    def offered(self) -> ProblemSet:
        """The problem set, restricted to train and validation problems that have traces."""
        some = {split: self.take(split, len(self.rows[split])) for split in ("train", "validation")}
        name = f"{self.problem_set.name} (imported traces)"
        return replace(self.problem_set, name=name, splits={**self.problem_set.splits, **some})

    def traces(self, split: str, problems: Sequence[Problem], folder: Path) -> Traces:
        """The traces of some problems, kept in a folder and graded by the problem set.

        Args:
            split: the split of the problems.
            problems: from :meth:`take`.
            folder: where the traces are kept; if they are already there, they are only read.
        """
        wanted = {problem.id for problem in problems}
        chosen = [
            (row, problem)
            for row, problem in zip(self.rows[split], self.problems[split], strict=True)
            if problem.id in wanted
        ]
        about = self.folder.about
        key = {
            "work": "imported traces",
            "content": about["content"],
            "problems": [[row, problem.id, problem.answer] for row, problem in chosen],
            "grader": self.problem_set.grader,
        }
        home, name = KeptFolder(folder, key, "traces.parquet"), self.folder.traces.model_name
        if not (home.check() and (folder / "traces.parquet").is_file()):
            with home:
                write_traces(folder, self._graded(chosen), name, self.problem_set.name)
        return Traces.load(folder)

    def _graded(self, chosen: Sequence[tuple[int, Problem]]) -> Iterator[Trace]:
        traces = self.folder.traces.only([row for row, _ in chosen])
        for trace, (_, problem) in zip(traces, chosen, strict=True):
            grade = self.problem_set.grade(trace.text, problem, think_close=trace.think_tags, prompt=trace.prompt)
            yield replace(trace, problem_id=problem.id, answer=grade.answer, correct=grade.correct, failed=grade.failed)

    @property
    def hash(self) -> str:
        """A hash of the content of the traces."""
        return self.folder.about["content"]


def imported_splits(
    folder: str | Path, problems: str | None, grader: str | None, pair: PairConfig, *, needed: Collection[str]
) -> ImportedSplits:
    """Find the problems that imported traces answer.

    Args:
        folder: the folder that `import_traces` wrote.
        problems: the problem set. None takes the problem set of the import, or else that of the pair. If neither has
            these problems, the problems of the traces are used, divided into splits by a hash of the question.
        grader: how answers are graded.
        pair: the pair of the run.
        needed: the splits that are needed; splits that a problem set lacks are made as for problems without traces.

    Raises:
        ProbeError: if the folder holds no imported traces, or ``problems`` has none of their problems.
    """
    imported = ImportedTraces(Path(folder).expanduser())
    if problems is not None:
        made = _divided(imported, load_problems(problems, grader=grader), needed)
        if not any(made.rows.values()):
            raise ProbeError(
                f"{made.problem_set.name} has none of the questions of {imported.folder}; give other problems, or "
                f"--problems {imported.problems_file}"
            )
        return made
    for name, own in ((imported.about["problems"], imported.about["grader"]), (pair.problems, pair.grader)):
        try:
            made = None if name is None else _divided(imported, load_problems(name, grader=grader or own), needed)
        except ProbeError:  # this machine does not have the set, or its answers need another grader
            continue
        if made is not None and any(made.rows.values()):
            return made
    return _divided(imported, imported.problem_set, needed)


def _divided(imported: ImportedTraces, problem_set: ProblemSet, needed: Collection[str]) -> ImportedSplits:
    problem_set = with_splits(problem_set, needed)
    known = {
        _words(problem.question): (split, place, problem)
        for split, some in problem_set.splits.items()
        for place, problem in enumerate(some)
    }
    own = {each.id: each for some in imported.problem_set.splits.values() for each in some}
    found = []
    traces = imported.traces
    for row, (name, sample) in enumerate(zip(traces.column("problem_id"), traces.column("sample"), strict=True)):
        if name in own and (place := known.get(_words(own[name].question))):
            found.append((place[0], place[1], sample or 0, row, place[2]))
    found.sort(key=lambda each: each[1:4])
    splits = {"train": [], "validation": [], "test": []}
    rows = {split: [row for each, _, _, row, _ in found if each == split] for split in splits}
    problems = {split: [problem for each, *_, problem in found if each == split] for split in splits}
    return ImportedSplits(imported, problem_set, rows, problems)


def _words(text: str) -> str:
    return " ".join(text.split())


def check_reader(imported: ImportedTraces, model: Model) -> None:
    """Check that imported traces fit a model.

    Raises:
        ProbeError: if they were imported for another tokenizer, or are too long for the model.
    """
    there = imported.about["key"]["model"]
    if there.get("vocabulary") != reader_of(model)["vocabulary"]:
        raise ProbeError(
            f"the traces of {imported.folder} are tokens of {imported.about['model'].get('name')}, whose tokenizer "
            f"differs from that of {model.name}; import them with --model {model.config.path}"
        )
    check_length(model.hf, max(imported.traces.column("n_tokens"), default=0), model.name, 0)
