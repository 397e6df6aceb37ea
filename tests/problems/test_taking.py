"""What a command takes of a problem set: what is there, splits that are made, and answers that must be known."""

import json
import random

import pytest

from probe.errors import ProbeError
from probe.models import ModelConfig, PairConfig
from probe.pipeline.run.inputs import chosen_problems
from probe.problems import SPLITS, Problem, ProblemSet, load_problems, split_of, take_problems, with_splits

ALL = {"train": 400, "validation": 120, "test": 300}


def made(n=60, splits=("train", "validation", "test"), unknown=(), start=0):
    """A set with n problems in each split; those at some places have no known answer."""
    some = {
        split: tuple(
            Problem(f"{split}{i}", f"What is {split} {start + i}?", None if i in unknown else str(i)) for i in range(n)
        )
        for split in splits
    }
    return ProblemSet("mine", "exact", some)


def test_a_set_with_enough_is_taken_as_it_is_and_nothing_is_said():
    problems = made()
    taken = take_problems(problems, {"train": 60, "test": 2}, graded=("test",))
    assert taken.problem_set is problems and taken.remarks == ()
    assert taken.splits == {"train": problems.take("train"), "test": problems.take("test", 2)}


def test_what_is_there_is_taken_and_said_in_one_line():
    taken = take_problems(made(), ALL)
    assert {split: len(some) for split, some in taken.splits.items()} == dict.fromkeys(SPLITS, 60)
    assert taken.remarks == (
        "mine has only 60 train problems (400 requested) and 60 validation problems (120 requested) and 60 test "
        "problems (300 requested); all of them are used",
    )


@pytest.mark.parametrize("split", SPLITS)
def test_a_single_split_is_divided_by_the_hash_of_the_question(split):
    problems = made(200, [split])
    taken = take_problems(problems, ALL)
    assert {each for some in taken.splits.values() for each in some} == set(problems.take(split))
    assert {name: len(some) / 200 for name, some in taken.splits.items()} == pytest.approx(SPLITS, abs=0.09)
    assert f"mine: has only {split} problems, split 50/20/30 by a hash of the question" in taken.remarks[0]
    same = [each for each in problems.take(split) if split_of(each.question) == split]
    again = with_splits(ProblemSet("mine", "exact", {split: tuple(same)}), SPLITS)
    assert all(len(again.splits[name]) for name in SPLITS), "it was made by that hash"
    # It does not depend on the order of the problems, and other problems move none.
    some = random.Random(0).sample(problems.take(split), 90)
    fewer = with_splits(ProblemSet("mine", "exact", {split: tuple(some)}), SPLITS)
    assert all(set(fewer.splits[name]) <= set(taken.problem_set.splits[name]) for name in SPLITS)
    assert fewer.hash == with_splits(fewer, SPLITS).hash, "what is divided is not divided again"


def test_no_problem_of_a_test_split_beside_others_is_trained_on():
    problems = made(100, ["train", "test"])
    taken = take_problems(problems, ALL)
    assert taken.splits["test"] == problems.take("test")
    learned = [*taken.splits["train"], *taken.splits["validation"]]
    assert set(learned) == set(problems.take("train")) and 10 < len(taken.splits["validation"]) < 35
    assert take_problems(problems, {"train": 100, "test": 100}).problem_set is problems, "nothing is missing"
    for splits in (["validation", "test"], ["train", "validation"]):
        (lacking,) = set(SPLITS) - set(splits)
        with pytest.raises(ProbeError, match=f"mine has no {lacking} problems .*; add some, or"):
            take_problems(made(9, splits), ALL)
    with pytest.raises(ProbeError, match=r"mine has no \w+ problems .*; give more problems, or a 'split' to each"):
        take_problems(made(1, ["test"]), ALL)


def test_where_answers_must_be_known_others_are_left_out_and_counted():
    taken = take_problems(made(10, unknown=(0, 3)), dict.fromkeys(SPLITS, 8), graded=("validation", "test"))
    assert [each.id for each in taken.splits["test"]][:3] == ["test1", "test2", "test4"]
    assert {split: len(some) for split, some in taken.splits.items()} == dict.fromkeys(SPLITS, 8)
    assert taken.remarks == (
        "2 of 8 train problems of mine have no known answer",
        "2 of 10 validation problems of mine have no known answer and are left out",
        "2 of 10 test problems of mine have no known answer and are left out",
    )
    unknown = made(10, unknown=range(10))
    assert len(take_problems(unknown, ALL).splits["test"]) == 10
    with pytest.raises(ProbeError, match="none of the 10 test problems of mine has a known answer, so nothing can be"):
        take_problems(unknown, ALL, graded=("test",))


def test_a_set_that_is_generated_has_as_many_problems_as_are_requested(tmp_path):
    model = ModelConfig("bundled:tiny-base")
    pair = PairConfig("mine", model, model, problems="story")
    assert chosen_problems(None, None, pair, ALL).problem_set.hash == load_problems("story").hash
    more = chosen_problems(None, None, pair, {"train": 1, "validation": 510, "test": 1})
    assert len(more.splits["validation"]) == 510 and more.remarks == ()
    file = tmp_path / "few.jsonl"
    file.write_text("\n".join(json.dumps({"question": f"{i}?", "answer": i}) for i in range(50)))
    taken = chosen_problems(str(file), None, pair, ALL)
    assert sum(map(len, taken.splits.values())) == 50 and len(taken.remarks) == 1
