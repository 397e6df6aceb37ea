"""Judges that run a language model: one loaded here, or one behind an OpenAI-compatible endpoint."""

import http.client
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from probe.config import check_above_zero, check_least
from probe.errors import ProbeError
from probe.files import object_hash
from probe.models import Model
from probe.traces import decode_greedy

_THREADS = 8
_LONGEST_WAIT = 60.0


class LocalJudge:
    """A chat model on this machine, as ``load_model`` gives it, decoded greedily.

    Prompts go through the tokenizer's chat template if there is one, and through the model's own prompt otherwise. A
    prompt that leaves no room for the answer fails, and so does an answer that has not ended at the limit.

    Args:
        model: the judge.
        max_new_tokens: the longest answer; a thinking model needs room for its thinking too.
        batch_size: prompts decoded together.

    Raises:
        ProbeError: if a limit is below one, or the answer alone would fill what the model can read.
    """

    def __init__(self, model: Model, *, max_new_tokens: int = 256, batch_size: int = 16) -> None:
        if model.tokenizer.chat_template:
            model = copy(model)
            model.config = replace(model.config, prompt="chat")
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        check_least("judge", self, max_new_tokens=1, batch_size=1)
        # None where the architecture has no limit to its positions.
        self._context = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
        if self._context is not None and max_new_tokens >= self._context:
            raise ProbeError(
                f"judge.max_new_tokens is {max_new_tokens}, but {model.name} reads {self._context} tokens at most, "
                "the prompt included; choose fewer"
            )
        revision = f"@{model.config.revision}" if model.config.revision else ""
        prompt = (
            model.config.prompt if model.config.prompt == "chat" else f"prompt {object_hash(model.config.prompt)[:8]}"
        )
        self.name = f"{model.name} ({model.config.path}{revision}, {prompt}, at most {max_new_tokens} tokens)"

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """One answer a prompt, in order; None for each that failed."""
        ids = [self.model.prompt_ids(prompt) for prompt in prompts]
        room = float("inf") if self._context is None else self._context - self.max_new_tokens
        # Prompts of one length together: less padding to run.
        fit = sorted((i for i, row in enumerate(ids) if 0 < len(row) <= room), key=lambda i: len(ids[i]))
        answers: list[str | None] = [None] * len(prompts)
        for start in range(0, len(fit), self.batch_size):
            rows = fit[start : start + self.batch_size]
            emissions = decode_greedy(self.model, [ids[i] for i in rows], self.max_new_tokens)
            for i, emission in zip(rows, emissions, strict=True):
                answers[i] = None if emission.truncated else self.model.decode(emission.tokens).strip()
        return answers


class EndpointJudge:
    """A model behind an OpenAI-compatible ``/chat/completions``, asked at temperature zero, some prompts at once.

    What a server may get over (timeouts, broken connections, statuses 408, 409, 429 and from 500) is tried again, after
    the time it asks for; an answer that still does not come, is refused, is cut or is no chat completion is None.

    Args:
        url: the base of the interface, such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
        model: what the server calls the model.
        key_env: the environment variable that holds the key; servers that want none are asked without.
        timeout: seconds for one try.
        retries: further tries for a prompt.

    Attributes:
        last_error: why the latest of the failed prompts failed, in words; None if none has.

    Raises:
        ProbeError: if the address is no http address, or a limit makes no sense.
    """

    def __init__(
        self, url: str, model: str, *, key_env: str = "OPENAI_API_KEY", timeout: float = 60.0, retries: int = 3
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ProbeError(f"judge.url is {url!r}; give an http address such as http://localhost:8000/v1")
        self.url = f"{url.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        self.model = model
        self.key_env = key_env
        self.timeout = timeout
        self.retries = retries
        check_above_zero("judge", self, "timeout")
        check_least("judge", self, retries=0)
        self.name = f"{model} at {parts.netloc}"
        self.last_error: str | None = None
        self._reached = False

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """One answer a prompt, in order; None for each that failed.

        Raises:
            ProbeError: if the server wants a key or refuses it, knows no such model or address, or cannot be reached
                at all from the first.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._answer, prompts))

    def _answer(self, prompt: str) -> str | None:
        for left in range(self.retries, -1, -1):
            wait = 2.0 ** (self.retries - left)
            try:
                return self._content(self._post(prompt))
            except HTTPError as error:
                with error:
                    self._reached = True
                    self._refuse(error)
                    if error.code not in (408, 409, 429) and error.code < 500:
                        return None
                    wait = _asked_wait(error, wait)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = error.reason if isinstance(error, URLError) else error
                self.last_error = f"{type(reason).__name__}: {reason}"
                connected = self._reached or not isinstance(error, URLError) or isinstance(reason, TimeoutError)
                if not left and not connected:
                    where = f"nothing answers at {self.url} ({reason})"
                    raise ProbeError(f"{where}; correct judge.url, or start the server") from None
            if left:
                time.sleep(wait)
        return None

    def _post(self, prompt: str) -> Any:
        turn = {"role": "user", "content": prompt}
        body = json.dumps({"model": self.model, "messages": [turn], "temperature": 0}).encode()
        request = Request(self.url, body, {"Content-Type": "application/json"})
        # No white space: a line end would be refused in words that quote the key.
        if key := "".join(os.environ.get(self.key_env, "").split()):
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        with urlopen(request, timeout=self.timeout) as response:
            self._reached = True
            return json.loads(response.read())

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

    def _refuse(self, error: HTTPError) -> None:
        """Raise for what no other prompt could do better at; otherwise note it."""
        try:
            said = " ".join(error.read(500).decode("utf-8", "replace").split())
        except (OSError, http.client.HTTPException):
            said = "nothing more"
        self.last_error = f"HTTP {error.code}: {said}"
        if error.code == 401:
            if os.environ.get(self.key_env):
                raise ProbeError(f"the judge at {self.url} refuses the key in {self.key_env}; correct it")
            raise ProbeError(f"the judge at {self.url} wants a key; put one into the variable {self.key_env}")
        if error.code == 404:
            raise ProbeError(f"the judge at {self.url} knows no such address or model {self.model!r}; it says: {said}")


def _asked_wait(error: HTTPError, otherwise: float) -> float:
    """The seconds that the server asks to be left alone, if it says so, within reason."""
    try:
        return min(max(0.0, float(error.headers["Retry-After"])), _LONGEST_WAIT)
    except (TypeError, ValueError):
        return otherwise
