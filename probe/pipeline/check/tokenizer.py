"""Checks of a tokenizer: offsets, round trips, special tokens, rows of the embedding, and the chat template."""

import unicodedata
from typing import Any

from probe.errors import NotApplicable
from probe.models import KNOWN_TAGS, Model
from probe.pipeline.check.bench import Bench, judged
from probe.pipeline.check.checks import Check
from probe.pipeline.check.texts import PROBES, unknown_ids
from probe.traces import token_starts

_GROUP = "tokenizer"
_ANSWER = "The capital of France is Paris."
_QUESTION = "What is the capital of France?"


def _known_probes(model: Model) -> list[tuple[str, list[int], list[tuple[int, int]]]]:
    """The probe texts that a tokenizer has tokens for, with their ids and the tokenizer's own offsets."""
    tokenizer: Any = model.tokenizer
    found, unknown = [], unknown_ids(model)
    for text in PROBES:
        read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if read.input_ids and not unknown.intersection(read.input_ids):
            found.append((text, list(read.input_ids), [tuple(pair) for pair in read["offset_mapping"]]))
    return found


def _told(count: int) -> str:
    return f"{count} of {len(PROBES)} probe texts" + (
        "" if count == len(PROBES) else " (the tokenizer has no tokens for the others)"
    )


def offsets(bench: Bench) -> Check:
    """The character offsets of the tokenizer are those that decoding its tokens gives."""
    model = bench.model
    wrong, first, compared, texts = 0, "", 0, 0
    for text, ids, pairs in _known_probes(model):
        decoded = model.decode(ids)
        if _letters(decoded) != _letters(text):  # rewritten, so that characters cannot be compared
            continue
        texts += 1
        starts = token_starts(model.tokenizer, ids, decoded, model.decode)
        own, theirs = _letters_before(decoded), _letters_before(text)
        for at, (start, (begin, end)) in enumerate(zip(starts, pairs, strict=True)):
            compared += 1
            following = starts[at + 1] if at + 1 < len(starts) else len(decoded)
            ends_before = theirs[end] < own[following] if 0 <= end < len(theirs) else True
            in_range = 0 <= begin <= end < len(theirs)
            if not in_range or theirs[begin] != own[start] or ends_before:
                wrong += 1
                first = first or f"token {at} of {text!r} is at {begin} to {end}, and decoding puts it at {start}"
    if not texts:
        raise NotApplicable("the tokenizer has no tokens for the probe texts, or rewrites them")
    return judged(
        _GROUP,
        "token offsets",
        wrong,
        0,
        f"{compared} tokens of {_told(texts)} are where decoding puts them",
        f"{wrong} of {compared} offsets are wrong: {first}; sentence spans of imported texts would be cut wrongly, so "
        "download tokenizer.json again or update transformers",
    )


def _letters(text: str) -> str:
    return "".join(text.split())


def _letters_before(text: str) -> list[int]:
    """For each index of a text, and its end, the number of characters before it that are no white space."""
    counts = [0]
    for char in text:
        counts.append(counts[-1] + (not char.isspace()))
    return counts


def round_trip(bench: Bench) -> Check:
    """Decoding the tokens of a text gives the text."""
    model = bench.model
    known = _known_probes(model)
    if not known:
        raise NotApplicable("the tokenizer has no tokens for the probe texts")
    changed, rewritten = [], []
    for text, ids, _ in known:
        decoded = model.decode(ids)
        if decoded == text or decoded == f" {text}":
            continue
        forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFKC")}
        (rewritten if decoded.removeprefix(" ") in forms else changed).append((text, decoded))
    both = f"; {changed[0][0]!r} becomes {changed[0][1]!r}" if changed else ""
    return judged(
        _GROUP,
        "decode(encode(text)) = text",
        len(changed),
        0,
        f"{_told(len(known))} come back exactly"
        + (f", {len(rewritten)} of them in Unicode's composed form" if rewritten else ""),
        f"{len(changed)} of {len(known)} texts are changed{both}; imported traces would be changed in the same way, so "
        "compare them as the model reads them, or use a tokenizer that keeps text",
    )


def rows(bench: Bench) -> Check:
    """Every token of the tokenizer has a row in the embedding."""
    model = bench.model
    added, vocabulary = set(model.tokenizer.get_added_vocab()), model.tokenizer.get_vocab()
    lacking = sorted((i, piece) for piece, i in vocabulary.items() if i >= model.n_embeddings)
    ordinary = [piece for _, piece in lacking if piece not in added]
    note = f"; the added {lacking[0][1]!r} has none, so texts with it are refused" if lacking else ""
    return judged(
        _GROUP,
        "ids have rows",
        len(ordinary),
        0,
        f"the embedding has {model.n_embeddings} rows for {len(model.tokenizer)} tokens{note}",
        f"{len(ordinary)} tokens have no row in the embedding of {model.n_embeddings} rows, the first is "
        f"{ordinary[0] if ordinary else ''!r}; the tokenizer is another model's, so take the one that belongs to it",
    )


