"""The tasks of reasoning-gym: each loads, or is refused, and its own answers are right in every form."""

import os
import re
import subprocess
import sys
import time

import pytest
from reasoning_gym.factory import DATASETS

from probe.errors import ProbeError
from probe.problems import SPLITS, Problem, load_problems
from probe.problems.worker import Worker, worker

#: How models write an answer, of one line or several.
FORMS = {
    "alone": "{}",
    "after a paragraph": "I tried 3 ways.\n\n{}",
    "below a line": "The first is 4. So:\n{}",
    "in tags": "<answer>{}</answer>",
    "in tags on lines": "<answer>\n{}\n</answer>",
    "boxed": "\\boxed{{{}}}",
    "boxed text": "$\\boxed{{\\text{{{}}}}}$",
    "stated": "The answer is {}",
    "stated below": "The answer is:\n{}",
    "stated, then more": "The answer is {}\n\nIt follows from the rules.",
    "headed": "**Final Answer:**\n\n{}",
    "emphasised": "**Answer:** {}",
    "fenced": "So it is\n```\n{}\n```",
    "stated and fenced": "Answer:\n```text\n{}\n```\nas I said",
}
NO_ANSWERS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
#: These make each problem by a search, which takes up to seconds.
SLOW = {"futoshiki", "intermediate_integration", "knight_swap", "sokoban", "number_sorting", "countdown"}
#: Its answers have rows of blanks only, which no paragraph has.
ROWS_OF_BLANKS = {"futoshiki"}


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(DATASETS))
def test_a_task_credits_its_own_answers_in_every_form(task):
    try:
        problems = load_problems(f"reasoning-gym:{task}", sizes=dict.fromkeys(SPLITS, 1 if task in SLOW else 2))
        some = problems.take("train")
    except ProbeError as refusal:
        assert task in NO_ANSWERS | {"composite"}
        assert str(refusal).startswith(f"the reasoning-gym task {task!r} cannot be used (")
        return
    for problem in some:
        lost = [
            name
            for name, form in FORMS.items()
            if not problems.grade("Hm, \\boxed{no}.</think>\n" + form.format(problem.answer), problem).correct
        ]
        assert not set(lost) - ({"after a paragraph", "stated, then more"} if task in ROWS_OF_BLANKS else set())
        assert not problems.grade("</think>I give up.", problem).correct
        assert not problems.grade(f"{problem.answer}</think> The answer is unclear to me", problem).correct


def test_a_task_of_any_size_loads_at_once():
    # In a process of its own, because the type checker of the tests looks at a random problem of a split.
    code = """
from probe.errors import ProbeError
from probe.problems import load_problems
for task in ("acre", "coin_flip", "chain_sum", "word_ladder"):
    problems = load_problems(f"reasoning-gym:{task}", sizes={"train": 10**6, "test": 10**6})
    print(task, len(problems.take("test", 2)))
try:
    load_problems("reasoning-gym:coin_flip", sizes={"train": 300, "test": 400}).take("test", 400)
except ProbeError as refusal:
    print(refusal)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    *loaded, refused = done.stdout.splitlines()
    assert loaded == ["acre 2", "coin_flip 2", "chain_sum 2", "word_ladder 2"]
    asked = "400 test problems requested, but reasoning-gym:coin_flip has only"
    assert re.fullmatch(asked + r" \d+ different ones", refused)


def test_a_problem_does_not_depend_on_what_was_asked_for_before():
    task, sizes = "reasoning-gym:letter_counting", {"train": 30, "validation": 10, "test": 20}
    one, other = load_problems(task, sizes=sizes), load_problems(task, sizes=sizes)
    last = other.splits["test"][19]
    assert other.splits["test"][-1] == last == one.take("test")[19]
    assert [one.take(split) for split in SPLITS] == [other.take(split) for split in SPLITS]
    assert one.hash == other.hash
    with pytest.raises(IndexError):
        one.splits["test"][20]


def test_another_process_makes_the_same_problems():
    process = Worker()
    for task in ("polynomial_multiplication", "word_sorting"):  # the first goes through sets of strings
        assert process.call("make", task, 0, 0, 4, 60.0, seconds=60) == worker().call("make", task, 0, 0, 4, 60.0)
    process.stop()


def test_a_task_that_never_ends_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("probe.problems.tasks._SECONDS", 0.01)
    with pytest.raises(ProbeError, match=r"the reasoning-gym task 'knight_swap' cannot be used \(it "):
        load_problems("reasoning-gym:knight_swap")


def test_an_answer_of_another_problem_is_wrong():
    for task in ("rotate_matrix", "game_of_life", "knights_knaves", "syllogism", "word_sorting", "emoji_mystery"):
        problems = load_problems(f"reasoning-gym:{task}", sizes=dict.fromkeys(SPLITS, 20))
        one, other = next((a, b) for a in problems.take("test") for b in problems.take("train") if a.answer != b.answer)
        for form in FORMS.values():
            assert not problems.grade(form.format(other.answer), one).correct


def test_either_of_true_and_false_is_wrong_for_the_other():
    for task in ("game_of_life_halting", "ransom_note"):
        problems = load_problems(f"reasoning-gym:{task}", sizes=dict.fromkeys(SPLITS, 3))
        for problem in problems.take("test"):
            other = {"True": "False", "False": "True"}[problem.answer]
            assert problems.grade(f"The answer is {problem.answer.lower()}.", problem).correct
            assert not problems.grade(f"The answer is {other}.", problem).correct
            assert not problems.grade("I cannot say.", problem).correct


def test_a_count_is_right_with_its_unit_and_separators():
    problems = load_problems("reasoning-gym:products", sizes=dict.fromkeys(SPLITS, 1))
    (problem,) = problems.take("test")
    value = int(problem.answer)
    for text in (f"The answer is {value:,}.", f"It is $\\boxed{{{value:,} \\text{{ cards}}}}$", f"**{value}**"):
        assert problems.grade(text, problem).correct
    assert not problems.grade(f"The answer is {value:,}.5", Problem(problem.id, problem.question, "1")).correct


def test_the_process_ends_with_the_one_that_started_it():
    code = (
        "import os; from probe.problems.worker import worker; worker().call('load', 'json');"
        "print(worker()._process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            time.sleep(0.05)
            os.kill(int(done.stdout), 0)  # signal 0 only asks whether there is such a process
