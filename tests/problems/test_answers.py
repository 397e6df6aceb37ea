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
    ("9 1", "91"), ("about 6.5 hours", "6.5"), ("f(2) = 9", "9"), ("f(x, y) = 9", "9"), ("n_1 = -8", "-8"),
    (r"\frac{1}{4} \approx 0.26", "1/4"), (r"\approx 7", "7"), ("3/8 or 0.375", "3/8"), ("3/8 = 0.375", "3/8"),
    ("8 (not 9)", "8"), ("(8)", "8"), ("[[8]]", "8"), (r"\(8\)", "8"), (r"\mathbf{8}", "8"), ("'8'", "8"),
    ("equal to 8", "8"),
    # signs, fractions
    ("-(3/8)", "-3/8"), ("(-3)/8", "-3/8"), ("3/-8", "-3/8"), (r"-\frac{-3}{8}", "3/8"), (r"\frac{2,500}{3}", "2500/3"),
    (r"\frac{3}8", "3/8"), (r"\frac3{8}", "3/8"), ("3 ÷ 8", "3/8"), ("-2\\dfrac12", "-5/2"), ("2 and a half", "5/2"),
    # separators and digits of other scripts
    ("1.234.567", "1234567"), ("1'234'567", "1234567"), ("7’000", "7000"), ("7_000", "7000"), ("12,34,567", "1234567"),
    ("1 234,5", "1234.5"), ("7.000,00", "7000"), ("٤٢", "42"), ("४२", "42"), ("- 3 7", "-37"), ("3 . 5", "3.5"),
    ("1 , 2 3 4", "1234"),
    # units and currencies
    (r"12\ \text{cm}^{2}", "12"), ("20 °C", "20"), (r"20^{\circ}", "20"), ("US$18", "18"), ("USD 18", "18"),
    ("5¢", "5"),
    ("₹500", "500"), ("Rs. 500", "500"), ("60 mph", "60"), ("5 sq. ft.", "5"), ("5 per hour", "5"),
    ("50 per cent", "50"),
    ("9.8 m s^-2", "9.8"), ("5 of them", "5"), ("5 times", "5"),
    # words
    ("seven", "7"), ("Minus five", "-5"), ("twenty-one", "21"), ("one hundred and five", "105"),
    ("two thousand", "2000"),
    ("three million four hundred thousand", "3400000"), ("twelve hundred", "1200"), ("three-quarters", "3/4"),
    ("one half", "1/2"), ("two and two thirds", "8/3"), ("a dozen", "12"), ("five apples", "5"),
    ("3 million", "3000000"),
    ("$1.5 billion", "1500000000"), ("2 dozen", "24"), ("forty-two (42)", "42"),
]  # fmt: skip
NOT_NUMBERS = [
    "2 pi", "7 squared", "5 x", r"5\,n", "1 hour, 30 minutes", "1 000/3",
    r"\sqrt{3}", r"5\sqrt{2}", r"\frac{\pi}{2}", r"3\pi", "n^3", "2^{10}", "4y", "2x + 1", "7!", "3 + 4", "8 - 5",
    "(1, 2)",     "1, 2 and 3", "4 or 9", "3 to 5", "6 cm by 7 cm", "12:45", "H2O", "x2", "5/0",
    "2 1/0", "",     "1,23,45", "9" * 3000, r"\text{(C)}",
    # several, a point, a set, an interval, a bound
    "{1, 2}", r"\{1,2\}", "(1,2)", "[0, 5)", "1;2", "5, or 6", "5 (6)", "x = 2, y = 3", "x=2,y=3", "x = 2 or x = 3",
    "±5",
    r"\pm 5", "5 ± 2", "x=±5", "1–5", "between 1 and 5", "1 < x", "x ≥ 5", r"x \in [1,2]", "at least 5", "more than 5",
    "up to 5", "at most 5", "5 or more", "not 5", "5+", "5 hours 30 minutes", "18 dollars and 50 cents", "5 ft 3 in",
    "one two",
    # what changes the number, or is none
    "log 5", r"\ln 2", "sin 30", "|5|", "half of 5", "twice 5", "square root of 5", "two times 5", "5 less than x",
    "5 of 6",
    "20% of 50", "5 (mod 7)", "101_2", "0x1F", "3i", "2+3i", "3rd", "5'", "5‰", "3.14...", r"0.\overline{3}", "0.(3)",
    "12 -",
    "12 - 5 =", "5/", "/5", "--4", "1/2/3", "1-1/2", r"\frac{x}{4}", r"3/4\pi", r"\binom{5}{2}", "e^2", "2e",
    "2024-01-05",
    "VIII", "no solution", "∞", "NaN", "unknown", "1.2.3", "4 2 apples", "someone", "none of them",
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
        # the formula around the last number, where that number alone would be a part of it
        ("f(x) = x^2 + 1", "f(x) = x^2 + 1"),
        ("That leaves 5 - 3", "5 - 3"),
        ("y is sin(x) + 1", "sin(x) + 1"),
        ("so 2\\pi.", "2\\pi"),
        ("it makes 5 √2 in all", "5 √2"),
        ("There are 13 million.", "13 million"),
        ("Then 12 - 5 = 7 cards", "7"),
        ("It is 3 or 4.", "3 or 4"),
        ("Answer:\n```\n12\n```", "12"),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "like", "answer"),
    [
        ("So the capital is:\nParis", "Rome", "Paris"),
        ("Paris", "Rome", "Paris"),
        ("The answer is Paris. It lies on the Seine.", "Rome", "Paris"),
        ("Suppose the answer is True. No, the answer is False.", "True", "False"),
        ("The answer is correct. Final answer: blue", "red", "blue"),
        ("The grid:\n1 0\n0 1", "1 1\n1 1", "1 0\n0 1"),
        ("The answer is:\n\n```text\n1 0\n0 1\n```\nas I said", "1 1\n1 1", "1 0\n0 1"),
        ("<answer>\n1 0\n0 1\n</answer>", "1 1\n1 1", "1 0\n0 1"),
        ("The list is [1, 2]", "[4]", "The list is [1, 2]"),
        ("", "Rome", None),
    ],
)
def test_the_answer_of_a_text_that_is_no_number(text, like, answer):
    assert extract_answer(text, like=like) == answer


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("**blue**", "blue"),
        ("The answer is **blue**.", "blue"),
        ("The answer is 'blue'", "blue"),
        ("It must be **blue** then", "blue"),
        ("\\boxed{\\text{blue}}", "blue"),
        ("The answer is: Yes", "Yes"),
        ("The answer is False.", "False"),
        ("Thus $f(x) = x+1$", "f(x)=x+1"),
        ("The answer is (1, 2)", "(1,2)"),
        ("The answer is 1,200 crates", "1200"),
        ("The answer is Foundation", "Foundation"),
        ("Room 12", "Room 12"),
        ("It is in:\nroom one", "room one"),
    ],
)
def test_an_answer_in_words_is_right_however_it_is_set(text, truth):
    problem = Problem("a", "Q?", truth)
    problems = ProblemSet("mine", "exact", {"test": (problem,)})
    assert problems.grade(text, problem).correct
    assert not problems.grade(text, Problem("b", "Q?", truth + "y")).correct


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
        ("(1, 2)", "(1,2)", True),
        ("\\left(1, 2\\right)", "(1,2)", True),
        ("17_{8}", "17_8", True),
        ("1,000", "1000", True),
        ("42 apples", "42", True),
        ("17", "17_8", False),
        ("x = 42 y", "42", False),
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
