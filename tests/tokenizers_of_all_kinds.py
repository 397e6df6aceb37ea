"""A small fast tokenizer of every kind of decoder, each of which can write ``TEXT`` or most of it."""

from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer, WordLevelTrainer, WordPieceTrainer
from transformers import PreTrainedTokenizerFast

TEXT = "The answer is 42. Wait, I did n't 🙂 naïve cafe\u0301 是的。 Is it 7 ?\n\nYes.</think> So 👩\u200d👩\u200d👧."
CORPUS = ["So 22 + 9 = 31. Wait, no.\n\nThe answer is 7 , it did n't.", "naïve Gäste 是的 🙂 cafe\u0301", TEXT] * 3
SPECIAL = ["<pad>", "<eos>", "<unk>"]


def _wrapped(backend: Tokenizer, clean: bool = False) -> PreTrainedTokenizerFast:
    # Written and read again, as a tokenizer from a folder.
    backend = Tokenizer.from_str(backend.to_str())
    backend.add_tokens([AddedToken("</think>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=clean,
        padding_side="left",
    )


def byte_level() -> PreTrainedTokenizerFast:
    """As of GPT-2, Qwen and Llama 3."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=SPECIAL))
    return _wrapped(backend)


def byte_level_prefixed() -> PreTrainedTokenizerFast:
    """As of RoBERTa: a space is put before the text, and stays."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def _with_bytes() -> Tokenizer:
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    # Merges stay within words.
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.train_from_iterator([CORPUS[0].replace(" ", "▁")], BpeTrainer(vocab_size=330, special_tokens=special))
    return backend


def byte_fallback() -> PreTrainedTokenizerFast:
    """As of Llama 2 and TinyLlama: a space before the text, which the decoder strips; bytes for rare characters."""
    backend = _with_bytes()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    return _wrapped(backend)


def byte_fallback_plain() -> PreTrainedTokenizerFast:
    """As of Gemma: no space before the text."""
    backend = _with_bytes()
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _wrapped(backend)


def _metaspace(scheme: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    backend.train_from_iterator(CORPUS, BpeTrainer(vocab_size=200, special_tokens=SPECIAL))
    return _wrapped(backend)


def metaspace_always() -> PreTrainedTokenizerFast:
    """As of T5 and of converted SentencePiece models."""
    return _metaspace("always")


def metaspace_first() -> PreTrainedTokenizerFast:
    """As of Llama in transformers 5."""
    return _metaspace("first")


def metaspace_never() -> PreTrainedTokenizerFast:
    """SentencePiece without a space before the text."""
    return _metaspace("never")


def suffixes() -> PreTrainedTokenizerFast:
    """As of GPT and CLIP: a mark ends each word."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    backend.train_from_iterator(CORPUS, BpeTrainer(vocab_size=200, special_tokens=SPECIAL, end_of_word_suffix="</w>"))
    return _wrapped(backend)


def words() -> PreTrainedTokenizerFast:
    """Whole words without a decoder: a space stands between all tokens."""
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(CORPUS, WordLevelTrainer(special_tokens=SPECIAL))
    return _wrapped(backend)


def words_cleaned() -> PreTrainedTokenizerFast:
    """The same with ``clean_up_tokenization_spaces``, which takes spaces before punctuation away when decoding."""
    return _wrapped(words().backend_tokenizer, clean=True)


def word_pieces() -> PreTrainedTokenizerFast:
    """As of BERT, whose decoder cleans up too."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=True)
    backend.train_from_iterator(CORPUS, WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL))
    return _wrapped(backend, clean=True)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    make.__name__: make
    for make in (
        byte_level,
        byte_level_prefixed,
        byte_fallback,
        byte_fallback_plain,
        metaspace_always,
        metaspace_first,
        metaspace_never,
        suffixes,
        words,
        words_cleaned,
        word_pieces,
    )
}
