import hashlib
import multiprocessing
import os

import pytest

from probe.errors import ProbeError
from probe.files import file_hash, object_hash, read_json, read_jsonl, read_tensors, write_json, write_text


def test_text_and_json_come_back(tmp_path):
    path = write_json(tmp_path / "new" / "folder" / "a.json", {"π": [1, 2.5, None]})
    assert read_json(path) == {"π": [1, 2.5, None]}
    assert file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_value_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    with pytest.raises(TypeError):
        write_json(path, object())
    assert read_json(path) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def _write_for_ever(path):
    while True:
        write_text(path, "x" * 5_000_000)


def test_a_killed_writer_leaves_whole_files_only(tmp_path):
    path = tmp_path / "a.txt"
    for _ in range(5):
        writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(path,))
        writer.start()
        while not path.exists():
            assert writer.is_alive()
        writer.kill()
        writer.join()
        assert len(path.read_text()) == 5_000_000
        path.unlink()


def test_read_json_names_the_file_and_the_line(tmp_path):
    with pytest.raises(ProbeError, match=r"gone\.json does not exist"):
        read_json(tmp_path / "gone.json")
    path = write_text(tmp_path / "bad.json", '{\n"a": }')
    with pytest.raises(ProbeError, match=r"bad\.json:2 is not valid JSON"):
        read_json(path)
    path.write_bytes(b"[1, \xff]")
    with pytest.raises(ProbeError, match=r"bad\.json is not UTF-8 text \(byte 4\)"):
        read_json(path)
    for text in ("[" * 100_000, "9" * 5000):
        path.write_text(text)
        with pytest.raises(ProbeError, match=r"bad\.json.* cannot be read"):
            read_json(path)
        with pytest.raises(ProbeError, match=r"bad\.json:1 (cannot be read|is not a JSON object)"):
            list(read_jsonl(path))
    with pytest.raises(ProbeError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)


def test_damaged_tensors_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    for contents in (None, b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{"):
        if contents is not None:
            path.write_bytes(contents)
        with pytest.raises(ProbeError, match=r"a\.safetensors cannot be read"):
            read_tensors(path)


def test_a_folder_is_not_written_over(tmp_path):
    with pytest.raises(ProbeError, match="is a folder; name a file"):
        write_text(tmp_path, "a page")
    assert list(tmp_path.iterdir()) == []


def test_object_hash_sees_values_and_not_key_order():
    assert object_hash({"a": 1, "b": 2}) == object_hash({"b": 2, "a": 1})
    assert object_hash({"a": 1}) != object_hash({"a": "1"})
    assert len(object_hash(None)) == 64
