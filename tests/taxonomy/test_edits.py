import pytest
import torch
import yaml

from probe.errors import ProbeError
from probe.taxonomy.edits import BehaviourEdit, Edits, write_template


@pytest.fixture
def read(tmp_path):
    """``read(text, n)``: the edits in a file of that text."""

    def from_text(text: str, n_behaviours: int = 8) -> Edits:
        path = tmp_path / "behaviours.yaml"
        path.write_text(text, encoding="utf-8")
        return Edits.read(path, n_behaviours)

    return from_text


def test_what_people_write_is_read(read):
    edits = read(
        "2:\n  name: Prüft\n  note: 'wait'\n  description: goes over it\n5: {merge_into: 2}\n7: {merge_into: 5}\n4:\n"
    )
    assert edits.behaviours[2] == BehaviourEdit("Prüft", "goes over it", "wait")
    assert edits.behaviours[4] == BehaviourEdit()
    assert edits.merged == [0, 1, 2, 3, 4, 2, 6, 2]
    assert edits.names([f"label {i}" for i in range(8)])[1:3] == ["label 1", "Prüft"]
    shown = edits.apply(torch.tensor([[7, 0], [5, 2]]))
    assert shown.tolist() == [[2, 0], [2, 2]] and shown.dtype == torch.long
    assert edits.apply([7, None, 3]) == [2, None, 3]
    assert edits.apply([]) == []


def test_no_edits(read):
    assert read("") == read("# nothing\n") == Edits.none(8)
    assert Edits.none(3).merged == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2:\n  nmae: a\n", r"unknown key 'nmae' in .*behaviours\.yaml: 2; did you mean 'name'\?"),
        ("8:\n  name: a\n", "there is no behaviour 8; give 0 to 7"),
        ("-1:\n  name: a\n", "there is no behaviour -1"),
        ("name: a\n", "name: name a behaviour by its number; known: 0, 1"),
        ("'3':\n  name: a\n", r"by its number; did you mean '3'\?"),
        ("yes:\n  name: a\n", "by its number"),
        ("3: checks\n", "3 must be a set of 'key: value' lines, not 'checks'"),
        ("3:\n  name: 12\n", r"3\.name must be text, not 12"),
        ("3:\n  merge_into: two\n", r"3\.merge_into must be a whole number"),
        ("3:\n  merge_into: 8\n", r"3\.merge_into: there is no behaviour 8"),
        ("3:\n  merge_into: 3\n", "merges behaviour 3 into itself"),
        (
            "3: {merge_into: 5}\n5: {merge_into: 6}\n6: {merge_into: 3}\n",
            r"3\.merge_into leads in a circle \(3 → 5 → 6 → 3\)",
        ),
        ("1: {merge_into: 3}\n3: {merge_into: 5}\n5: {merge_into: 3}\n", r"leads in a circle"),
        ("3:\n  name: a\n5:\n  name: b\n3:\n  note: c\n", r"behaviours\.yaml:5 cannot be read \(3 is given twice"),
        ("3:\n  name: a\n  name: b\n", r"behaviours\.yaml:3 cannot be read \('name' is given twice"),
        ("- 3\n", "must hold a number and its keys for each behaviour, not list"),
        ("3: {name: a\n", r"behaviours\.yaml:\d+ cannot be read"),
        ("3:\n  name: \x07\n", "cannot be read .unacceptable character"),
        ("? [3]\n: {name: a}\n", "cannot be read"),
    ],
)
def test_mistakes_are_named(read, text, message):
    with pytest.raises(ProbeError, match=message) as error:
        read(text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ProbeError, match="cannot be read"):
        Edits.read(tmp_path / "behaviours.yaml", 3)


def test_the_template_says_nothing_until_it_is_edited(tmp_path):
    labels = ["“That makes # …” / “Now # …”: + =", "a\nb: [\u2028\x07#", "", "plan"]
    path = write_template(tmp_path / "new" / "behaviours.yaml", labels)
    assert Edits.read(path, 4) == Edits.none(4)
    text = path.read_text(encoding="utf-8")
    assert all(word in text for word in ("That makes", "plan", "merge_into", "description", "note"))
    # As it is meant to be used: the comment signs of one behaviour's lines are taken out.
    edited = text.replace("# 1:  #", "1:  #").replace(
        "# a b: [ #\n#   name:", "# a b: [ #\n  name: sums\n  merge_into: 3"
    )
    assert edited != text
    path.write_text(edited, encoding="utf-8")
    assert Edits.read(path, 4).names(labels) == [labels[0], "sums", *labels[2:]]
    assert Edits.read(path, 4).merged == [0, 3, 2, 3]


def test_a_users_file_is_never_overwritten(tmp_path):
    path = tmp_path / "behaviours.yaml"
    path.write_text("0: {name: mine}\n", encoding="utf-8")
    assert write_template(path, ["a", "b"]) == path
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {0: {"name": "mine"}}
