"""What went wrong first, on traces written with a known fault; and stories read back."""

import random

import pytest

from probe.hybrid.effects import classify_errors, first_error
from probe.hybrid.effects.errors import KINDS
from probe.problems import load_problems
from probe.problems.story.reading import read_story
from probe.problems.story.story import Change, Story, draw_story

STORY = Story("Mia", "cards", 22, (Change("+", 9, "finds"), Change("*", 2, "doubles")))
RIGHT = [
    " First, Mia finds 9 more cards.",
    " That makes 22 + 9 = 31.",
    " Is it true that 22 + 9 = 31: right.",
    " Second, Mia doubles the apples.",
    " Now 31 * 2 = 62.",
    " </think> The answer is 62.",
]


def text(*changes):
    """The right trace with some sentences exchanged."""
    return "".join(dict(changes).get(i, sentence) for i, sentence in enumerate(RIGHT))


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (text(), None),
        (text((1, " Roughly, 22 + 9 = 32."), (2, " Check that 22 + 9 = 32: wrong. Again, 22 + 9 = 31.")), None),
        (text((2, " Check that 22 + 9 = 31: wrong. Redo it: 22 + 9 = 31.")), None),
        (text((0, " First, Mia finds 8 more cards."), (1, " That makes 22 + 8 = 30.")), "miscopied change"),
        (text((4, " Now 32 * 2 = 64.")), "miscopied operand"),
        (text((4, " Now 31 * 2 = 63."), (5, " </think> The answer is 63.")), "wrong result"),
        (text((5, " </think> The answer is 31.")), "miscopied answer"),
        (text((0, ""), (1, ""), (2, "")), "skipped or repeated change"),
        (text((3, "")), "computed without restating"),
        (text((1, " Roughly, 22 + 9 = 32.")), "hasty guess left standing"),
        (text((4, " Roughly, 31 * 2 = 64."), (5, " </think> The answer is 64.")), "hasty guess left standing"),
        (text((3, ""), (4, ""), (5, " </think> The answer is 31.")), "concluded too early"),
        (text((5, "")), "did not conclude"),
        (text((2, " Purple.")), "sentence of no kind"),
    ],
)
def test_the_first_fault_that_is_not_put_right_is_found(written, kind):
    assert first_error(STORY, written) == kind
    assert kind is None or kind in KINDS


def test_stories_are_read_back():
    for seed in range(50):
        story = draw_story(random.Random(seed), 5, seed % 2)
        assert read_story(story.question()) == story
    assert read_story("What is 1 + 1?") is None


def test_shares_are_of_wrong_answers_and_other_problems_have_no_grammar():
    story = load_problems("story")
    problems = story.take("test", 3)
    found = classify_errors(story, problems, [" </think> The answer is 1."] * 3, [False, True, None])
    assert (found["n"], found["behaviour"], found["kinds"]) == (1, 1.0, {"concluded too early": 1})
