"""The closing tag in emitted tokens: found wherever the text holds it, however tokens divide it."""

import copy
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models as token_models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from probe.errors import ProbeError
from probe.hybrid import Closing
from probe.hybrid.past import HistoryState
from probe.models import ModelConfig, load_model
from probe.traces import vocabulary_bytes


@pytest.fixture
def writer(tiny_folder):
    """``writer(tokenizer)``: a model with this tokenizer."""
    model = load_model(ModelConfig(str(tiny_folder("llama")), prompt="{question}"), device="cpu")

    def make(tokenizer):
        made = copy.copy(model)
        made.tokenizer = tokenizer
        return made

    return make


def merging(pieces):
    """A byte-level tokenizer that has these tokens beside the single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    said = ["".join(part for part, _ in level.pre_tokenize_str(piece)) for piece in pieces]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*alphabet, *said]))}
    backend = Tokenizer(token_models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer, backend.decoder = level, decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False), dict(
        zip(pieces, (vocab[each] for each in said), strict=True)
    )


def read(close, rows):
    """Where each row ends its first tag, as decoding finds it: token by token."""
    history = HistoryState(len(rows), [close], rows.device)
    items, none = torch.arange(len(rows)), torch.full((len(rows),), -1)
    for count in range(rows.shape[1] + 1):
        last = none if count == 0 else rows[:, count - 1]
        found = history.advance(items, torch.full_like(items, count), last).closed[close]
    return found


def test_a_tag_that_is_merged_with_its_neighbours_is_found(writer):
    tokenizer, ids = merging(["ok", "</", "think", ">", ".</", ">\n", "42", "<", "/"])
    close = Closing.of(writer(tokenizer), "</think>")
    rows = [["ok", "</", "think", ">"], ["ok", ".</", "think", ">\n", "42"], ["</", "think", "ok", ">"]]
    tokens = [[ids[piece] for piece in row] for row in rows]
    padded = torch.tensor([row + [-1] * (5 - len(row)) for row in tokens])
    assert read(close, padded).tolist() == [4, 4, 0]
    assert [close.span(row) for row in tokens] == [(1, 4), (1, 4), None]
    assert read(close, padded[:, :3]).tolist() == [0, 0, 0]
    assert close.begun([ids["</"]]) == {ids["</"], ids[".</"]}


@pytest.mark.parametrize("tag", ["</think>", "ababac", "◁/think▷", "x"])
def test_every_division_of_every_text_is_read_as_the_text(writer, tag):
    chance = random.Random(0)
    cuts = [tag[a:b] for a in range(len(tag)) for b in range(a + 1, len(tag) + 1)]
    tokenizer, ids = merging([*{*cuts, *(f".{cut}" for cut in cuts[:9]), *(f"{cut}\n" for cut in cuts[-9:]), "a"}])
    close, names = Closing.of(writer(tokenizer), tag), sorted(ids)
    found = 0
    for _ in range(300):
        at = sorted(chance.sample(range(1, len(tag)), chance.randint(0, len(tag) - 1)))
        parts = [tag[a:b] for a, b in zip([0, *at], [*at, len(tag)], strict=True)]
        if chance.random() < 0.5:
            parts.pop(chance.randrange(len(parts)))
        row = [*chance.choices(names, k=chance.randint(0, 4)), *parts, *chance.choices(names, k=chance.randint(0, 4))]
        tokens = [ids[part] for part in row]
        text, span = tokenizer.decode(tokens), close.span(tokens)
        assert (span is not None) == (tag in text)
        assert int(read(close, torch.tensor([tokens]))[0]) == (0 if span is None else span[1])
        if span is not None:
            found += 1
            assert tag in tokenizer.decode(tokens[slice(*span)])
            assert tag not in tokenizer.decode(tokens[: span[1] - 1])
            assert tag not in tokenizer.decode(tokens[span[0] + 1 : span[1]])
    assert 50 < found < 300


def test_each_token_has_the_bytes_that_it_adds_to_a_text(words, letters):
    for tokenizer, text in ((words, "It is 42. </think>"), (letters, "héllo </think> ◁")):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        pieces = vocabulary_bytes(tokenizer)
        assert b"".join(pieces[i] for i in ids).decode() == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_an_empty_tag_is_refused(writer, words):
    with pytest.raises(ProbeError, match="set think_close"):
        Closing.of(writer(words), "")
