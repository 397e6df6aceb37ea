"""Records of servers: outputs of vLLM; chat completions and batch files of OpenAI-compatible APIs; and messages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from probe.traces.reading.plain import facts_of
from probe.traces.reading.raw import Raw, Record, Reject, Shape, cut, first_of, ids_of, name_of, number_of, text_of

_PROMPT_TOKENS = ("prompt_token_ids", "prompt_tokens")


def _is_list(record: Record, key: str, *inside: str) -> bool:
    rows = record.get(key)
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, Mapping) and any(name in row for name in inside) for row in rows)
    )


def _is_vllm(record: Record) -> bool:
    return _is_list(record, "outputs", "text", "token_ids")


def _vllm(record: Record) -> Iterator[Raw]:
    facts = facts_of(record)
    key, ids = first_of(record, _PROMPT_TOKENS)
    request = name_of(record.get("request_id"))
    facts = replace(
        facts,
        prompt=text_of(record.get("prompt"), "prompt"),
        prompt_tokens=ids_of(ids, key),
        problem_id=facts.problem_id or (request if facts.question is not None else None),
    )
    for number, output in enumerate(record["outputs"]):
        yield replace(
            facts,
            text=text_of(output.get("text"), "text"),
            tokens=ids_of(output.get("token_ids"), "token_ids"),
            truncated=cut(output.get("finish_reason")),
            sample=_first(number_of(output.get("index")), number),
        )


def _first(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


def _response(record: Record) -> Record | None:
    """The completion in a record: in a line of a batch file or a request log, or the record itself."""
    response = record.get("response")
    if isinstance(response, Mapping):
        body = response.get("body")
        return body if isinstance(body, Mapping) else response
    return record if "choices" in record else None


def _is_completion(record: Record) -> bool:
    response = _response(record)
    return (response is not None and _is_list(response, "choices", "message", "text")) or (
        "custom_id" in record and ("error" in record or "response" in record)
    )


def _completion(record: Record) -> Iterator[Raw]:
    response = _response(record)
    error = record.get("error") or (response or {}).get("error")
    if error or response is None or not isinstance(response.get("choices"), list):
        said = error.get("message") if isinstance(error, Mapping) else error
        raise Reject(f"the server answered with an error: {said or 'no choices'}")
    request: Any = next((each for each in map(record.get, ("request", "body")) if isinstance(each, Mapping)), {})
    inside: Any = request.get("body")
    request = inside if isinstance(inside, Mapping) else request
    sent = {**request, **{key: record[key] for key in ("messages", "prompt") if record.get(key) is not None}}
    # The id of a completion is not the id of its problem.
    facts = facts_of({key: value for key, value in record.items() if key != "id"})
    asked = _asked(sent["messages"]) if isinstance(sent.get("messages"), list) else Raw()
    prompt = sent.get("prompt")
    facts = replace(
        facts,
        question=facts.question or asked.question,
        remark=asked.remark,
        prompt=text_of(prompt, "prompt") if not isinstance(prompt, list) else None,
        prompt_tokens=ids_of(
            prompt if isinstance(prompt, list) else first_of(response, _PROMPT_TOKENS)[1], "prompt_token_ids"
        ),
        author=name_of(response.get("model")) or facts.author,
    )
    choices = response["choices"]
    if not choices:
        raise Reject("the server answered with no choices")
    for number, choice in enumerate(choices):
        own = replace(
            facts,
            sample=_first(facts.sample if len(choices) == 1 else None, number_of(choice.get("index")), number),
            tokens=ids_of(choice.get("token_ids"), "token_ids"),
            prompt_tokens=ids_of(choice.get("prompt_token_ids"), "prompt_token_ids") or facts.prompt_tokens,
            truncated=cut(choice.get("finish_reason")),
        )
        message = choice.get("message")
        yield (
            _replied(own, message)
            if isinstance(message, Mapping)
            else replace(own, text=text_of(choice.get("text"), "text"))
        )


def _replied(raw: Raw, message: Mapping[str, Any]) -> Raw:
    """Add the text and the thinking of an assistant's message."""
    key, thinking = first_of(message, ("reasoning", "reasoning_content", "thinking"))
    content = text_of(message.get("content"), "content")
    if thinking is None:
        return replace(raw, text=content)
    return replace(raw, thinking=text_of(thinking, key), content=content)


def _asked(messages: Sequence[Any]) -> Raw:
    """The question of a conversation with one user turn.

    Raises:
        Reject: if it has another form.
    """
    if not all(isinstance(each, Mapping) for each in messages):
        raise Reject("'messages' are not objects with 'role' and 'content'")
    users = [each for each in messages if each.get("role") == "user"]
    others = {str(each.get("role")) for each in messages} - {"user", "system", "developer"}
    if len(users) != 1 or others:
        raise Reject("the conversation has several turns; only a question and its answer can be imported")
    told = any(each.get("role") in ("system", "developer") and each.get("content") for each in messages)
    remark = "a system turn that is not in the model's own prompt" if told else None
    return Raw(question=text_of(users[0].get("content"), "content"), remark=remark)


def _is_conversation(record: Record) -> bool:
    return _is_list(record, "messages", "role")


def _conversation(record: Record) -> Iterator[Raw]:
    messages = record["messages"]
    if messages[-1].get("role") != "assistant":
        raise Reject("'messages' does not end with a turn of the assistant")
    asked = _asked(messages[:-1])
    facts = facts_of(record)
    facts = replace(facts, question=facts.question or asked.question, remark=asked.remark)
    yield _replied(replace(facts, truncated=cut(record.get("finish_reason"))), messages[-1])


VLLM = Shape("outputs of vLLM", _is_vllm, _vllm)
COMPLETION = Shape("chat completions", _is_completion, _completion)
MESSAGES = Shape("messages", _is_conversation, _conversation)
