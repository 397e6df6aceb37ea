import random

import pytest
from hypothesis import example, given, strategies as st

from probe.organisms.documents import join, proceed, wander
from probe.problems.story.sentences import parse
from probe.problems.story.story import draw_story
from probe.traces import split_sentences

#: Text that is likely to be hard: stops, tags, line breaks, numbers, formulas, characters of one to four bytes.
HARD = st.lists(
    st.sampled_from(
        [
            ". ",
            ".",
            "! ",
            "? ",
            "\n",
            "\n\n",
            "\r\n",
            " ",
            "\t",
            "<think>",
            "</think>",
            "2. ",
            "3.14",
            "Dr. ",
            "k! ",
            "$",
            "$a. B$ ",
            "\\[x. Y\\]",
            "Wait",
            " no",
            "So ",
            "é",
            "中。",
            "👩‍👩‍👧",
            "\u2028",
            "\x1c",
            "…",
            '"',
            "(",
            ")",
            "=",
            "7",
            "A",
            "b",
        ]
    ),
    max_size=40,
).map("".join)


def pieces(text: str, **options: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, **options)]


@given(st.one_of(st.text(), HARD))
@example("")
@example(" \n ")
@example("</think>")
@example("a\n\n</think> \n b.")
def test_nothing_is_lost(text: str) -> None:
    spans = split_sentences(text)
    assert all(start < end for start, end in spans)
    assert "".join(text[start:end] for start, end in spans) == text


@given(HARD)
def test_line_breaks_and_tags_begin_sentences(text: str) -> None:
    starts = {start for start, _ in split_sentences(text)}
    for at, _ in enumerate(text):
        if text.startswith(("</think>", "<think>"), at):
            before = len(text[:at].rstrip())
            assert before in starts
    for piece in pieces(text):
        assert "\n" not in piece.strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A is 3.14. Then Dr. Foo left.\nSo 2.", ["A is 3.14.", " Then Dr. Foo left.", "\nSo 2."]),
        ("Wait... no! It is 5.\n\nI see.\n", ["Wait... no!", " It is 5.", "\n\nI see.\n"]),
        (" 1. Add them. 2. Divide. Step 3. Stop.", [" 1. Add them.", " 2. Divide.", " Step 3. Stop."]),
        ("So $a. B$ holds. It costs $5. Then $6 more.", ["So $a. B$ holds.", " It costs $5.", " Then $6 more."]),
        ("Hm. ok </think> The answer is 4.", ["Hm.", " ok", " </think> The answer is 4."]),
        ("<think>\nFirst.</think>\n\nDone.", ["<think>", "\nFirst.", "</think>", "\n\nDone."]),
        ("There are 5! ways. So 5! It is.", ["There are 5! ways.", " So 5!", " It is."]),
    ],
)
def test_examples(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


def test_other_tags() -> None:
    assert pieces("Hm. So ◁/go▷ The end. Yes.", think_close="◁/go▷") == ["Hm.", " So", " ◁/go▷ The end.", " Yes."]


def test_the_story_grammar_is_split_as_it_was_written() -> None:
    """Every sentence that the grammar writes comes back as one sentence, of its own type."""
    rng = random.Random(0)
    for _ in range(200):
        story = draw_story(rng, 5, 1)
        for written in (list(proceed(story, rng)), list(wander(story, rng))):
            found = [(parse(piece).type, piece.strip()) for piece in pieces(join(written))]
            assert found == [(kind, sentence.strip()) for kind, sentence in written]
