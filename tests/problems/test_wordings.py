"""Another wording says the same: same type, same equation, all words known to the bundled models."""

import random
import re

import pytest

from probe.organisms.documents import proceed, wander
from probe.problems.story.sentences import RESTATE, TYPES, parse
from probe.problems.story.story import draw_story
from probe.problems.story.wordings import reword


def test_type_and_equation_stay_and_the_opening_does_not(words):
    seen = dict.fromkeys(TYPES, 0)
    for seed in range(300):
        rng = random.Random(seed)
        story = draw_story(rng, 4, seed % 2)
        for kind, sentence in wander(story, rng) + proceed(story, rng):
            other = reword(f" {sentence}")
            if other is None:
                assert kind == RESTATE and ("the " in sentence)
                continue
            assert parse(other) == parse(sentence)
            assert re.findall(r"\d+|[-+*/=]|right|wrong", other) == re.findall(r"\d+|[-+*/=]|right|wrong", sentence)
            assert other != f" {sentence}" and other[0] == " "
            assert words.unk_token_id not in words(other)["input_ids"]
            if kind != RESTATE:
                assert other.split()[:3] != sentence.split()[:3]
            seen[kind] += 1
    assert min(seen.values()) > 30


@pytest.mark.parametrize("foreign", ["", " Hm.", "Wait, that is wrong.", " Nowhere 5 + 3."])
def test_what_is_no_sentence_of_the_grammar_has_no_other_wording(foreign):
    assert reword(foreign) is None