def special(bench: Bench) -> Check:
    """Each special token is one token, and one of them ends a text."""
    model = bench.model
    tokenizer = model.tokenizer
    pieces = [piece for piece in tokenizer.all_special_tokens if piece in tokenizer.get_vocab()]
    split = [piece for piece in pieces if model.encode(piece, start=False) != [tokenizer.convert_tokens_to_ids(piece)]]
    if not model.eos_ids:
        return Check(
            _GROUP,
            "special tokens",
            "failed",
            "no token ends a text, so every answer is decoded to the limit on tokens; set eos_token_id in "
            "generation_config.json",
        )
    ends = ", ".join(repr(model.decode([i])) for i in model.eos_ids)
    return judged(
        _GROUP,
        "special tokens",
        len(split),
        0,
        f"{len(pieces)} special tokens are one token each; {ends} ends a text",
        f"{', '.join(map(repr, split[:4]))} is split into pieces, so the model never sees it in a prompt; mark it as a "
        "special token in tokenizer_config.json",
    )


def thinking(bench: Bench) -> Check:
    """The tags around the thinking are what the tokenizer writes."""
    model = bench.model
    tags = model.think_tags
    vocabulary, template = model.tokenizer.get_vocab(), str(model.tokenizer.chat_template or "")
    named = [tag for tag in (tags.open, tags.close) if tag and (tag in vocabulary or tag in template)]
    if not named and tags in KNOWN_TAGS:
        raise NotApplicable("neither the tokenizer nor its chat template names thinking tags")
    wrong = [tag for tag in named if model.decode(model.encode(tag, start=False)).strip() != tag]
    split = [tag for tag in named if tag in vocabulary and len(model.encode(tag, start=False)) > 1]
    if tags.close not in vocabulary and tags.close not in template:
        return Check(
            _GROUP,
            "thinking tags",
            "failed",
            f"thinking is ended by {tags.close!r}, which neither the tokenizer nor its chat template names; set "
            "think_close to the text that ends the thinking of this model",
        )
    return judged(
        _GROUP,
        "thinking tags",
        len(set(wrong + split)),
        0,
        f"thinking stands between {tags.open!r} and {tags.close!r}",
        f"{', '.join(map(repr, sorted(set(wrong + split))))} is not written as one token; mark it as an added token in "
        "tokenizer.json",
    )


def template(bench: Bench) -> Check:
    """It asks a question, and ends an answer with a token that the model emits and that ends decoding."""
    model, tokenizer = bench.model, bench.model.tokenizer
    name = "chat template"
    if not tokenizer.chat_template:
        raise NotApplicable("the tokenizer has no chat template")
    try:
        before, after = _rendered(tokenizer)
    except Exception as error:  # a template is a program
        why = " ".join(str(error).split()) or type(error).__name__
        return Check(
            _GROUP, name, "failed", f"it cannot be rendered: {why}; repair it, or give --prompt with {{question}}"
        )
    if _QUESTION not in before or _ANSWER not in before:
        return Check(_GROUP, name, "failed", "it leaves out the question or the answer; give --prompt with {question}")
    ids = model.encode(before, start=False)
    end = model.encode(after, start=False)
    if not end:
        return Check(_GROUP, name, "failed", "it writes nothing after an answer, so nothing ends one; repair it")
    asked = model.config.prompt == "chat"
    model.check_ids([ids, end])
    shares = bench.plain(ids)[-1].float().softmax(-1)
    share, likeliest = float(shares[end[0]]), int(shares.argmax())
    said = f"after an answer it writes {after.strip() or after!r}"
    wrong = ""
    if end[0] in special_ids(model) and end[0] not in model.eos_ids:
        wrong = f"{said}, which does not end decoding (eos_token_id in generation_config.json); add its id there"
    elif share < _LEAST:
        wrong = (
            f"{said}, to which the model gives the probability {share:.1g}, and it expects "
            f"{model.decode([likeliest])!r}; the template is another model's, so take the one that belongs to it"
        )
    if wrong and not asked:
        raise NotApplicable(
            f"{wrong.partition(';')[0]}; in a base model this is no fault, and --prompt chat checks it as a chat model"
        )
    return Check(
        _GROUP,
        name,
        "failed" if wrong else "passed",
        wrong or f"{said}, to which the model gives the probability {share:.2f}",
        1 - share,
        1 - _LEAST,
    )


_LEAST = 0.02
"""The least probability of the end of the turn after a complete answer, in a model that was trained on the template."""


def special_ids(model: Model) -> set[int]:
    """The ids of added tokens, such as the marks of turns."""
    return {*model.tokenizer.get_added_vocab().values(), *model.tokenizer.all_special_ids}


def _rendered(tokenizer: Any) -> tuple[str, str]:
    """A question with its answer as the template writes it, up to the end of the answer, and the rest."""
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    whole = str(tokenizer.apply_chat_template(turns, tokenize=False))
    at = whole.rfind(_ANSWER)
    return (whole, "") if at < 0 else (whole[: at + len(_ANSWER)], whole[at + len(_ANSWER) :])
