"""Records of probe's own exports: a trace with its problem."""

from collections.abc import Iterator, Mapping

from probe.models import ThinkTags
from probe.problems import Grade
from probe.traces.reading.raw import Raw, Record, Shape, ids_of, name_of, text_of

_KEYS = ("problem_id", "prompt", "tokens", "text", "think_tags", "truncated")


def _fits(record: Record) -> bool:
    return all(key in record for key in _KEYS) and isinstance(record["think_tags"], Mapping)


def _read(record: Record) -> Iterator[Raw]:
    yield Raw(
        text=text_of(record["text"], "text"),
        tokens=ids_of(record["tokens"], "tokens"),
        prompt=text_of(record["prompt"], "prompt"),
        question=text_of(record.get("question"), "question"),
        gold=text_of(record.get("gold"), "gold"),
        # An author is recorded only if another model wrote the trace; otherwise the record's model wrote it.
        author=name_of(record.get("author")) or name_of(record.get("model")),
        problem_id=name_of(record["problem_id"]),
        sample=int(record.get("sample") or 0),
        truncated=bool(record["truncated"]),
        split=name_of(record.get("split")),
        grader=name_of(record.get("grader")),
        problems=name_of(record.get("problems")),
        think_tags=ThinkTags(**record["think_tags"]),
        grade=Grade(record.get("answer"), bool(record.get("correct")), bool(record.get("failed"))),
    )


OWN = Shape("export of probe", _fits, _read)
