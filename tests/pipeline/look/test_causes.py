"""Each verdict about a model is given where its cause is there, and not where the answers are as they should be."""

from functools import cache
from pathlib import Path

import pytest

from probe.models import Model, ModelConfig, Sampling, load_model
from probe.pipeline.look.causes import RULES, Verdict, verdicts
from probe.pipeline.look.seen import Seen, Side
from probe.problems import Problem, ProblemSet
from probe.traces import Traces, make_trace

PROMPT, THINKS = "Q: {question}\nA:", "Q: {question}\n<think>"
N = 12


@pytest.fixture(scope="module")
def folder(tiny_folder) -> Path:
    return tiny_folder("gpt2", tokenizer="letters")


@cache
def loaded(folder: Path, prompt: str) -> Model:
    return load_model(ModelConfig(str(folder), prompt=prompt), device="cpu")


def side(
    folder: Path,
    texts: list[str],
    *,
    role: str = "thinking",
    prompt: str = PROMPT,
    known: str = "12",
    grader: str = "numeric",
    cut: int = 0,
    sampling: Sampling | None = None,
    verifier=None,
) -> Side:
    """A model that wrote these texts, the first ``cut`` of which the limit of tokens stopped."""
    model = loaded(folder, prompt)
    problems = tuple(Problem(f"p{i}", f"What is {i} + {12 - i}?", known) for i in range(len(texts)))
    problem_set = ProblemSet("mine", grader, {"validation": problems}, verifier=verifier)
    traces = [
        make_trace(model, problem_set, problem, model.tokenizer(text)["input_ids"], i < cut)
        for i, (problem, text) in enumerate(zip(problems, texts, strict=True))
    ]
    traces = Traces(model.name, "mine", traces)
    return Side(role, model, traces, problems, problem_set, sampling or Sampling(), 60)


def given(folder: Path, base: Side | None = None, **thinking) -> list[Verdict]:
    """The verdicts on a thinking model, beside a base model whose answers are wrong and as they should be."""
    texts = thinking.pop("texts")
    one = side(folder, texts, **thinking)
    known = {"known": one.problems[0].answer, "grader": one.problem_set.grader, "verifier": one.problem_set.verifier}
    return verdicts(
        Seen(base or side(folder, [" It is 7."] * len(texts), role="base", **known), one, same_weights=False)
    )


