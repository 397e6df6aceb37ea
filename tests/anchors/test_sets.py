"""Rollouts in the folder structure of math-rollouts are read back as they were written."""

import json
import shutil

import pytest

from probe.anchors import Continuations, RolloutSet, export_rollouts, read_rollouts, rollout_sets, say_the_same
from probe.errors import ProbeError
from probe.models import Sampling, ThinkTags
from probe.problems import Problem, ProblemSet

NUMBERS = ProblemSet("numbers", "numeric", {"test": ()})


@pytest.fixture
def found() -> RolloutSet:
    right = Continuations(0, (" So 4.", " So 4 then."), ("4", "4"), (True, True))
    return RolloutSet(
        Problem("p-1", "What is 2 + 2?", "4"),
        (" 2 + 2 = 4.", " So 4.", " Done."),
        (
            Continuations(0, (" 2 + 2 = 5. So 5.", " Hm."), ("5", None), (False, False)),
            right,
            Continuations(18, ("", " Bye."), ("4", "4"), (True, None)),
        ),
        "Q: <think>\n",
        "4",
        True,
        "org/model",
        think_tags=ThinkTags("[THINK]", "[/THINK]"),
    )


def test_what_is_exported_is_read_back(found, tmp_path):
    out = export_rollouts(found, tmp_path, number=3, sampling=Sampling(0.6, 0.95))
    assert out == tmp_path / "model/temperature_0.6_top_p_0.95/correct_base_solution/problem_3"
    assert rollout_sets(tmp_path) == [out]
    again = read_rollouts(out)
    assert (again.problem, again.sentences, again.prompt, again.answer, again.correct) == (
        found.problem, found.sentences, found.prompt, "4", True,
    )  # fmt: skip
    assert again.think_tags == found.think_tags
    for one, other in zip(found.rollouts, again.rollouts, strict=True):
        assert (one.texts, one.answers, one.correct) == (other.texts, other.answers, other.correct)
    assert again.anchors(NUMBERS, alike=say_the_same) == found.anchors(NUMBERS, alike=say_the_same)
    assert again.anchors(NUMBERS).importance[0] == 1.0
    row = json.loads((out / "chunk_1/solutions.json").read_text())[0]
    assert row["prefix_without_chunk"] == " 2 + 2 = 4." and row["full_cot"] == "Q: <think>\n 2 + 2 = 4. So 4."
    with pytest.raises(ProbeError, match="is there already"):
        export_rollouts(found, tmp_path, number=3, sampling=Sampling(0.6, 0.95))


def test_what_is_half_written_is_no_set_and_an_answer_of_zero_is_one(found, tmp_path):
    out = export_rollouts(found, tmp_path, number=0, sampling=Sampling(1.0))
    shutil.copytree(out, out.with_name("problem_1.partial"))
    (out / "chunk_0/chunk_0").mkdir()
    shutil.copy(out / "chunk_0/solutions.json", out / "chunk_0/chunk_0/solutions.json")
    assert rollout_sets(tmp_path) == [out]
    file = out / "chunk_0/solutions.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([{**rows[0], "answer": 0}, {**rows[1], "answer": ""}]))
    again = read_rollouts(out)
    assert again.rollouts[0].answers == ("0", None)
    assert {each.kept for each in again.rollouts} == {None}, "the tokens are not known"
    with pytest.raises(ProbeError, match="cannot be read"):
        read_rollouts(file)


def test_failed_requests_are_counted_and_missing_sentences_named(found, tmp_path):
    out = export_rollouts(found, tmp_path, number=0, sampling=Sampling(1.0))
    file = out / "chunk_0/solutions.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([*rows, {"chunk_removed": "x", "error": "timeout"}]))
    assert read_rollouts(out).failed == 1
    shutil.rmtree(out / "chunk_1")
    with pytest.raises(ProbeError, match="no rollouts of sentence 1"):
        read_rollouts(out)
    file.write_text("{}")
    with pytest.raises(ProbeError, match="is not a list of rollouts"):
        read_rollouts(out)
    with pytest.raises(ProbeError, match="holds no rollouts"):
        rollout_sets(tmp_path / "nothing")
