import time

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from probe.organisms.tokenizer import build_tokenizer
from probe.traces.offsets import starts_in_windows, token_starts

CORPUS = ["So 22 + 9 = 31. Wait, no.\n\nÄpfel und naïve Gäste", "中文字符 中文 中文", "👩‍👩‍👧 👩‍👩‍👧 €uro €"] * 3


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE as of GPT-2, Qwen and Llama 3; merges cross the borders of characters."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS, BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    backend.add_special_tokens(["<think>", "</think>"])
    backend.add_tokens(["▁Grüße dich"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def byte_fallback() -> PreTrainedTokenizerFast:
    """BPE as of Llama 2 and Gemma: spaces as marks, bytes for rare characters, a stripped first space."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator([CORPUS[0].replace(" ", "▁")], BpeTrainer(vocab_size=330, special_tokens=special))
    plain = Tokenizer.from_str(backend.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=plain, clean_up_tokenization_spaces=False)


TOKENIZERS = {"byte-level": byte_level(), "byte-fallback": byte_fallback(), "bundled": build_tokenizer()}


def decode_with(tokenizer: PreTrainedTokenizerFast):
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def by_prefixes(ids: list[int], text: str, decode) -> list[int]:
    """The definition, in quadratic time: what a prefix has given, less the part of it that is not final.

    What was final stays so, though a byte-fallback decoder takes back a whole run of bytes when a broken one follows.
    """
    starts = []
    for i in range(len(ids)):
        prefix = decode(ids[:i])
        shared = 0
        while shared < min(len(prefix), len(text)) and prefix[shared] == text[shared]:
            shared += 1
        starts.append(max(shared, *starts[-1:], 0))
    return starts


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.text(alphabet="aé中👩‍👧 \n€.", max_size=60)))
def test_equal_to_the_definition_on_any_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    decode = decode_with(tokenizer)
    # A replacement character in the text cannot be told from an unfinished one by decoding prefixes.
    ids = tokenizer(text.replace("\N{REPLACEMENT CHARACTER}", ""), add_special_tokens=False)["input_ids"]
    decoded = decode(ids)
    assert token_starts(tokenizer, ids, decoded, decode) == by_prefixes(ids, decoded, decode)
    assert starts_in_windows(ids, decoded, decode) == by_prefixes(ids, decoded, decode)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(data=st.data())
def test_any_ids_even_those_that_are_no_text(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    decode = decode_with(tokenizer)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40))
    text = decode(ids)
    starts = token_starts(tokenizer, ids, text, decode)
    assert len(starts) == len(ids)
    assert starts == sorted(starts)
    assert all(0 <= start <= len(text) for start in starts)
    assert not starts or starts[0] == 0


def test_a_character_of_several_tokens_is_one_character() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    decode = decode_with(tokenizer)
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in ("a", "ð", "Ł", "ĳ", "©", "b")]
    assert decode(ids) == "a👩b"
    assert token_starts(tokenizer, ids, decode(ids), decode) == [0, 1, 1, 1, 1, 2]
    # Cut off in the middle: what is left is one replacement character.
    assert token_starts(tokenizer, ids[:3], decode(ids[:3]), decode) == [0, 1, 1]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_linear_in_the_number_of_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    decode = decode_with(tokenizer)
    seconds = []
    for n in (500, 4000):
        ids = (tokenizer(" Now 2 2 + 9 = 3 1 . é", add_special_tokens=False)["input_ids"] * n)[:n]
        text = decode(ids)
        begin = time.process_time()
        token_starts(tokenizer, ids, text, decode)
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 24 * seconds[0] + 0.05
