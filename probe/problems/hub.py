"""Published problem sets by name, from the Hugging Face hub or from a local copy of their files."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.files import read_json
from probe.problems.expressions import reaches_target
from probe.problems.grading import ByProblem, readable
from probe.problems.local import Record, read_records, set_of_records
from probe.problems.problem_set import ProblemSet, split_of
from probe.problems.sources import ALIASES, SOURCES, Source


def hub_set(name: str, path: str | Path | None = None, grader: str | None = None) -> ProblemSet:
    """Load a published problem set from the hub or from a local copy.

    Args:
        name: a key of :data:`SOURCES` or :data:`ALIASES`.
        path: a ``.jsonl``, ``.json`` or ``.parquet`` file as published, or a folder with the data set's files; None
            reads the hub.
        grader: replaces the set's own grader.

    Raises:
        ProbeError: if the hub cannot be reached, or a record is not as published.
    """
    name = ALIASES.get(name, name)
    source = SOURCES[name]
    path = None if path is None else Path(path).expanduser()
    if path is None or path.is_dir():
        found = _from_library(name, source, path)
    else:
        # One file is one split; where there are several, it is not known which.
        role = next(iter(source.splits.values())) if len(source.splits) == 1 else None
        found = ((where, record, role) for where, record in itertools.islice(_from_file(path), source.most))
    left: Counter[str] = Counter()
    graders: dict[str, str] = {}
    records = _tidied(name, source, found, left, graders)
    made = set_of_records(name, records, grader or source.grader, source=str(path or source.repository))
    left_out = [f"{n} left out because {why}" for why, n in left.items()]
    first = f"the first {source.most:,} records" if source.most else ""
    made = replace(made, counter=source.counter, note="; ".join(filter(None, [made.note, first, *left_out])))
    if grader is None and source.checked:
        return replace(made, grader="expression", verifier=reaches_target)
    if grader is None and graders:
        return replace(made, grader="by type of answer", verifier=ByProblem(graders))
    return made


def _tidied(
    name: str,
    source: Source,
    found: Iterator[tuple[str, dict[str, Any], str | None]],
    left: Counter[str],
    graders: dict[str, str],
) -> Iterator[Record]:
    """Records of a problem set; what is left out, and graders of single problems, are noted in the last two."""
    met: dict[str, str] = {}
    for number, (where, record, role) in enumerate(found):
        try:
            tidy = source.tidy(record)
        except KeyError as error:
            raise ProbeError(f"{where} has no {error.args[0]!r}; is this a record of {name} as published?") from None
        except (TypeError, ValueError, IndexError):
            raise ProbeError(f"{where} has values of another form than the published records of {name}") from None
        if isinstance(tidy, str):
            left[tidy] += 1
            continue
        own = tidy.pop("grader", None)
        words, answer = " ".join(str(tidy["question"]).split()), str(tidy["answer"]).strip()
        if (own or source.grader) != "numeric" and not readable(own or source.grader, answer):
            left["no grader can read their answers"] += 1
            continue
        if met.setdefault(words, answer) != answer:
            left["they repeat a question with another answer"] += 1
            continue
        if own:
            tidy["id"] = f"{name}/{number}"
            graders[tidy["id"]] = own
        split = record.get("split", role)
        if split == "train" and "split" not in record and split_of(words) == "validation":
            split = "validation"
        yield where, tidy if split is None else {**tidy, "split": split}


def _from_file(path: Path) -> Iterator[Record]:
    if path.suffix.lower() != ".json" or not path.is_file():
        yield from read_records(path)
        return
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProbeError(f"{path} is not a list of JSON objects; give the file as published")
    yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows))


def _from_library(name: str, source: Source, folder: Path | None) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    from datasets import Image, load_dataset
    from datasets.exceptions import DatasetsError

    where = source.repository if folder is None else str(folder)
    for split, role in source.splits.items():
        for config in source.configs:
            try:
                table = load_dataset(where, config, split=split, streaming=source.most is not None)
                for column, kind in (table.features or {}).items():
                    if isinstance(kind, Image):  # only whether there is one counts
                        table = table.cast_column(column, Image(decode=False))
                rows = table if source.most is None else table.take(source.most)
                place = " ".join(filter(None, (where, config, split)))
                for i, record in enumerate(rows):  # a stream may be interrupted at any record
                    assert isinstance(record, dict)
                    yield f"{place}, row {i}", record, role
            except (OSError, ValueError, DatasetsError) as error:
                reason = str(error).strip().partition("\n")[0]
                if folder is not None:
                    raise ProbeError(
                        f"{folder} does not hold the files of {source.repository} ({reason}); download it with: hf "
                        f"download {source.repository} --repo-type dataset --local-dir {folder}"
                    ) from None
                raise ProbeError(
                    f"{name} cannot be loaded from the hub ({reason}); give a local file or folder instead: "
                    f"{name}:PATH.jsonl"
                ) from None
