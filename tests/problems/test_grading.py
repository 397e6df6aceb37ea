import threading
import time
from fractions import Fraction

import pytest
from hypothesis import example, given, strategies as st

from probe.errors import ProbeError
from probe.problems import GRADERS, extract_answer
from probe.problems.grading import exact, find_grader, math_verify, numeric
from probe.problems.numbers import read_number
from probe.problems.worker import CallFailed, Worker

#: Text with all that answers are made of in it, much more often than at random.
SCRAPS = st.lists(
    st.sampled_from(
        ["\\boxed{", "}", "{", "answer is", " ", "\n", "</think>", "3", "1,000", ".", "/", "-", "$", "=", "%", "*", "x"]
    )
    | st.text(max_size=3)
).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 31.", "31"),
        ("The answer is 3.5.", "3.5"),
        ("So the answer is -4", "-4"),
        ("the answer is: 7\nthank you, 8", "7"),
        ("**Answer:** 42", "42"),
        ("Final answer: **42**.", "42"),
        ("The answer is $x+1$.", "x+1"),
        ("The answer is $1,234.", "$1,234"),
        ("The answer is New York! Or 5?", "New York"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("The answer is 3, so \\boxed{4}", "4"),
        ("\\boxed{1} and \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} and \\boxed{\\frac{1}{2", "1"),
        ("\\boxed{} 6", "6"),
        ("22 - 9 makes 13 cards", "13"),
        ("5-3", "5-3"),
        ("it is (-3)", "-3"),
        ("−5 degrees", "-5"),
        ("1,234,567 in all", "1,234,567"),
        ("about 1/2 or so", "1/2"),
        ("#### 72", "72"),
        ("2 + 2 = 4</think> nothing", None),
        ("x1 and y_2 hold nothing", None),
        ("a</think> The answer is 1.</think> The answer is 2.", "2"),
        ("", None),
    ],
)
def test_the_final_answer_is_found(text, answer):
    assert extract_answer(text) == answer


def test_another_tag_closes_the_thinking():
    assert extract_answer("The answer is 1. <end> Hm, 2", think_close="<end>") == "2"


@given(SCRAPS)
@example("\\boxed{" * 50)
def test_an_answer_is_a_piece_of_the_text_after_the_tag(text):
    answer = extract_answer(text)
    if answer is not None:
        assert answer and answer == answer.strip()
        assert answer in text.rpartition("</think>")[2].replace("−", "-")


@given(
    SCRAPS,
    st.integers(),
    st.sampled_from(["</think> The answer is {}.", "</think> \\boxed{{{}}}", "</think> it must be {}"]),
)
def test_a_stated_answer_is_found_whatever_was_thought_before(thought, value, ending):
    answer = extract_answer(thought + ending.format(value))
    assert answer == str(value)
    assert numeric(answer, str(value))


@given(SCRAPS, SCRAPS)
def test_no_text_breaks_the_light_graders(answer, truth):
    assert exact(answer, truth) in (True, False)
    assert numeric(answer, truth) in (True, False)


@given(st.fractions(max_denominator=10**6))
def test_a_number_is_read_as_written(value):
    assert read_number(str(value)) == value
    assert read_number(f"x = ${value} apples") == value
    assert read_number(f"{value.numerator:,}/{value.denominator}") == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_decimals_are_exact(value):
    assert read_number(f"{value:f}") == Fraction(value)


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("1,000", "1000", True),
        ("0.5", "1/2", True),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("0.5", "50\\%", True),
        ("50%", "5000%", False),
        ("0.5", "50", False),
        ("$18.00", "18", True),
        ("-$5", "-5", True),
        ("\\$32,348", "32348", True),
        ("10{,}000", "10,\\!000", True),
        ("\\dfrac{3}{4}", "0.75", True),
        ("42 apples", "42", True),
        ("40 + 2 = 42", "42", True),
        ("0.1", "0.10000001", False),
        ("3/0", "3", False),
        ("3 or 4", "3", False),
        ("x", "3", False),
        ("9" * 5000, "9", False),
    ],
)
def test_numeric(answer, truth, same):
    assert numeric(answer, truth) is same


@pytest.mark.parametrize(
    ("answer", "truth", "verdict"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("1+x^2", "x^2+1", True),
        ("(3,\\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("\\$32,348", "32348", True),
        ("x=5", "5", True),
        ("(1,2)", "1 < x < 2", True),
        ("1 < x < 2", "(1,2)", False),
        ("4", "3", False),
        ("3", "", None),
        ("5, not 6", "5", True),
        ("3 or 4", "4", False),
        ("5x", "5", False),
        ("17", "17_8", False),
        ("\\pm 5", "5", False),
        ("\\sqrt{4}", "2", True),
        ("\\{2, 1\\}", "\\{1,2\\}", True),
        ("[1,2]", "(1,2)", False),
        ("11\\sqrt{2}", "\\sqrt{242}", True),
        ("no solution", "\\text{no solution}", True),
    ],
)
def test_math_verify_keeps_its_order_of_arguments_and_works_in_threads(answer, truth, verdict):
    grader, found = GRADERS["math-verify"], []
    assert grader(answer, truth) is verdict
    thread = threading.Thread(target=lambda: found.append(grader(answer, truth)))
    thread.start()
    thread.join()
    assert found == [verdict]


def test_a_grader_that_never_returns_is_ended(monkeypatch):
    monkeypatch.setattr("probe.problems.grading.SECONDS", 1)
    tower = "9^{9^{9^{9}}}"
    began = time.monotonic()
    assert math_verify(tower, f"{tower}+1") in (False, None)
    assert time.monotonic() - began < 5
    assert math_verify("1+x", "x+1"), "the next answer is graded as usual"


def test_a_call_says_why_it_failed():
    process = Worker()
    for function, arguments, reason in [
        ("load", ["no_such_library"], "ModuleNotFoundError: No module named 'no_such_library'"),
        ("make", ["chain_sum", 0, 0, 10**9, 60.0], "it took longer than 1 s"),
    ]:
        with pytest.raises(CallFailed, match=reason):
            process.call(function, *arguments, seconds=1)
    assert process.call("load", "json")
    assert process._process is not None
    process._process.kill()
    process._process.wait()
    assert process.call("load", "json"), "a process that was ended is started again"
    process.stop()


def test_an_unknown_grader_is_refused_by_name():
    with pytest.raises(ProbeError, match="unknown grader 'exakt'; did you mean 'exact'"):
        find_grader("exakt")


@pytest.mark.parametrize(
    "scrap", ["\\boxed{", "answer is ", " ", "answer is   . ", "1,", "1,000", "-", "*_", "{}", "x.\n"]
)
def test_a_model_that_runs_in_circles_does_not_hold_up_the_grader(scrap):
    text = "The answer is " + scrap * (40_000 // len(scrap))
    began = time.process_time()
    answer = extract_answer(text)
    numeric(answer or "", "1")
    read_number(text)
    assert time.process_time() - began < 5
