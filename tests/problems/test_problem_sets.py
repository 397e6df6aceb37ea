import pytest
from hypothesis import given, strategies as st

from probe.errors import ProbeError
from probe.problems import SPLITS, Problem, ProblemSet, load_problems, split_of
from probe.problems.story.sentences import TYPES
from probe.problems.story.sets import RandomSplit
from probe.problems.story.story import VERBS

SMALL = {"train": 60, "validation": 40, "test": 40}


@pytest.fixture(params=["story", "story-share", "reasoning-gym:chain_sum"])
def problems(request):
    return load_problems(request.param, sizes=SMALL)


def test_splits_do_not_overlap_and_follow_the_hash(problems):
    questions = {split: {each.question for each in problems.take(split)} for split in SPLITS}
    assert {split: len(found) for split, found in questions.items()} == SMALL
    assert all(split_of(question) == split for split, found in questions.items() for question in found)


def test_a_longer_draw_begins_with_the_shorter(problems):
    longer = load_problems(problems.name, sizes={**SMALL, "train": 90, "test": 70})
    for split in SPLITS:
        assert longer.take(split, SMALL[split]) == problems.take(split)


def test_the_same_seed_gives_the_same_set_and_another_seed_another(problems):
    again, other = (load_problems(problems.name, sizes=SMALL, seed=seed) for seed in (0, 1))
    assert again.hash == problems.hash != other.hash
    assert problems.hash != load_problems(problems.name, sizes={**SMALL, "train": 61}).hash


def test_a_problem_does_not_depend_on_the_order_of_asking():
    drawn, again = (RandomSplit("story", 5, "test", 30) for _ in range(2))
    assert [drawn[29], drawn[-3], drawn[3]] == [again[i] for i in (29, 27, 3)]
    assert drawn[:4] == again[:4] == tuple(again[i] for i in range(4))
    assert len(list(drawn)) == 30
    with pytest.raises(IndexError):
        drawn[30]


def test_the_known_answer_is_right_and_a_changed_one_is_not(problems):
    for problem in problems.take("test", 20):
        assert problems.grade(f"Hm, 5.</think> The answer is {problem.answer}.", problem).correct
        wrong = problems.grade(f"{problem.answer}</think> The answer is {int(problem.answer) + 1}.", problem)
        assert (wrong.answer, wrong.correct, wrong.failed) == (str(int(problem.answer) + 1), False, False)
        assert problems.grade(f"{problem.answer} </think> I give up.", problem).answer is None


def test_the_bundled_sets_are_full_and_of_their_kind():
    story, share = load_problems("story"), load_problems("story-share")
    assert [len(story.splits[split]) for split in SPLITS] == [4000, 500, 1000]
    shares = VERBS["/"][0]
    assert not any(shares in each.question for each in story.take("test", 50))
    assert all(shares in each.question for each in share.take("test", 50))
    assert story.sentence_type is not None
    assert story.sentence_type(" First, Mia finds 9 more cards.") in TYPES
    assert story.sentence_type("Hm.") is None


@given(st.lists(st.text(), max_size=50))
def test_every_question_has_one_split_whatever_its_white_space(questions):
    for question in questions:
        assert split_of(question) in SPLITS
        assert split_of(f"\n {question}  ") == split_of(question)


def test_the_split_shares_are_as_said():
    counts = {split: sum(split_of(f"question {i}") == split for i in range(4000)) / 4000 for split in SPLITS}
    assert counts == pytest.approx(SPLITS, abs=0.03)


def test_take_says_how_many_there_are():
    problems = load_problems("story", sizes=SMALL)
    with pytest.raises(ProbeError, match="41 test problems requested, but story has 60 train, 40 validation, 40 test"):
        problems.take("test", 41)
    with pytest.raises(ProbeError, match="no split 'tests'; did you mean 'test'"):
        problems.take("tests")
    with pytest.raises(ProbeError, match="at least 1"):
        problems.take("test", 0)
    with pytest.raises(ProbeError, match="1 train problems requested"):
        ProblemSet("few", "exact", {"test": (Problem("a", "Q?", "1"),)}).take("train")


