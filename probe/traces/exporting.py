"""Exports traces with their problems as a data set for the hub: Parquet files and a card."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import yaml

from probe.errors import ProbeError
from probe.files import write_text
from probe.problems import SPLITS, Problem, ProblemSet
from probe.traces.stored import write_groups

_SHARD = 5_000
"""The number of traces in a file."""


@runtime_checkable
class Exported(Protocol):
    """Traces, as an export reads them."""

    @property
    def model_name(self) -> str: ...
    @property
    def problems_name(self) -> str: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def truncated(self) -> float: ...
    def column(self, name: str) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...


def write_export(
    folder: str | Path,
    traces: Exported,
    problem_set: ProblemSet,
    row_of: Callable[[Any], dict[str, Any]],
    schema: pa.Schema,
    *,
    license: str,
    about: Mapping[str, str],
) -> Path:
    """Write the files of a data set; see :meth:`~probe.Traces.export`.

    Args:
        folder: where the files are written.
        traces: the traces to export.
        problem_set: gives the question, the known answer and the split of each trace.
        row_of: returns the row of a trace.
        schema: the columns of these rows.
        license: the licence named on the card.
        about: further facts for the card.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProbeError(f"{folder} is not an empty folder; name another one")
    if not len(traces):
        raise ProbeError("there are no traces to export")
    wanted = set(traces.column("problem_id"))
    found: dict[str, tuple[Problem, str]] = {}
    for split in SPLITS:
        for problem in problem_set.splits.get(split, ()):
            if problem.id in wanted:
                found[problem.id] = problem, split
    if lost := sorted(wanted - set(found)):
        raise ProbeError(f"{problem_set.name} lacks problem {lost[0]!r} of a trace; give the problem set of the traces")
    whole = pa.schema([*schema, *((name, pa.string()) for name in _OF_PROBLEM)])

    def rows() -> Iterator[dict[str, Any]]:
        for trace in traces:
            problem, split = found[trace.problem_id]
            yield row_of(trace) | {
                "question": problem.question,
                "gold": problem.answer,
                "split": split,
                "grader": problem_set.grader,
                "problems": traces.problems_name,
                "model": traces.model_name,
            }

    n, every = -(-len(traces) // _SHARD), rows()
    for number in range(n):
        path = folder / "data" / f"train-{number:05d}-of-{n:05d}.parquet"
        write_groups(path, islice(every, _SHARD), whole, lambda row: len(row["tokens"]))
    write_text(folder / "README.md", _card(traces, problem_set, found, license, about))
    return folder


_OF_PROBLEM = ("question", "gold", "split", "grader", "problems", "model")

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_COLUMNS = {
    "prompt": "the text that the model read first",
    "tokens": "the ids of the text, without the end token",
    "text": "the text that was written",
    "sentences": "spans of characters and tokens, which cover the text",
    "think_end": "the character after the closing think tag; null if the thinking was not closed",
    "answer, correct, failed": "the answer that was found, its grade, and whether grading failed",
    "truncated": "whether the limit on new tokens stopped the trace",
    "problem_id, question, gold, split": "the problem, its known answer and its split",
    "sample": "the number of the trace among the traces of its problem",
    "author": "who wrote the trace, if not the model",
}


def _card(
    traces: Exported,
    problem_set: ProblemSet,
    found: Mapping[str, tuple[Problem, str]],
    license: str,
    about: Mapping[str, str],
) -> str:
    n, tokens, authors = len(traces), traces.column("n_tokens"), traces.column("author")
    front = {
        "license": license,
        "task_categories": ["text-generation"],
        "tags": ["reasoning-traces", "chain-of-thought", "probe"],
        "size_categories": [next((name for most, name in _SIZES if n < most), "1M<n<10M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    }
    wrote = sorted({author or traces.model_name for author in authors})
    facts = {
        "read by": traces.model_name,
        "written by": ", ".join(wrote),
        "problems": f"{problem_set.name}: {len(found)} problems, graded by {problem_set.grader}",
        "splits": ", ".join(f"{sum(split == name for _, split in found.values())} {name}" for name in SPLITS),
        "traces": f"{n:,}",
        "tokens": f"{sum(tokens):,}, at most {max(tokens):,} in a trace",
        "correct": _share(traces.accuracy),
        "not graded": f"{sum(traces.column('failed')):,}",
        "truncated": _share(traces.truncated),
        **about,
    }
    told = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items())
    columns = "\n".join(f"| `{name.replace(', ', '`, `')}` | {said} |" for name, said in _COLUMNS.items())
    head = yaml.safe_dump(front, sort_keys=False)
    return (
        f"---\n{head}---\n\n# Traces of {', '.join(wrote)} on {problem_set.name}\n\n"
        f"| | |\n|---|---|\n{told}\n\n| column | content |\n|---|---|\n{columns}\n\n"
        "Read them with `probe.Traces.read(FOLDER_OR_ID, model)`, or keep them for `probe run --traces` with\n"
        "`probe traces import FOLDER_OR_ID --model MODEL --out FOLDER`.\n"
    )


def _share(value: float) -> str:
    return "unknown" if value != value else f"{value:.1%}"


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
