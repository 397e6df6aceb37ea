"""The requests and replies of each kind of server for the continuation of a prompt.

Every sampling setting is sent, since servers fill in what is missing from a model's ``generation_config.json`` (vLLM,
SGLang) or from defaults of their own (llama.cpp keeps 40 tokens), and penalties too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from probe.models import Sampling


@dataclass(frozen=True)
class Ask:
    """A request for the continuation of a prompt.

    Attributes:
        ids: the token ids of the prompt.
        text: a text that the server encodes as these ids, for servers that take no ids; None if there is none.
        max_new_tokens: the most tokens of the answer.
        sampling: how tokens are chosen.
        seed: of the random numbers, from 0 to 2³¹ − 1.
        ends: the ids that end an answer.
    """

    ids: tuple[int, ...]
    text: str | None
    max_new_tokens: int
    sampling: Sampling
    seed: int
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What a server has answered.

    Attributes:
        tokens: the emitted ids, perhaps with the end token; None from a server that gives text alone.
        text: the emitted text, if there are no ids.
        stopped: whether the answer ended before a limit did.
        count: the number of emitted tokens that the server reports; None if it does not.
        prompt_count: the number of tokens of the prompt that the server reports; None if it does not.
        model: the model that answered, as the server calls it; None if it does not say.
    """

    tokens: tuple[int, ...] | None
    text: str | None
    stopped: bool
    count: int | None
    prompt_count: int | None
    model: str | None


@dataclass(frozen=True)
class Dialect:
    """A kind of server.

    Attributes:
        kind: its name.
        path: where it is asked; see :meth:`~probe.servers.client.Client.address`.
        body: makes the request, but for the name of the model.
        read: reads the answer; raises KeyError, IndexError, TypeError or ValueError if it is none of this kind.
        by_ids: whether it reads and writes token ids; otherwise text.
        version: where it tells its version, and under which key; None if it does not.
        cuts: whether it samples from a part of the distribution other than the nucleus.
    """

    kind: str
    path: str
    body: Callable[[Ask], dict[str, Any]]
    read: Callable[[Any], Answer]
    by_ids: bool = True
    version: tuple[str, str] | None = None
    cuts: bool = True


def _sampled(ask: Ask, all_tokens: int) -> dict[str, Any]:
    """The settings of sampling under their usual names; ``all_tokens`` is the ``top_k`` that keeps all tokens."""
    how = ask.sampling
    top_k = all_tokens if how.top_k is None else how.top_k
    return {"temperature": how.temperature, "top_p": how.top_p, "top_k": top_k, "min_p": how.min_p}


_NO_PENALTY = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def _plain(ask: Ask) -> dict[str, Any]:
    """A completion of text with what the interface of OpenAI knows."""
    sampled = {"temperature": ask.sampling.temperature, "top_p": ask.sampling.top_p, "seed": ask.seed}
    return {"prompt": ask.text, "max_tokens": ask.max_new_tokens, **sampled}


def _transformers(ask: Ask) -> dict[str, Any]:
    how = ask.sampling
    cuts = {"top_k": how.top_k or 0, "min_p": how.min_p or None}
    sampled = {"temperature": how.temperature, "top_p": how.top_p, **cuts}
    config = {"do_sample": not how.greedy, **({} if how.greedy else sampled), "eos_token_id": list(ask.ends)}
    return {**_plain(ask), "generation_config": _json({**config, "max_new_tokens": ask.max_new_tokens})}


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def _all_text(ask: Ask) -> dict[str, Any]:
    ends = {"stop_token_ids": list(ask.ends), "skip_special_tokens": False, "spaces_between_special_tokens": False}
    return {**_plain(ask), **_sampled(ask, 0), **_NO_PENALTY, **ends}


def _vllm(ask: Ask) -> dict[str, Any]:
    return {**_all_text(ask), "prompt": list(ask.ids), "return_token_ids": True}


def _sglang(ask: Ask) -> dict[str, Any]:
    sampled = {"max_new_tokens": ask.max_new_tokens, **_sampled(ask, -1), **_NO_PENALTY}
    how = {"stop_token_ids": list(ask.ends), "skip_special_tokens": False, "sampling_seed": ask.seed}
    return {"input_ids": list(ask.ids), "sampling_params": {**sampled, **how}}


def _llama(ask: Ask) -> dict[str, Any]:
    # Its own order cuts before the temperature, and only then divides by it.
    order = {"samplers": ["temperature", "top_k", "top_p", "min_p"], "repeat_penalty": 1.0, "return_tokens": True}
    return {"prompt": list(ask.ids), "n_predict": ask.max_new_tokens, **_sampled(ask, 0), **order, "seed": ask.seed}


def _read_choice(reply: Any, tokens: tuple[int, ...] | None) -> Answer:
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    if choice["finish_reason"] not in ("stop", "length"):
        raise ValueError(f"the answer ended by {choice['finish_reason']!r}")
    return Answer(
        tokens=tokens,
        text=str(choice["text"]),
        stopped=choice["finish_reason"] == "stop",
        count=usage.get("completion_tokens"),
        prompt_count=usage.get("prompt_tokens"),
        model=reply.get("model"),
    )


def _read_text(reply: Any) -> Answer:
    return _read_choice(reply, None)


def _read_vllm(reply: Any) -> Answer:
    return _read_choice(reply, _ids(reply["choices"][0]["token_ids"]))


def _read_sglang(reply: Any) -> Answer:
    tokens, meta = _ids(reply["output_ids"]), reply["meta_info"]
    if meta["finish_reason"]["type"] not in ("stop", "length"):
        raise ValueError(f"the answer ended by {meta['finish_reason']}")
    stopped = meta["finish_reason"]["type"] == "stop"
    return Answer(tokens, None, stopped, len(tokens), meta.get("prompt_tokens"), None)


def _read_llama(reply: Any) -> Answer:
    tokens, kind = _ids(reply["tokens"]), reply["stop_type"]
    if kind not in ("eos", "limit"):
        raise ValueError(f"the answer ended by {kind!r}")
    count, asked = reply["tokens_predicted"], reply["tokens_evaluated"]
    return Answer(tokens, None, kind == "eos", count, asked, reply.get("model"))


def _ids(found: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(each) is int for each in found):
        raise TypeError("token ids are whole numbers")
    return tuple(found)


DIALECTS = (
    Dialect("vllm", "completions", _vllm, _read_vllm, version=("/version", "version")),
    Dialect("sglang", "/generate", _sglang, _read_sglang, version=("/get_server_info", "version")),
    Dialect("llama.cpp", "/completion", _llama, _read_llama, version=("/props", "build_info")),
    Dialect("text", "completions", _all_text, _read_text, by_ids=False),
    Dialect("transformers", "completions", _transformers, _read_text, by_ids=False),
    Dialect("plain text", "completions", _plain, _read_text, by_ids=False, cuts=False),
)
"""Every kind of server, in the order in which they are tried: token ids before text, and much before little."""
