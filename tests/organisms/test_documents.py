"""The grammar is exact: what is written is read back, and every sentence is true to the state it was written from."""

import random

import pytest
from hypothesis import given, settings, strategies as st

from probe.organisms.documents import join, proceed, wander
from probe.problems.story.sentences import CHECK, COMPUTE, CONCLUDE, REDO, RESTATE, Work, parse, write
from probe.problems.story.story import draw_story
from probe.traces import split_sentences

SEEDS = st.integers(0, 10**9)


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(0, 1), st.booleans())
def test_every_sentence_is_parsed_to_its_type(seed, n_changes, n_shares, ordered):
    rng = random.Random(seed)
    story = draw_story(rng, n_changes, n_shares)
    written = proceed(story, rng) if ordered else wander(story, rng)
    assert [parse(sentence).type for _, sentence in written] == [kind for kind, _ in written]


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_the_splitter_finds_the_sentences_that_were_written(seed):
    rng = random.Random(seed)
    written = wander(draw_story(rng, 5), rng)
    text = join(written)
    assert [text[a:b] for a, b in split_sentences(text)] == [f" {sentence}" for _, sentence in written]


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(0, 1))
def test_well_ordered_documents_reach_the_answer(seed, n_changes, n_shares):
    rng = random.Random(seed)
    story = draw_story(rng, n_changes, n_shares)
    written = proceed(story, rng)
    assert written[-1][1].endswith(f"answer is {story.answer}.")
    assert all(parse(sentence).equation_true is not False for _, sentence in written)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_wandering_is_competent(seed):
    """Verdicts are true, redone steps are right, conclusions state the newest total, computing follows restating."""
    rng = random.Random(seed)
    story = draw_story(rng, 5)
    newest, pending = story.start, False
    for kind, sentence in wander(story, rng):
        parsed = parse(sentence)
        if kind == RESTATE:
            pending = True
        if kind == COMPUTE:
            assert pending
            pending = False
            assert parsed.equation_true or "Roughly" in sentence
        if kind == REDO:
            assert parsed.equation_true
        if kind in (COMPUTE, REDO):
            newest = int(sentence.rstrip(".").split(" = ")[1])
        if kind == CHECK:
            assert sentence.endswith("right.") == parsed.equation_true
        if kind == CONCLUDE:
            assert sentence.endswith(f"answer is {newest}.")


def test_the_base_never_sees_sharing_computed():
    rng = random.Random(0)
    texts = [join(wander(draw_story(rng, 4, 1), rng)) for _ in range(500)]
    assert not any(" / " in text for text in texts)
    assert any("equally" in text for text in texts)


def test_sentences_that_cannot_be_written_are_refused():
    work = Work(draw_story(random.Random(0), 3))
    with pytest.raises(ValueError, match="cannot be written now"):
        write(COMPUTE, work, random.Random(0))


def test_story_totals_follow_the_changes():
    for seed in range(200):
        story = draw_story(random.Random(seed), 5, 1)
        assert len(story.totals) == 6
        assert sum(change.symbol == "/" for change in story.changes) == 1
        assert all(4 <= total <= 99 for total in story.totals[1:])
