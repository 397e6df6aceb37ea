import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given, strategies as st

from probe.config import check_above_zero, check_least, check_seeds, describe, from_dict, nearest, read_yaml, to_dict
from probe.errors import ProbeError


@dataclass(frozen=True)
class Inner:
    layer: int
    """Which layer,
    counted from 0."""
    strength: float = 1.0
    """How strongly."""


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str = "x"
    sizes: tuple[int, ...] = (4, 6)
    """Sizes to try."""
    box: tuple[float, str] = (0.5, "a")
    kind: Literal["rl", "sft"] = "rl"
    folder: Path | None = None
    either: int | str = 1
    on: bool = False
    table: dict[str, float] = field(default_factory=dict)


@given(
    st.builds(
        Outer,
        inner=st.builds(Inner, layer=st.integers(), strength=st.floats(allow_nan=False)),
        name=st.text(),
        sizes=st.lists(st.integers()).map(tuple),
        folder=st.none() | st.text(alphabet="abc/", min_size=1).map(Path),
        either=st.integers() | st.text(),
        on=st.booleans(),
        table=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    )
)
def test_there_and_back_through_json(config):
    assert from_dict(Outer, json.loads(json.dumps(to_dict(config)))) == config


def test_numbers_and_lists_as_yaml_gives_them(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("inner: {layer: 2, strength: 1e-3}\nsizes: [1, 2]\nbox: [1, b]\nfolder: ~\n")
    config = from_dict(Outer, read_yaml(path))
    assert config == Outer(Inner(2, 0.001), sizes=(1, 2), box=(1.0, "b"))
    assert isinstance(config.box[0], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": {"layr": 1}}, "unknown key 'layr' in run.inner; did you mean 'layer'?"),
        ({"nam": "y"}, "unknown key 'nam' in run; did you mean 'name'?"),
        ({"inner": {}}, "missing key 'layer' in run.inner; give a value for it"),
        ({"inner": 3}, "run.inner must be a set of 'key: value' lines, not 3"),
        ({"inner": {"layer": "two"}}, "run.inner.layer must be a whole number, not 'two'"),
        ({"inner": {"layer": True}}, "run.inner.layer must be a whole number, not True"),
        ({"inner": {"layer": 1.5}}, "run.inner.layer must be a whole number, not 1.5"),
        ({"inner": {"layer": 1, "strength": "big"}}, "run.inner.strength must be a number, not 'big'"),
        ({"on": 1}, "run.on must be true or false, not 1"),
        ({"name": 5}, "run.name must be text, not 5"),
        ({"sizes": [1, "a"]}, "run.sizes[1] must be a whole number, not 'a'"),
        ({"sizes": 4}, "run.sizes must be a list (tuple[int, ...]), not 4"),
        ({"box": [1.0]}, "run.box must be a list (tuple[float, str]), not [1.0]"),
        ({"kind": "slf"}, "run.kind cannot be 'slf'; did you mean 'sft'?"),
        ({"folder": 3}, "run.folder must be a path, not 3"),
        ({"either": [1]}, "run.either must be a whole number or text, not [1]"),
        ({"table": {"a": "b"}}, "run.table.a must be a number, not 'b'"),
        ([], "run must be a set of 'key: value' lines, not []"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, message):
    data = {"inner": {"layer": 1}, **change} if isinstance(change, dict) else change
    with pytest.raises(ProbeError) as caught:
        from_dict(Outer, data, "run")
    assert str(caught.value) == message


def test_a_nested_mistake_is_not_swallowed_by_an_optional():
    @dataclass(frozen=True)
    class Config:
        inner: Inner | None = None

    with pytest.raises(ProbeError, match="did you mean 'layer'"):
        from_dict(Config, {"inner": {"layr": 1}})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(ProbeError, match=rf"inner\.layer is {value}; it must be at least 1"):
        check_least("inner", Inner(layer=value), layer=1)
    with pytest.raises(ProbeError, match=rf"^strength is {value}; it must be above 0"):
        check_above_zero("", Inner(1, strength=value), "strength")


def test_numbers_in_range_and_none_are_let_through():
    check_least("inner", Inner(layer=1), layer=1)
    check_least("inner", SimpleNamespace(layer=None), layer=1)
    check_above_zero("inner", Inner(1, strength=1e-9), "strength")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [([], "seeds is empty"), ([0, 1, 0], "twice"), ([-1], "-1 is not a seed"), ([2**32], "not a seed")],
)
def test_seeds_that_cannot_be_drawn_from_are_refused(seeds, said):
    with pytest.raises(ProbeError, match=said):
        check_seeds("seeds", seeds)


def test_describe_gives_the_text_under_each_field():
    assert describe(Inner) == {"layer": "Which layer, counted from 0.", "strength": "How strongly."}
    assert describe(Outer)["sizes"] == "Sizes to try."
    assert describe(Outer)["name"] == ""


def test_read_yaml_names_the_file_and_the_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: 1\nb: [1\n")
    with pytest.raises(ProbeError, match=r"run\.yaml:\d+ is not valid YAML"):
        read_yaml(path)
    path.write_text("- a\n")
    with pytest.raises(ProbeError, match="must hold 'key: value' lines, not list"):
        read_yaml(path)
    path.write_text("")
    assert read_yaml(path) == {}
    with pytest.raises(ProbeError, match="cannot be read"):
        read_yaml(tmp_path)
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(ProbeError, match=r"run\.yaml is not UTF-8 text \(byte 3\)"):
        read_yaml(path)


@pytest.mark.parametrize(
    "text",
    ["a: !!int x", "a: !!bool x", "a: !!int ''", "a: !!timestamp x", "a: 2001-13-45", "a: " + "[" * 1000, "a: \0"],
    ids=lambda text: text[:12],
)
def test_yaml_that_breaks_its_reader_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ProbeError, match=r"run\.yaml (cannot be read as|is not valid) YAML") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def test_nearest_of_many_does_not_list_them_all():
    assert nearest("zzz", [f"name{i:03}" for i in range(100)]).endswith("name011 and 88 more")
