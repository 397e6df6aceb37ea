"""Whatever a model writes is graded, whatever a file holds is read or refused in one line."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from probe.errors import ProbeError
from probe.problems import SPLITS, Problem, ProblemSet, extract_answer, load_problems
from probe.problems.answers import known_answer, readings
from probe.problems.grading import GRADERS

#: How models write an answer.
FORMS = [
    "{}", "The answer is {}", "The answer is {}.", "**Answer:** {}", "Final answer: **{}**.", "#### {}",
    "$\\boxed{{{}}}$", "<answer>{}</answer>", "<answer>\n\\boxed{{{}}}\n</answer>",
    "The answer is:\n{}",
    "```\n{}\n```", "So: {}", "<think>Or 7? \\boxed{{8}}</think>\nThe answer is {}",
    "The answer is 3. Wait: the answer is {}.",
]  # fmt: skip
#: Known answers of many kinds.
WHOLE = st.integers(-(10**12), 10**12).map(str)
DECIMALS = st.decimals(-1000, 1000, allow_nan=False, places=3).map(lambda value: f"{value:f}")
FRACTIONS = st.fractions(max_denominator=99).map(lambda value: f"\\frac{{{value.numerator}}}{{{value.denominator}}}")
PAIRS = st.tuples(st.integers(-99, 99), st.integers(-99, 99)).map("({0[0]}, {0[1]})".format)
WORDS = st.lists(st.sampled_from(["blue", "red", "Mia", "True", "False", "on"]), min_size=1, max_size=3).map(" ".join)
GRIDS = st.lists(st.tuples(*[st.integers(0, 9)] * 3).map("{0[0]} {0[1]} {0[2]}".format), min_size=2, max_size=4)
KNOWN = st.one_of(WHOLE, DECIMALS, FRACTIONS, PAIRS, WORDS, GRIDS.map("\n".join), st.sampled_from("ABCDE"))
PIECES = [
    "\\boxed{",
    "}",
    "{",
    "answer is",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "####",
    "```",
    "**",
    "$",
    " ",
]
PIECES += [
    "\n",
    "\n\n",
    "\\frac{",
    "\\text{",
    "\\sqrt{",
    "3",
    "1,000",
    ".",
    "/",
    "-",
    "=",
    "%",
    "x",
    "^",
    "_",
    "½",
    "or",
]
PIECES += ["million", "seven", "(", ")", "[", "]", ",", ":"]
SCRAPS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


def one(answer, grader):
    problem = Problem("a", "Q?", answer)
    return problem, ProblemSet("mine", grader, {"test": (problem,)})


@given(KNOWN, st.sampled_from(FORMS))
def test_a_known_answer_written_in_any_form_is_right(answer, form):
    problem, problems = one(answer, "exact")
    text = form.format(answer)
    assert problems.grade(text, problem).correct
    assert not problems.grade(text, Problem("b", "Q?", answer + "1")).correct
    if "</think>" not in text:
        assert problems.grade(f"<think>{text}", problem).answer is None, "thinking that is never closed answers nothing"


@given(SCRAPS, SCRAPS, st.sampled_from(["exact", "numeric"]))
def test_a_grader_decides_on_any_text(text, truth, grader):
    began = time.process_time()
    assert GRADERS[grader](text, truth) in (True, False)
    for like in (None, truth):
        found = readings(text, like=like)
        assert all(found) and len(found) <= 40
        assert extract_answer(text, like=like) == (found[0] if found else None)
    known_answer(text)
    assert time.process_time() - began < 2


@settings(max_examples=15)
@given(SCRAPS, SCRAPS)
def test_the_library_decides_on_any_text_or_says_that_it_cannot(text, truth):
    assert GRADERS["math-verify"](text, truth) in (True, False, None)


@pytest.mark.parametrize(
    "scrap", ["1", "1,", "1 ", "1/", "-", "\\frac{", "{", "(", "x=", "one ", "a ", "=", "**", "$", "```\n"]
)
@pytest.mark.parametrize("like", [None, "blue", "1\n2"])
def test_a_long_text_takes_no_longer_than_its_length(scrap, like):
    text = scrap * (100_000 // len(scrap))
    began = time.process_time()
    readings(text, like=like)
    GRADERS["numeric"](text[:1000], "1")
    GRADERS["exact"](text, "1")
    assert time.process_time() - began < 5


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["test", "1/2", "B"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(["question", "answer", "problem", "solution", "id", "split", "grader", "other"])
RECORDS = st.dictionaries(KEYS, VALUES, max_size=5)
GOOD = st.fixed_dictionaries({"question": st.text("ab ?", min_size=1, max_size=9), "answer": KNOWN})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(GOOD | RECORDS | VALUES, max_size=4), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]), st.data())
def test_a_file_is_read_or_refused_in_one_line(tmp_path, records, encoding, data):
    path = tmp_path / "a.jsonl"
    written = "\n".join(map(json.dumps, records)).encode(encoding)
    cut = data.draw(st.integers(0, len(written)) | st.just(len(written)))
    path.write_bytes(written[:cut] + data.draw(st.just(b"") | st.binary(max_size=3)) + written[cut:])
    try:
        problems = load_problems(path)
    except ProbeError as refusal:
        assert str(path) in str(refusal) or "unknown grader" in str(refusal)
        assert "\n" not in str(refusal)
        return
    every = [each for split in SPLITS for each in problems.splits[split]]
    assert len(every) == len({each.id for each in every}) > 0
    for problem in every:
        assert problems.grade(f"<answer>{problem.answer}</answer>", problem).correct
