"""Records with one or several rollouts under common column names, or under the names in a column map."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from probe.config import nearest
from probe.errors import ProbeError
from probe.traces.reading.raw import Raw, Record, Reject, Shape, cut, first_of, ids_of, name_of, number_of, text_of

QUESTION = ("question", "problem", "query", "instruction", "question_text", "input")
GOLD = ("answer", "gold", "gold_answer", "ground_truth", "gt_answer", "reference_answer", "expected_answer", "target")
_GOLD = (*GOLD, "final_answer", "solution", "ground_truth_solution")
_PROMPT = ("prompt", "raw_prompt", "prompt_text")
_TEXT = ("completion", "response", "generation", "output", "generated_text", "model_output", "rollout", "text")
_MANY = ("completions", "responses", "generations", "outputs", "generated_texts", "rollouts", "samples")
_THINKING = ("reasoning", "reasoning_content", "thinking")
_CONTENT = ("content", "final")
_TOKENS = ("completion_ids", "token_ids", "output_ids", "output_token_ids", "response_ids", "completion_token_ids")
_PROMPT_TOKENS = ("prompt_token_ids", "prompt_ids", "input_token_ids")
_ID = ("problem_id", "question_id", "unique_id", "custom_id", "id", "uuid")
_AUTHOR = ("model", "generator", "model_name", "author")
_SAMPLE = ("sample", "sample_id", "sample_index", "sample_idx")
_FINISH = ("finish_reason", "stop_reason")


def facts_of(record: Record) -> Raw:
    """What a record says besides the rollout, under common names: the question, the known answer, the author."""
    gold_key, gold = first_of(record, _GOLD)
    question_key, question = first_of(record, QUESTION)
    split = record.get("split")
    return Raw(
        question=text_of(question, question_key),
        gold=text_of(gold, gold_key) if not isinstance(gold, list | dict) else None,
        author=name_of(first_of(record, _AUTHOR)[1]),
        problem_id=name_of(first_of(record, _ID)[1]),
        sample=number_of(first_of(record, _SAMPLE)[1]),
        split=split if split in ("train", "validation", "test") else None,
    )


def _fits(record: Record) -> bool:
    return any(record.get(key) is not None for key in (*_TEXT, *_MANY, *_THINKING, *_TOKENS))


def _read(record: Record) -> Iterator[Raw]:
    facts = facts_of(record)
    prompt_key, prompt = first_of(record, _PROMPT)
    if isinstance(prompt, list):
        raise Reject(f"{prompt_key!r} is a list of messages without a reply; give the reply in 'messages' too")
    prompt_tokens = first_of(record, _PROMPT_TOKENS)
    facts = replace(facts, prompt=text_of(prompt, prompt_key), prompt_tokens=ids_of(prompt_tokens[1], prompt_tokens[0]))
    many_key, many = first_of(record, _MANY)
    if isinstance(many, list) and first_of(record, _TEXT)[1] is None:
        for number, each in enumerate(many):
            yield replace(facts, text=text_of(each, f"{many_key}[{number}]"), sample=number)
        return
    (text_key, text), (thinking_key, thinking) = first_of(record, _TEXT), first_of(record, _THINKING)
    tokens_key, tokens = first_of(record, _TOKENS)
    one = replace(
        facts,
        tokens=ids_of(tokens, tokens_key),
        truncated=cut(first_of(record, _FINISH)[1]) if facts.truncated is None else facts.truncated,
    )
    if thinking is None:
        yield replace(one, text=text_of(text, text_key))
        return
    content_key, content = first_of(record, (*_CONTENT, *_TEXT))
    yield replace(one, thinking=text_of(thinking, thinking_key), content=text_of(content, content_key))


PLAIN = Shape("prompt and completion", _fits, _read)

COLUMNS = ("question", "prompt", "text", "thinking", "content", "tokens", "prompt_tokens", "answer", "id", "sample")
COLUMNS += ("author", "finish_reason", "split")
"""The parts that a column map may name."""


def mapped(columns: Mapping[str, str]) -> Shape:
    """The shape of records whose columns a map names.

    Args:
        columns: for each part of a rollout (see :data:`COLUMNS`), the column that has it; a path such as
            ``outputs.0.text`` reaches into objects and lists.

    Raises:
        ProbeError: for an unknown part, or if the map names no text, thinking or tokens.
    """
    for part in columns:
        if part not in COLUMNS:
            raise ProbeError(f"unknown part {part!r} in the column map; {nearest(part, COLUMNS)}")
    if not {"text", "thinking", "tokens"} & set(columns):
        raise ProbeError("the column map names no text: give text=COLUMN, thinking=COLUMN or tokens=COLUMN")

    def get(record: Record, part: str) -> Any:
        value: Any = record
        for key in columns[part].split(".") if part in columns else [""]:
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def fits(record: Record) -> bool:
        return any(get(record, part) is not None for part in ("text", "thinking", "tokens"))

    def read(record: Record) -> Iterator[Raw]:
        if not fits(record):
            raise Reject(
                f"it has nothing under {columns.get('text') or columns.get('thinking') or columns['tokens']!r}"
            )
        texts = {
            part: text_of(get(record, part), columns.get(part, part))
            for part in ("question", "prompt", "thinking", "content", "answer")
        }
        raw = Raw(
            question=texts["question"],
            prompt=texts["prompt"],
            thinking=texts["thinking"],
            content=texts["content"],
            gold=texts["answer"],
            tokens=ids_of(get(record, "tokens"), columns.get("tokens", "")),
            prompt_tokens=ids_of(get(record, "prompt_tokens"), columns.get("prompt_tokens", "")),
            problem_id=name_of(get(record, "id")),
            sample=number_of(get(record, "sample")),
            author=name_of(get(record, "author")),
            truncated=cut(get(record, "finish_reason")),
            split=name_of(get(record, "split")),
        )
        text = get(record, "text")
        if isinstance(text, list) and all(isinstance(each, str) for each in text):
            for number, each in enumerate(text):
                yield replace(raw, text=each, sample=number)
            return
        yield replace(raw, text=text_of(text, columns.get("text", "text")))

    return Shape("columns " + ", ".join(f"{part}={column}" for part, column in columns.items()), fits, read)