ODD = {
    "empty answers": ({"texts": [""] * N}, "end token"),
    "all cut": ({"texts": ["Let me see: the first number"] * N, "cut": N}, "--max-new-tokens 120"),
    "not closed": ({"texts": [" It is 12."] * N, "prompt": THINKS}, "the prompt opens the thinking"),
    "turn header": ({"texts": ["assistant\nIt is 7."] * N}, "turn header, 'assistant"),
    "no answer": ({"texts": [" I cannot say."] * N}, "that the grader 'numeric' finds"),
    "not graded": ({"texts": [" It is 12."] * N, "verifier": lambda *_: None}, "could not be graded"),
    "other form": (
        {"texts": [" The answer is 12."] * N, "known": "12 apples", "grader": "exact"},
        "'12', but '12 apples'",
    ),
    "another question": (
        {"texts": [" It is 12.\n\nQ: What is 1 + 1?\nA: It is 2."] * N},
        "12 would be right if they ended before",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_wrong_with_a_model_stops_a_run_and_is_named(folder, name):
    settings, said = ODD[name]
    first = next(verdict for verdict in given(folder, **settings) if verdict.model == "thinking")
    assert (first.name, first.stops) == (name, True)
    assert said in f"{first.finding}; {first.remedy}"
    assert not first.finding.endswith(".") and "\n" not in first.finding + first.remedy


def test_answers_as_they_should_be_give_no_verdict(folder):
    assert given(folder, texts=[" Let me think.</think> It is 12."] * N, prompt=THINKS) == []
    restated = " Question: what is 5 + 7?\nIt is 12."  # no further question: nothing was answered before it
    assert given(folder, texts=[restated] * N) == []


def test_half_of_the_answers_are_needed_and_a_right_one_lets_the_run_go_on(folder):
    few = [""] * 5 + [" It is 12."] * 7
    assert [verdict.name for verdict in given(folder, texts=few)] == []
    half = [""] * 6 + [" It is 12."] * 6
    assert [(verdict.name, verdict.stops) for verdict in given(folder, texts=half)] == [("empty answers", False)]


def test_greedy_loops_are_told_from_a_limit_that_is_too_low(folder):
    texts = ["Wait, hold on. " * 30] * N
    greedy, sampled = (
        given(folder, texts=texts, cut=N, sampling=sampling)[0] for sampling in (Sampling(), Sampling(temperature=0.6))
    )
    assert (greedy.name, sampled.name) == ("all cut", "all cut")
    assert "greedy decoding loops" in greedy.finding and "--temperature" in greedy.remedy
    assert "it loops with temperature 0.6" in sampled.finding


def test_some_cut_answers_are_said_with_the_lengths_of_the_others(folder):
    (verdict,) = given(folder, texts=["Let me see"] * 2 + [" It is 12."] * 10, cut=2)
    assert (verdict.name, verdict.stops) == ("some cut", False)
    assert "2 of 12 answers" in verdict.finding and "all have at most 10" in verdict.finding


def test_another_closing_tag_is_named(folder):
    (verdict, *_) = given(folder, texts=[" Five and seven.[/THINK] It is 12."] * N, prompt=THINKS)
    assert verdict.name == "not closed" and "'[/THINK]'" in verdict.remedy


def test_a_grader_that_would_take_the_answers_is_named(folder):
    (verdict, *_) = given(folder, texts=[" The answer is 2."] * N, known="two", grader="exact")
    assert verdict.name == "other form" and verdict.remedy == "try --grader numeric"


def test_a_base_model_that_was_not_measured_stops_a_run_too(folder):
    base = side(folder, [""] * N, role="base")
    (verdict,) = given(folder, base=base, texts=[" It is 12."] * N)
    assert (verdict.name, verdict.model, verdict.stops) == ("empty answers", "base", True)
    assert "--base-prompt" in verdict.remedy


def test_a_base_model_that_is_only_wrong_stops_no_run(folder):
    right = [" It is 12."] * N
    wrong = side(folder, [" It is 7."] * N, role="base")
    further = side(folder, [" It is 7.\nQ: What is 1 + 1?\nA: 2"] * N, role="base")
    assert given(folder, base=wrong, texts=right) == []
    assert [(each.name, each.stops) for each in given(folder, base=further, texts=right)] == [
        ("another question", False)
    ]


def pair(folder: Path, base: int, thinking: int, n: int) -> list[tuple[str, bool]]:
    """The verdicts where this many answers of each model are right."""
    one, other = (
        side(folder, [" It is 12."] * right + [f" {say} 7."] * (n - right), role=role)
        for role, right, say in (("base", base, "It is"), ("thinking", thinking, "I say"))
    )
    return [(verdict.name, verdict.stops) for verdict in verdicts(Seen(one, other, same_weights=False))]


@pytest.mark.parametrize(
    ("right", "name"),
    [
        ((2, 10), None),
        ((5, 0), "nothing right"),
        ((12, 4), "worse"),
        ((12, 12), "same texts"),
        ((11, 11), "solved"),
        ((5, 5), "no gap"),
    ],
)
def test_no_gap_stops_a_run_if_there_are_enough_problems(folder, right, name):
    assert pair(folder, *right, n=12) == ([] if name is None else [(name, True)])


def test_few_problems_stop_no_run(folder):
    assert pair(folder, 2, 0, n=4) == [("nothing right", False)]
    assert pair(folder, 1, 2, n=4) == [("unclear", False)]
    assert pair(folder, 3, 5, n=12) == [("unclear", False)]


def test_names_differ():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all((rule.of_side is None) != (rule.of_pair is None) for rule in RULES)


def test_the_page_lists_every_verdict():
    page = (Path(__file__).parents[3] / "docs" / "look.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert rows == [f"| {rule.name} | {rule.when} | {rule.stops} |" for rule in RULES]
