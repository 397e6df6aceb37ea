"""The static picture of one answer."""

import json
import re
from xml.etree import ElementTree

import pytest

from probe.errors import ProbeError
from probe.reports import to_columns, trace_picture

TEXT = "{http://www.w3.org/2000/svg}text"
RECT = "{http://www.w3.org/2000/svg}rect"


def words(text: str, *steered: int) -> list[dict]:
    pieces = re.findall(r"\s?\S+", text)
    return [
        {"text": piece, "steered": i in steered, "behaviour": i % 2 if i in steered else None, "strength": 1.0}
        | {"base": piece, "thinking": piece}
        for i, piece in enumerate(pieces)
    ]


@pytest.fixture
def run(tmp_path):
    long = 'First, Mia buys 5 more <cards> & "stamps". That makes 5 + 5 = 10. ' * 4
    shown = [
        {
            "problem_id": name,
            "question": f"How many cards has Mia, {name}?",
            "answer": "10",
            "arms": {
                "base": {"correct": base, "text": "So the answer is 5."},
                "hybrid": {"correct": True, "tokens": to_columns(words(text, 0, 3, 7))},
                "lora": {"correct": True, "text": "So the answer is 10."},
            },
        }
        for name, base, text in (("a", True, "Ten."), ("b", False, long * 2), ("c", False, long))
    ]
    (tmp_path / "shown.json").write_text(json.dumps(shown))
    (tmp_path / "behaviours.json").write_text(json.dumps([{"label": "restate <a>"}, {"label": "compute"}]))
    return tmp_path


def drawn(svg: str) -> tuple[str, list]:
    root = ElementTree.fromstring(svg)
    lines: dict[float, list[tuple[float, str]]] = {}
    for each in root.iter(TEXT):
        lines.setdefault(float(each.attrib["y"]), []).append((float(each.attrib["x"]), each.text or ""))
    return "\n".join(" ".join(text for _, text in sorted(line)) for _, line in sorted(lines.items())), [
        *root.iter(RECT)
    ]


@pytest.mark.parametrize("dark", [False, True])
def test_it_has_every_word_in_order_and_a_box_for_every_steered_token(run, dark):
    text, boxes = drawn(trace_picture(run, dark=dark))
    assert "How many cards has Mia, c?" in " ".join(text.split()), "the shortest that only the arm solves"
    assert "So the answer is 5." in text
    said = 'First, Mia buys 5 more <cards> & "stamps". That makes 5 + 5 = 10. ' * 4
    assert " ".join(said.split()) in " ".join(text.split())
    assert "hybrid, which changes 3 of 60 tokens: right" in text
    assert len(boxes) == 3 + 2, "three tokens and two behaviours in the legend"
    assert "restate <a>" in text


def test_no_line_is_wider_than_the_picture(run):
    root = ElementTree.fromstring(trace_picture(run, "b"))
    for each in root.iter(TEXT):
        assert float(each.attrib["x"]) + float(each.attrib.get("textLength", 0)) <= float(root.attrib["width"])
    for each in root.iter(RECT):
        assert float(each.attrib["x"]) + float(each.attrib["width"]) <= float(root.attrib["width"])


@pytest.mark.parametrize(
    ("problem", "arm", "said"), [("x", "hybrid", "no problem 'x'"), (None, "lora", "solves and"), (None, "v1", "'v1'")]
)
def test_what_the_run_does_not_show_is_refused(run, problem, arm, said):
    with pytest.raises(ProbeError, match=said):
        trace_picture(run, problem, arm=arm)
