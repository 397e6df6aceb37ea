"""Judges that run a language model: one loaded here, or one behind an OpenAI-compatible endpoint."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from typing import Any

from probe.config import check_above_zero, check_least
from probe.errors import ProbeError
from probe.files import object_hash
from probe.models import Model, identity
from probe.servers import Client, Failed
from probe.traces import decode_greedy

_THREADS = 8


class LocalJudge:
    """A chat model loaded by ``load_model``, decoded greedily.

    Prompts go through the tokenizer's chat template, or through the model's own prompt if it has none. A prompt fails
    if it leaves no room for the answer, or if the answer does not end within the limit.

    Args:
        model: the chat model.
        max_new_tokens: the maximum number of tokens of an answer; a thinking model needs room for its thinking too.
        batch_size: the number of prompts decoded together.

    Raises:
        ProbeError: if a limit is below one, or the answer alone could fill the model's context.
    """

    def __init__(self, model: Model, *, max_new_tokens: int = 256, batch_size: int = 16) -> None:
        if model.tokenizer.chat_template:
            model = copy(model)
            model.config = replace(model.config, prompt="chat", user="{question}", prefill="")
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        check_least("judge", self, max_new_tokens=1, batch_size=1)
        # None where the architecture does not limit positions.
        self._context = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
        if self._context is not None and max_new_tokens >= self._context:
            raise ProbeError(
                f"judge.max_new_tokens is {max_new_tokens}, but {model.name} reads {self._context} tokens at most, "
                "the prompt included; choose fewer"
            )
        prompt = (
            model.config.prompt if model.config.prompt == "chat" else f"prompt {object_hash(model.config.prompt)[:8]}"
        )
        weights = identity(model)["weights"][:8]
        self.name = f"{model.name} (weights {weights}, {prompt}, at most {max_new_tokens} tokens)"

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """Answer each prompt, in order; None for each that failed."""
        ids = [self._ids(prompt) for prompt in prompts]
        room = float("inf") if self._context is None else self._context - self.max_new_tokens
        # Prompts of similar length together need less padding.
        fit = sorted((i for i, row in enumerate(ids) if 0 < len(row) <= room), key=lambda i: len(ids[i]))
        answers: list[str | None] = [None] * len(prompts)
        for start in range(0, len(fit), self.batch_size):
            rows = fit[start : start + self.batch_size]
            emissions = decode_greedy(self.model, [ids[i] for i in rows], self.max_new_tokens)
            for i, emission in zip(rows, emissions, strict=True):
                said = None if emission.truncated else self.model.decode(emission.tokens)
                if said is not None:
                    said = self.model.think_tags.answer_in(said, self.model.prompt_text(prompts[i]))
                answers[i] = None if said is None else said.strip()
        return answers

    def _ids(self, prompt: str) -> list[int]:
        """The token ids of a prompt; none if the model cannot be asked it."""
        try:
            return self.model.prompt_ids(prompt)
        except ProbeError:
            return []


class EndpointJudge:
    """A model behind an OpenAI-compatible ``/chat/completions``, asked at temperature zero, 8 prompts at once.

    Temporary failures (time-outs, broken connections, statuses 408, 409, 429 and from 500) are tried again after the
    time that the server asks for. The answer is None if it still fails, is refused, is cut at the server's limit or is
    not a chat completion.

    Args:
        url: the base address, such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
        model: the server's name of the model.
        key_env: the environment variable that holds the key; if it is not set, no key is sent.
        timeout: seconds before one try is given up.
        retries: the number of further tries for a prompt.

    Attributes:
        last_error: why the last failed prompt failed; None if none has.

    Raises:
        ProbeError: if the address is not an http address, or a limit is invalid.
    """

    def __init__(
        self, url: str, model: str, *, key_env: str = "OPENAI_API_KEY", timeout: float = 60.0, retries: int = 3
    ) -> None:
        self._client = Client(url, key_env=key_env, timeout=timeout, setting="judge.url", role="judge")
        self.url = self._client.address("chat/completions")
        self.model = model
        self.timeout = timeout
        self.retries = retries
        check_above_zero("judge", self, "timeout")
        check_least("judge", self, retries=0)
        self.name = f"{model} at {self._client.host}"
        self.last_error: str | None = None

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """Answer each prompt, in order; None for each that failed.

        Raises:
            ProbeError: if the server needs a key or refuses it, has no such model or address, or was never reached.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._answer, prompts))

    def _answer(self, prompt: str) -> str | None:
        turn = {"role": "user", "content": prompt}
        body = {"model": self.model, "messages": [turn], "temperature": 0}
        try:
            return self._content(self._client.ask("chat/completions", body, retries=self.retries))
        except Failed as failed:
            self.last_error = str(failed)
            return None

    def _content(self, reply: Any) -> str | None:
        try:
            choice = reply["choices"][0]
            content, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        except (KeyError, IndexError, TypeError, AttributeError):
            self.last_error = f"no chat completion: {str(reply)[:200]}"
            return None
        if cut or not isinstance(content, str) or not content.strip():
            self.last_error = "the answer was cut at the server's limit" if cut else "the answer was empty"
            return None
        return content.strip()
