"""Published problem sets, from the Hugging Face hub or from a local copy of their file."""

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
    """Turns a record as published into one with ``question`` and ``answer``."""


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


def hub_set(name: str, path: str | Path | None = None, grader: str | None = None) -> ProblemSet:
    """Load a published problem set from the hub or from a local copy.

    Where the source has a train and a test split, the test split is kept and a hash of the question moves some train
    problems to validation. Where it has one split, the hash makes all three.

    Args:
        name: a key of :data:`SOURCES`.
        path: a ``.jsonl`` or ``.parquet`` file as published; None reads the hub.
        grader: replaces the set's own grader.

    Raises:
        ProbeError: if the hub cannot be reached, or a record is not as published.
    """
    source = SOURCES[name]
    found = _from_hub(name, source) if path is None else read_records(path)
    records = (_tidied(name, source, where, record) for where, record in found)
    return set_of_records(name, records, grader or source.grader, source=str(path or source.repository))


def _tidied(name: str, source: _Source, where: str, record: dict[str, Any]) -> Record:
    try:
        tidy = source.tidy(record)
    except KeyError as error:
        raise ProbeError(f"{where} has no {error.args[0]!r}; is this a record of {name} as published?") from None
    return where, {**tidy, "split": record["split"]} if "split" in record else tidy


def _from_hub(name: str, source: _Source) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        tables = {each: load_dataset(source.repository, source.config, split=each) for each in source.splits}
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProbeError(
            f"{name} cannot be loaded from the hub ({reason}); give a local file instead: {name}:PATH.jsonl"
        ) from None
    for split, table in tables.items():
        for i, record in enumerate(table):
            assert isinstance(record, dict)
            if len(tables) > 1:
                validates = split == "train" and split_of(record["question"]) == "validation"
                record["split"] = "validation" if validates else split
            yield f"{source.repository} {split}, row {i}", record
