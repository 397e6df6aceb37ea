"""Records of published sets of traces: OpenThoughts, s1K, OpenR1-Math and math-rollouts."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from probe.traces.reading.plain import facts_of
from probe.traces.reading.raw import Raw, Record, Reject, Shape, cut, name_of, text_of

R1 = "deepseek-ai/DeepSeek-R1"


def _is_openthoughts(record: Record) -> bool:
    return _has(record, "deepseek_reasoning", "deepseek_solution")


def _openthoughts(record: Record) -> Iterator[Raw]:
    yield replace(
        facts_of(record),
        thinking=text_of(record["deepseek_reasoning"], "deepseek_reasoning"),
        content=text_of(record["deepseek_solution"], "deepseek_solution"),
    )


_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant", "model")


def _is_shared(record: Record) -> bool:
    turns = record.get("conversations")
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, Mapping) and "from" in turn and "value" in turn for turn in turns)
    )


def _shared(record: Record) -> Iterator[Raw]:
    turns = [turn for turn in record["conversations"] if turn["from"] != "system"]
    if [turn["from"] in _HUMAN for turn in turns] != [True, False] or turns[1]["from"] not in _MODEL:
        raise Reject("the conversation has several turns; only a question and its answer can be imported")
    system = record.get("system") or any(turn["from"] == "system" for turn in record["conversations"])
    facts = facts_of(record)
    yield replace(
        facts,
        question=text_of(turns[0]["value"], "value") if facts.question is None else facts.question,
        text=text_of(turns[1]["value"], "value"),
        remark="a system turn that is not in the model's own prompt" if system else None,
    )


def _is_s1(record: Record) -> bool:
    return _has(record, "question", "thinking_trajectories", "attempt")


def _s1(record: Record) -> Iterator[Raw]:
    facts = facts_of(record)
    for number, each in enumerate(record["thinking_trajectories"] or ()):
        text = text_of(each, "thinking_trajectories")
        yield replace(facts, thinking=text, content=text_of(record["attempt"], "attempt"), sample=number)


def _is_s1_1(record: Record) -> bool:
    return _has(record, "deepseek_thinking_trajectory", "deepseek_attempt")


def _s1_1(record: Record) -> Iterator[Raw]:
    yield replace(
        facts_of(record),
        thinking=text_of(record["deepseek_thinking_trajectory"], "deepseek_thinking_trajectory"),
        content=text_of(record["deepseek_attempt"], "deepseek_attempt"),
    )


def _is_openr1(record: Record) -> bool:
    return _has(record, "problem", "generations") and isinstance(record["generations"], list)


def _openr1(record: Record) -> Iterator[Raw]:
    facts = facts_of(record)

    def of(key: str, number: int) -> Any:
        values = record.get(key)
        return values[number] if isinstance(values, list) and number < len(values) else None

    for number, each in enumerate(record["generations"]):
        said = of("correctness_math_verify", number)
        complete = of("is_reasoning_complete", number)
        truncated = cut(of("finish_reasons", number))
        yield replace(
            facts,
            text=text_of(each, f"generations[{number}]"),
            sample=number,
            correct=said if isinstance(said, bool) else None,
            truncated=(not complete if isinstance(complete, bool) else None) if truncated is None else truncated,
        )


_ASKED = re.compile(r"Problem: (.*?) Solution:\s*(?:<think>\s*)?\Z", re.DOTALL)
"""How the prompts of math-rollouts end."""


def _is_rollout(record: Record) -> bool:
    return _has(record, "prompt", "solution", "full_cot") or _has(record, "rollout", "full_cot") or _is_file(record)


def _is_file(record: Record) -> bool:
    """Whether a record is a file of math-rollouts, in the form that the hub lists them."""
    return isinstance(record.get("path"), str) and isinstance(record.get("content"), str)


def _rollout(record: Record) -> Iterator[Raw]:
    if _is_file(record) and "full_cot" not in record:
        if not record["path"].endswith("base_solution.json"):
            return
        try:
            inside = json.loads(record["content"])
        except ValueError:
            raise Reject(f"{record['path']} is not JSON") from None
        record = {**inside, "path": record["path"]}
    prompt, text = _prompt_and_text(record)
    asked = _ASKED.search(prompt.partition("<think>")[0] + "<think>")
    correct = record.get("is_correct")
    of = re.search(r"([^/]+)/temperature_[^/]*/", str(record.get("path", "")))
    yield Raw(
        text=text,
        prompt=prompt,
        question=text_of(record.get("problem"), "problem") or (asked[1].strip() if asked else None),
        gold=text_of(record.get("gt_answer"), "gt_answer"),
        problem_id=name_of(record.get("problem_name")),
        correct=correct if isinstance(correct, bool) else None,
        author=of[1] if of else None,
    )


def _prompt_and_text(record: Record) -> tuple[str, str]:
    """The prompt and the text of a whole rollout; one that continues a prefix begins with that prefix."""
    if record.get("error"):
        raise Reject(f"the rollout failed: {record['error']}")
    whole = text_of(record.get("full_cot"), "full_cot") or ""
    if record.get("rollout") is None:
        prompt, text = text_of(record["prompt"], "prompt") or "", text_of(record["solution"], "solution") or ""
        return prompt, text
    begin = whole.find("<think>\n")
    if begin < 0:
        raise Reject("'full_cot' has no <think>, so its prompt cannot be told from its text")
    begin += len("<think>\n")
    return whole[:begin], whole[begin:]


def _has(record: Record, *keys: str) -> bool:
    return all(record.get(key) is not None for key in keys)


OPENTHOUGHTS = Shape("OpenThoughts (metadata)", _is_openthoughts, _openthoughts, R1)
CONVERSATIONS = Shape("conversations", _is_shared, _shared)
S1K = Shape("s1K", _is_s1, _s1, "google/gemini-2.0-flash-thinking-exp")
S1K_1_1 = Shape("s1K-1.1", _is_s1_1, _s1_1, R1)
OPENR1 = Shape("OpenR1-Math", _is_openr1, _openr1, R1)
ROLLOUTS = Shape("math-rollouts", _is_rollout, _rollout)
