"""What counts as the answer of a text, and as the number of an answer: the grader's decisions as tables."""

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from probe.models import load_model
from probe.problems import Problem, ProblemSet, extract_answer
from probe.problems.answers import after_thinking, known_answer
from probe.problems.grading import exact
from probe.problems.numbers import read_number
from probe.traces import make_trace

NUMBERS = [
    # mixed numbers, fractions, decimals, powers
    (r"3\frac13", "10/3"), ("7½", "15/2"), ("1 5/8", "13/8"), (r"\frac{-7}{2}", "-7/2"), (r"\tfrac{9}{4}", "9/4"),
    ("2.5E-2", "1/40"), ("4.2 × 10^{2}", "420"), ("6e0", "6"), ("-.75", "-3/4"), ("3.", "3"),
    # separators
    ("12,345,678", "12345678"), ("7 654 321", "7654321"), ("3.456,7", "3456.7"), ("0,5", "1/2"), (r"98\,765", "98765"),
    # units, currencies, emphasis, other signs
    ("15 km/h", "15"), (r"8\,\text{m}^3", "8"), ("21 kg·m", "21"), (r"45^\circ", "45"), ("€9.50", "9.5"), ("−£3", "-3"),
    ("**17**", "17"), ("negative 8", "-8"), ("１２", "12"), (r"\left(\frac{5}{6}\right)", "5/6"), ("6 (six)", "6"),
    # equations and remarks
    ("y = 11", "11"), ("11 = y", "11"), ("2 + 9 = 11", "11"), ("14, rather than 15", "14"), ("9 since 3 x 3 = 9", "9"),
    ("9 1", "91"), ("about 6.5 hours", "6.5"),
]  # fmt: skip
NOT_NUMBERS = [
    "3 million", "2 dozen", "2 pi", "7 squared", "5 x", r"5\,n", "1 hour, 30 minutes", "1 000/3",
    r"\sqrt{3}", r"5\sqrt{2}", r"\frac{\pi}{2}", r"3\pi", "n^3", "2^{10}", "4y", "2x + 1", "7!", "3 + 4", "8 - 5",
    "(1, 2)",     "1, 2 and 3", "4 or 9", "3 to 5", "6 cm by 7 cm", "12:45", "2 and a half", "H2O", "x2", "5/0",
    "2 1/0", "",     "seven", "1,23,45", "9" * 3000, r"\text{(C)}",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_a_number_is_read_exactly(text, value):
    assert read_number(text) == Fraction(value)


@pytest.mark.parametrize("text", NOT_NUMBERS, ids=lambda text: text[:12] or "nothing")
def test_a_part_of_an_answer_is_not_its_number(text):
    assert read_number(text) is None


@given(st.fractions(max_denominator=999), st.sampled_from(["{}", "x = {}", "${}$", "the total is {}", r"\boxed{{{}}}"]))
def test_whatever_is_written_is_read_back(value, around):
    assert read_number(around.format(value)) == value


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{:,}", "{}.0", "{} apples", "{}e0"]))
def test_whole_numbers_in_any_form(value, form):
    assert read_number(form.format(value)) == value


@given(st.text(alphabet="0123456789.,/-+^{}\\frac \tpixe$%½", max_size=20))
def test_no_text_raises(text):
    value = read_number(text)
    assert value is None or isinstance(value, Fraction)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>12</answer>", "12"),
        ("I first wrote <answer>3</answer>, then <answer>\\boxed{4}</answer>", "4"),
        ("\\boxed 9.", "9"),
        ("We add.\n#### 18\n", "18"),
        ("My answer is correct. She has 7 left.", "7"),
        ("The answer is wrong? No: the answer is 6.", "6"),
        ("So it is \\frac{3}{4}", "\\frac{3}{4}"),
        ("That makes 5 m^2", "5"),
        ("Exactly 2½", "2½"),
        ("\\boxed{2} or \\boxed{7}", "\\boxed{2} or \\boxed{7}"),
        ("\\boxed{2} and then \\boxed{7}", "7"),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("close", ["</think>", "[/THINK]", "</reasoning>"])
def test_thinking_that_is_never_closed_answers_nothing(close):
    opening = close.replace("/", "")
    assert extract_answer(f"{opening} 6 x 7 is 42? Let me check", close) is None
    assert extract_answer(f"{opening} 6 x 7 is 42.{close} 41, then", close) == "41"
    assert extract_answer("6 x 7 is 42", close) == "42", "without an opening tag all of it is the answer"
    assert after_thinking(f"a{close}b{close}c", close) == "c"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Adding gives 12. #### 1,200", "1,200"),
        ("\\boxed{\\frac{1}{3}}", "\\frac{1}{3}"),
        ("so $\\boxed{x+1}$", "x+1"),
        ("Paris", "Paris"),
        ("####", "####"),
    ],
)
def test_a_known_answer_loses_its_solution(text, answer):
    assert known_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("\\dfrac{1}{2}", "\\frac{1}{2}", True),
        ("(B)", "B", True),
        ("\\text{(C)}", "C", True),
        ("D.", "(D)", True),
        ("$x+1$", "x+1", True),
        ("New York.", "New York", True),
        ("(B)", "C", False),
        ("New York", "York", False),
        ("b", "B", False),
    ],
)
def test_the_same_text_written_otherwise(answer, truth, same):
    assert exact(answer, truth) is same


def test_a_trace_is_graded_after_its_own_closing_tag(tiny_folder):
    model = load_model(tiny_folder("llama", tokenizer="letters"), device="cpu")
    problem = Problem("a", "6 x 7?", "42")
    problems = ProblemSet("mine", "numeric", {"test": (problem,)})
    text = "[THINK]Try \\boxed{7}. No.[/THINK]It is 42."
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    trace = make_trace(model, problems, problem, ids, False, think_close="[/THINK]")
    assert (trace.answer, trace.correct) == ("42", True)
    cut = make_trace(model, problems, problem, ids[:20], True, think_close="[/THINK]")
    assert (cut.answer, cut.correct) == (None, False)
