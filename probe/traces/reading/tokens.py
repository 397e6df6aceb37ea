"""The text of a rollout as tokens of a model: the stored ids, or the text encoded so that it decodes exactly."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probe.errors import ProbeError
from probe.models import KNOWN_TAGS, Model, ThinkTags
from probe.traces.pieces import encode_exactly
from probe.traces.reading.raw import Raw, Reject

_CONTEXT = 16
"""The number of tokens at the end of a prompt that the encoding of the following text may depend on."""
_MARKS = ThinkTags("<|begin_of_thought|>", "<|end_of_thought|>")
_SOLUTION = re.compile(r"<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|\Z)", re.DOTALL)
_ENDS = ("<｜end▁of▁sentence｜>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|return|>")
"""End tokens of known models. A text of another model may end with one."""


@dataclass(frozen=True)
class Written:
    """The text of a rollout, as tokens of a model."""

    prompt: str
    """The text of the prompt."""
    tokens: tuple[int, ...]
    """The ids, without the end token."""
    truncated: bool
    """Whether a limit on tokens stopped the rollout."""
    tags: ThinkTags
    """The tags around the thinking."""
    remarks: tuple[str, ...] = ()
    """What was changed, for the summary."""


def written(model: Model, raw: Raw) -> Written:
    """Turn a rollout into the tokens that a model reads.

    Args:
        model: the model.
        raw: a rollout with its question.

    Raises:
        Reject: if there is no text, or no tokens of the model decode to exactly this text.
    """
    prompt, remarks = _prompt(model, raw)
    before = model.encode_prompt(prompt)
    if not before:
        raise Reject("its prompt has no token")
    texts = _texts(model, raw, prompt)
    stored, ended = _stored(model, raw, texts)
    if stored is not None:
        text, tokens = model.decode(stored), stored
    else:
        if not texts:
            raise Reject("it has no text" if raw.tokens is None else "the model does not have its token ids")
        text, tokens = "", None
        for number, each in enumerate(texts):
            text, finished = _without_end(model, each)
            ended = ended or finished
            tokens = encode_exactly(before[-_CONTEXT:], text, model.decode, model.tokenizer)
            if tokens is not None:
                remarks += ["white space was put around the tags"] if number < len(texts) - 1 else []
                break
        if tokens is None:
            raise Reject("no tokens of the model decode to exactly this text")
        if raw.tokens is not None:
            remarks.append("its token ids belong to another tokenizer, so its text was encoded")
    if not tokens:
        raise Reject("its text is empty")
    tags = raw.think_tags or _tags(model.think_tags, text)
    truncated = raw.truncated
    if truncated is None:
        # The record does not say how the rollout ended. Thinking that was opened and never closed was truncated.
        opened = tags.opened_by(prompt) or bool(tags.open and tags.open in text)
        truncated = not ended and opened and tags.end(text) is None
    return Written(prompt, tuple(tokens), truncated, tags, tuple(remarks))


def _prompt(model: Model, raw: Raw) -> tuple[str, list[str]]:
    """The text of the prompt, and remarks on what was changed."""
    remarks = [raw.remark] if raw.remark else []
    if raw.prompt is None:
        try:
            return model.prompt_text(raw.question or ""), remarks
        except ProbeError as error:
            raise Reject(str(error)) from None
    prompt = raw.prompt
    if raw.prompt_tokens is not None:
        ids = list(raw.prompt_tokens)
        try:
            whole = model.decode(ids)
        except ProbeError:
            return prompt, [*remarks, "the ids of its prompt belong to another tokenizer, so its text was encoded"]
        # Find the text that the model encodes as these ids, with or without the start token.
        start = model.decode(model.start_ids)
        for text in dict.fromkeys((prompt, whole, whole.removeprefix(start))):
            if model.encode_prompt(text) == ids:
                return text, remarks
        remarks.append("the encoding of its prompt differs from its ids")
    return prompt, remarks


def _texts(model: Model, raw: Raw, prompt: str) -> list[str]:
    """The possible texts of a record, the likeliest first; none if it has only ids."""
    tags = model.think_tags
    thinking, content = raw.thinking, raw.content
    if thinking is None and raw.text is not None:
        marked = None if tags == _MARKS else _marked(raw.text)
        if marked is None:
            return [_opened_once(raw.text, tags, prompt)]
        thinking, content = marked
    if thinking is None:
        return []
    if tags.open:
        thinking = thinking.strip().removeprefix(tags.open) if thinking.lstrip().startswith(tags.open) else thinking
    thinking = thinking.removesuffix(tags.close) if tags.close else thinking
    head = "" if tags.opened_by(prompt) else tags.open
    tail = "" if not content else f"{tags.close}{content}"
    plain = f"{head}{thinking}{tail}"
    if thinking != thinking.strip() or (content or "") != (content or "").strip() or tags.open != ThinkTags().open:
        return [plain]
    # Both parts were stripped, so the white space around the tags is lost; models of this kind write line ends there.
    first = "" if not head and prompt.endswith("\n") else "\n"
    spaced = f"{head}{first}{thinking}" + (f"\n{tags.close}\n\n{content}" if content else "")
    return [spaced, plain]


def _marked(text: str) -> tuple[str, str | None] | None:
    """The thinking and the answer of a text with the markers of OpenThoughts; None if it has no markers."""
    _, opened, rest = text.partition(_MARKS.open)
    if not opened:
        return None
    thinking, closed, answer = rest.partition(_MARKS.close)
    if not closed:
        return thinking.strip("\n"), None
    found = _SOLUTION.search(answer)
    return thinking.strip("\n"), (found[1] if found else answer).strip("\n")


def _opened_once(text: str, tags: ThinkTags, prompt: str) -> str:
    """The text without its opening tag, if the prompt already has it."""
    if not tags.opened_by(prompt):
        return text
    tail = prompt[prompt.rindex(tags.open) :]
    begun = text.lstrip()
    return next((begun.removeprefix(each) for each in (tail, tags.open) if begun.startswith(each)), text)


def _stored(model: Model, raw: Raw, texts: Sequence[str]) -> tuple[list[int] | None, bool]:
    """The stored ids without end tokens, if the model's tokenizer wrote them; and whether there was an end token."""
    if raw.tokens is None:
        return None, False
    tokens = list(raw.tokens)
    ends = {*model.eos_ids, *([model.pad_id] if model.eos_ids else [])}
    ended = bool(tokens) and tokens[-1] in ends
    while tokens and tokens[-1] in ends:
        tokens.pop()
    try:
        said = model.decode(tokens)
    except ProbeError:
        return None, ended
    if raw.text is None and raw.thinking is None:
        return tokens, ended
    # Servers remove special tokens, such as </think>, and white space from the text, but not from the ids.
    meant = {_core(model, text) for text in (*texts, raw.text or "")}
    return (tokens if _core(model, said) in meant else None), ended


def _core(model: Model, text: str) -> str:
    """A text without white space, think tags and special tokens."""
    text = model.think_tags.pattern.sub("", text)
    for token in model.tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return "".join(text.split())


def _without_end(model: Model, text: str) -> tuple[str, bool]:
    """A text without the end tokens at its end, and whether it had any."""
    ends = [*(model.decode([token]) for token in model.eos_ids), *_ENDS]
    ended = False
    while end := next((each for each in ends if each.strip() and text.endswith(each)), None):
        text, ended = text.removesuffix(end), True
    return text, ended


def _tags(own: ThinkTags, text: str) -> ThinkTags:
    """The tags around the thinking: the model's own, or those of another known model if the text has them."""
    if (own.close and own.close in text) or (own.open and own.open in text):
        return own
    others = (tags for tags in KNOWN_TAGS if tags != own and tags.open in text and tags.close in text)
    return next(others, own)
