"""What tokens say, over tokenizers of every kind of decoder."""

import random

import pytest
from tokenizers_of_all_kinds import KINDS, TEXT

from probe.traces import TextStream, encode_after, encode_exactly, text_after, texts_after, token_name, token_texts
from probe.traces.offsets import agree

PLAIN = TEXT.replace("</think>", "")


@pytest.fixture(params=KINDS, scope="module")
def tokenizer(request: pytest.FixtureRequest):
    return KINDS[request.param]()


@pytest.fixture(scope="module")
def decode(tokenizer):
    """As ``Model.decode``."""
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def encoded(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("cleaned", [False, True])
def test_joined_they_are_the_text(tokenizer, decode, cleaned: bool) -> None:
    """By the tokenizer and by decoding alone; also where a decoder cleans up, which changes the text."""
    ids = encoded(tokenizer, TEXT)
    said = tokenizer.decode if cleaned else decode
    for texts in (token_texts(ids, said, tokenizer), token_texts(ids, said)):
        assert "".join(texts) == said(ids)
        assert len(texts) == len(ids)
        assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts), "no part of a character is shown"


def test_joined_they_are_the_text_of_any_ids(tokenizer, decode) -> None:
    rng = random.Random(0)
    for _ in range(60):
        ids = [rng.randrange(len(tokenizer) + 3) for _ in range(rng.randrange(14))]  # three that it lacks
        assert "".join(token_texts(ids, decode, tokenizer)) == decode(ids)
        assert "".join(token_texts(ids, decode)) == decode(ids)


def test_words_keep_their_spaces(tokenizer, decode) -> None:
    ids = encoded(tokenizer, "The answer is 7")
    texts = token_texts(ids, decode, tokenizer)
    names = [token_name(token, decode, tokenizer) for token in ids]
    assert "".join(names).lstrip() == "".join(texts).lstrip() == "The answer is 7"
    assert texts[1:] == names[1:], "within a text a token says the same everywhere"


def test_every_token_has_a_name_that_can_be_read(tokenizer, decode) -> None:
    for token in range(len(tokenizer)):
        assert "\N{REPLACEMENT CHARACTER}" not in token_name(token, decode, tokenizer)
        assert "\N{REPLACEMENT CHARACTER}" not in token_name(token, decode)


def test_a_stream_says_whole_characters(tokenizer, decode) -> None:
    ids = encoded(tokenizer, TEXT)
    stream = TextStream(decode)
    given = [stream.add(token) for token in ids]
    assert "".join(given) + stream.rest() == decode(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in given)
    assert stream.rest() == ""


def test_a_stream_that_stops_within_a_character() -> None:
    tokenizer = KINDS["byte_level"]()
    ids = encoded(tokenizer, "So 🤔")
    stream = TextStream(tokenizer.decode)
    given = "".join(stream.add(token) for token in ids[:-1])
    assert given.strip() == "So"
    assert given + stream.rest() == tokenizer.decode(ids[:-1])


def test_a_text_goes_on_after_any_token(tokenizer, decode) -> None:
    """What follows is encoded as it stands there, without a second space and with its own."""
    ids = encoded(tokenizer, PLAIN)
    whole = decode(ids)
    for place in range(len(ids) + 1):
        head = decode(ids[:place])
        if not whole.startswith(head):
            continue  # within a character
        text = text_after(ids[:place], ids[place:], decode)
        assert head + text == whole
        found = encode_exactly(ids[:place], text, decode, tokenizer)
        assert found is not None, (head, text)
        assert decode([*ids[:place], *found]) == whole


def test_texts_after_a_long_one_are_those_of_the_whole_text(tokenizer, decode) -> None:
    """Few of the tokens before them are decoded with them, which may begin within a character."""
    ids = encoded(tokenizer, TEXT)
    long = ids * (1 + 150 // len(ids))
    for place in range(len(long) - len(ids), len(long) + 1):
        before, tails = long[:place], [long[place:], ids[1:], []]
        for tail, (whole, added) in zip(tails, texts_after(before, tails, decode), strict=True):
            assert whole == decode([*before, *tail])
            assert added == whole[agree(decode(before), whole) :]


def test_what_a_tokenizer_cannot_write_is_said() -> None:
    tokenizer = KINDS["words"]()
    assert encode_exactly([], "Xylophone", tokenizer.decode, tokenizer) is None
    assert encode_after([], "Xylophone", tokenizer.decode, tokenizer) == [tokenizer.unk_token_id]
    assert encode_exactly([], "", tokenizer.decode, tokenizer) == []
