"""Traces on disk: read on demand, and written one by one."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError
from probe.models import ThinkTags
from probe.traces import Sentence, Trace, Traces, stored as stored_module
from probe.traces.trace import write_traces


def trace_of(i: int, size: int = 5) -> Trace:
    text = "a" * size
    return Trace(
        f"p/{i // 2}",
        f"Question {i}?",
        tuple(range(i, i + size)),
        text,
        (Sentence(0, size, 0, size),),
        None if i % 3 else 1,
        str(i) if i % 2 else None,
        i % 2 == 0,
        i % 5 == 0,
        i == 3,
        ThinkTags("[THINK]", "[/THINK]"),
        i % 2,
        "else" if i == 4 else None,
    )


@pytest.fixture
def many(monkeypatch) -> list[Trace]:
    monkeypatch.setattr(stored_module, "GROUP", 40)  # several groups of a few traces
    return [trace_of(i, 1 + 7 * i % 19) for i in range(30)]


def test_what_is_loaded_is_what_was_saved_in_any_order_of_reading(many, tmp_path):
    made = Traces("m", "p", many)
    path = made.save(tmp_path)
    assert 4 < pq.ParquetFile(path).num_row_groups < 30
    loaded = Traces.load(tmp_path)
    assert loaded == made and made == loaded and list(loaded) == many
    for i in (29, 0, 17, 3, 29, -1, 5):
        assert loaded[i] == many[i]
    for some in (slice(3, 20), slice(None, None, -1), slice(-4, None), slice(5, 5), slice(2, 25, 7)):
        assert list(loaded[some]) == many[some] and loaded[some] == Traces("m", "p", many[some])
    assert list(loaded[4:28][3:9]) == many[7:13]
    assert list(loaded.only([7, 2, 2, 28])) == [many[7], many[2], many[2], many[28]]
    with pytest.raises(IndexError):
        loaded[30]
    changed = Traces("m", "p", [*many[:-1], many[0]])
    assert loaded != changed and loaded != Traces("n", "p", many) and loaded != loaded[:-1]


def test_few_traces_are_in_memory_at_once_and_columns_read_no_texts(many, tmp_path, monkeypatch):
    Traces("m", "p", many).save(tmp_path)
    loaded = Traces.load(tmp_path)
    read = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda *args, **more: (read.append(more.get("columns")), whole(*args, **more))[1],
    )
    for name in ("problem_id", "correct", "failed", "truncated", "sample", "author", "answer", "think_end"):
        assert loaded.column(name) == [getattr(each, name) for each in many] == Traces("m", "p", many).column(name)
    assert loaded.column("n_tokens") == [len(each.tokens) for each in many]
    assert loaded.accuracy == Traces("m", "p", many).accuracy and loaded.truncated == 6 / 30
    assert set(map(str, read)) == {"['tokens']"}
    assert loaded[3:9].column("answer") == [each.answer for each in many[3:9]]
    list(loaded)
    assert len(loaded.traces._made) <= 16 and len(loaded.traces._groups) <= 2


def test_traces_made_one_by_one_are_the_bytes_of_traces_saved_together(many, tmp_path):
    alive = []

    def made():
        for each in many:
            alive.append(each)
            yield each

    one = write_traces(tmp_path / "one", made(), "m", "p")
    assert one.read_bytes() == Traces("m", "p", many).save(tmp_path / "all").read_bytes()
    assert len(Traces.load(write_traces(tmp_path / "none", [], "m", "p").parent)) == 0


def test_files_of_earlier_versions_lack_sample_and_author(many, tmp_path):
    path = Traces("m", "p", many).save(tmp_path)
    pq.write_table(pq.read_table(path).drop_columns(["sample", "author"]), path)
    loaded = Traces.load(tmp_path)
    assert loaded.column("sample") == [0] * 30 and loaded.column("author") == [None] * 30
    assert loaded[4].author is None and loaded[4].tokens == many[4].tokens


def test_what_is_no_file_of_traces_is_one_line(tmp_path):
    with pytest.raises(ProbeError, match=r"traces\.parquet does not exist"):
        Traces.load(tmp_path)
    (tmp_path / "traces.parquet").write_bytes(b"PAR1")
    with pytest.raises(ProbeError, match=r"traces\.parquet cannot be read"):
        Traces.load(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "traces.parquet")
    with pytest.raises(ProbeError, match="does not hold traces"):
        Traces.load(tmp_path)
