"""Well-known problem sets, from the Hugging Face hub or from a local copy of their file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.problems.local import Record, read_records, set_of_records
from probe.problems.problem_set import ProblemSet, split_of


@dataclass(frozen=True)
class _Source:
    repository: str
    config: str | None
    splits: tuple[str, ...]
    grader: str
    tidy: Callable[[dict[str, Any]], dict[str, Any]]
    """From a record as published to one with ``question`` and ``answer``."""


def _gsm8k(record: dict[str, Any]) -> dict[str, Any]:
    # The published answer is a worked solution that ends in "#### 1,234".
    answer = str(record["answer"]).rpartition("####")[2].strip().replace(",", "")
    return {"question": record["question"], "answer": answer}


def _math500(record: dict[str, Any]) -> dict[str, Any]:
    question = record["problem"] if "problem" in record else record["question"]
    return {"question": question, "answer": record["answer"], "id": record.get("unique_id")}


SOURCES = {
    "gsm8k": _Source("openai/gsm8k", "main", ("train", "test"), "numeric", _gsm8k),
    "math500": _Source("HuggingFaceH4/MATH-500", None, ("test",), "math-verify", _math500),
}


def hub_set(name: str, path: Path | None = None, grader: str | None = None, revision: str | None = None) -> ProblemSet:
    """The set called ``name``, from the hub or, with ``path``, from a ``.jsonl`` or ``.parquet`` file as published.

    Where the source has a train and a test split, test stays test and a hash of the question takes validation problems
    out of train; where it has one split, a hash makes all three.

    Raises:
        ProbeError: if the hub cannot be reached, saying what to do, or a record is not as published.
    """
    source = SOURCES[name]
    found = _from_hub(name, source, revision) if path is None else read_records(path)
    records = (_tidied(name, source, where, record) for where, record in found)
    return set_of_records(name, records, grader or source.grader, source=str(path or source.repository))


def _tidied(name: str, source: _Source, where: str, record: dict[str, Any]) -> Record:
    try:
        tidy = source.tidy(record)
    except KeyError as error:
        raise ProbeError(f"{where} has no {error.args[0]!r}; is it a record of {name} as published?") from None
    return where, {**tidy, "split": record["split"]} if "split" in record else tidy


def _from_hub(name: str, source: _Source, revision: str | None) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        tables = {
            each: load_dataset(source.repository, source.config, split=each, revision=revision)
            for each in source.splits
        }
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProbeError(
            f"{name} cannot be had from the hub ({reason}); give a local file instead: {name}:PATH.jsonl"
        ) from None
    for split, table in tables.items():
        for i, record in enumerate(table):
            assert isinstance(record, dict)
            if len(tables) > 1:
                held_out = split == "train" and split_of(record["question"]) == "validation"
                record["split"] = "validation" if held_out else split
            yield f"{source.repository} {split}, row {i}", record