def test_a_set_that_contradicts_itself_is_refused():
    a, b = Problem("a", "Q?", "1"), Problem("b", "Q?", "1")
    with pytest.raises(ProbeError, match="splits must not overlap"):
        ProblemSet("bad", "exact", {"train": (a,), "test": (b,)})
    with pytest.raises(ProbeError, match="two problems of bad have the id 'a'"):
        ProblemSet("bad", "exact", {"train": (a, a)})
    with pytest.raises(ProbeError, match="unknown split 'dev'"):
        ProblemSet("bad", "exact", {"dev": (a,)})
    with pytest.raises(ProbeError, match=r"'numeric' cannot read 1 of 1 known answers of bad \('a': 'yes'\)"):
        ProblemSet("bad", "numeric", {"test": (Problem("a", "Q?", "yes"),)})


def test_a_set_shows_itself_and_escapes_what_it_shows():
    problems = ProblemSet("a<b", "exact", {"test": (Problem("a", "Is 1 < 2?", "yes"),)}, note="by hand")
    assert repr(problems) == "ProblemSet('a<b': 0 train, 0 validation, 1 test; graded by exact; by hand)"
    assert len(problems) == 1
    assert "Is 1 &lt; 2?" in problems._repr_html_() and "a<b" not in problems._repr_html_()


def test_an_answer_that_a_verifier_cannot_read_is_wrong():
    problems = load_problems("reasoning-gym:prime_factorization", sizes={"train": 2, "validation": 2, "test": 2})
    problem = problems.take("test")[0]
    assert problems.grade(f"The answer is {problem.answer}.", problem).correct
    grade = problems.grade("The answer is garbage.", problem)
    assert not grade.correct


def test_a_verifier_of_your_own_grades_in_place_of_the_grader():
    verdicts = {"1": True, "2": False, "3": None}
    problem = Problem("a", "Q?", "1")
    problems = ProblemSet("mine", "own", {"test": (problem,)}, verifier=lambda answer, _: verdicts[answer])
    grades = [problems.grade(f"The answer is {answer}.", problem) for answer in verdicts]
    assert [(grade.correct, grade.failed) for grade in grades] == [(True, False), (False, False), (False, True)]
    with pytest.raises(KeyError):  # a mistake in it is not hidden
        problems.grade("The answer is 4.", problem)


def test_a_task_with_several_right_answers_accepts_each_and_no_partial_credit():
    problems = load_problems("reasoning-gym:countdown", sizes={"train": 1, "validation": 1, "test": 1})
    problem = problems.take("test")[0]
    assert problems.grade(f"The answer is ({problem.answer}).", problem).correct
    assert not problems.grade(f"The answer is maybe {problem.answer}.", problem).correct


def test_a_task_of_few_questions_fills_its_splits_in_part():
    problems = load_problems("reasoning-gym:coin_flip", sizes={"train": 5, "validation": 5, "test": 5})
    assert len(problems) == 15


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("reasoning-gym:chain_sun", "unknown reasoning-gym task 'chain_sun'; did you mean 'chain_sum'"),
        ("reasoning-gym:propositional_logic", "has no known answers"),
        ("storys", "unknown problem set 'storys'; did you mean 'story'"),
        ("gone.jsonl", "the problem file gone.jsonl does not exist"),
        (".", "cannot be read as a problem file"),
    ],
)
def test_an_unknown_set_is_refused_by_name(spec, message):
    with pytest.raises(ProbeError, match=message):
        load_problems(spec)


def test_sizes_of_unknown_splits_are_refused():
    with pytest.raises(ProbeError, match="unknown split 'tests' in sizes"):
        load_problems("story", sizes={"tests": 3})
