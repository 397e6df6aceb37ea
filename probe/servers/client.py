"""A client of OpenAI-compatible servers: keys, time-outs, retries, and errors in one line.

Servers are called with urllib. ``huggingface_hub.InferenceClient`` refuses even a local server when ``HF_HUB_OFFLINE``
is set, and sends the user's Hugging Face token to any server that is called without a key.
"""

import http.client
import json
import os
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from probe.errors import ProbeError
from probe.servers.config import check_urls

LONGEST_WAIT = 60.0
"""The maximum number of seconds between two tries."""
_TEMPORARY = (408, 409, 425, 429)
"""Statuses below 500 after which the same request may succeed later."""


class Failed(Exception):
    """A request that did not succeed; the message is one line.

    Attributes:
        status: the HTTP status; None if there was no answer or an incomplete one.
        temporary: whether the same request may succeed later.
        unreachable: whether no server answers at the address.
        wait: the seconds that the server asks to wait; None if it does not say.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        temporary: bool = False,
        unreachable: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.status, self.temporary, self.unreachable, self.wait = status, temporary, unreachable, wait


class Client:
    """Sends requests to one server. Threads may share it.

    Args:
        url: the base address, such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
        key_env: the environment variable that holds the key; if it is not set, no key is sent.
        timeout: seconds to wait for one try.
        setting: the name of the setting that holds the address, for error messages.
        role: what the server is, for error messages.

    Attributes:
        reached: whether the server has ever answered.

    Raises:
        ProbeError: if the address is not an http address.
    """

    def __init__(
        self,
        url: str,
        *,
        key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        setting: str = "url",
        role: str = "server",
    ) -> None:
        check_urls(setting, [url])
        base = url.partition("#")[0].rstrip("/")
        self.url = base.removesuffix("/chat/completions").removesuffix("/completions")
        self.host = urlsplit(url).netloc
        self.key_env, self.timeout, self.setting, self.role = key_env, timeout, setting, role
        self.reached = False

    def address(self, path: str) -> str:
        """The full address of a path. A path that begins with ``/`` is not below the version (``/v1``)."""
        return f"{self.url.removesuffix('/v1')}{path}" if path.startswith("/") else f"{self.url}/{path}"

    def send(self, path: str, body: dict[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """Try a request once.

        Args:
            path: see :meth:`address`.
            body: what is posted as JSON; None sends a GET request.
            timeout: seconds to wait; None for the time-out of the client.

        Returns:
            The answer, read as JSON.

        Raises:
            Failed: if there is no answer, or it is not JSON.
        """
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address(path), data, {"Content-Type": "application/json"})
        # White space is removed: a line end in the key would raise an error whose message quotes the key.
        if key := "".join(os.environ.get(self.key_env, "").split()):
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        try:
            with urlopen(request, timeout=timeout or self.timeout) as response:
                self.reached = True
                return json.loads(response.read())
        except HTTPError as error:
            with error:
                self.reached = True
                raise _failed(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            unreachable = isinstance(error, URLError) and not isinstance(reason, TimeoutError)
            said = " ".join(f"{type(reason).__name__}: {reason}".split())
            raise Failed(said, temporary=True, unreachable=unreachable) from None

    def ask(self, path: str, body: dict[str, Any] | None = None, *, retries: int = 3) -> Any:
        """Send a request, and retry temporary failures after the time that the server asks for.

        Args:
            path, body: as in :meth:`send`.
            retries: the number of further tries.

        Returns:
            The answer, read as JSON.

        Raises:
            Failed: if it still fails, or is refused.
            ProbeError: for a failure that every other request would have as well; see :meth:`check`.
        """
        for tried in range(retries + 1):
            try:
                return self.send(path, body)
            except Failed as failed:
                self.check(failed, model=(body or {}).get("model"), last=tried == retries)
                if not failed.temporary or tried == retries:
                    raise
                time.sleep(pause(tried) if failed.wait is None else failed.wait)
        raise AssertionError("unreachable")

    def check(self, failed: Failed, *, model: str | None = None, last: bool = True) -> None:
        """Raise an error for a failure that every other request would have as well.

        Args:
            failed: the failure.
            model: the model that was requested.
            last: whether the request is not tried again.

        Raises:
            ProbeError: if the server needs a key or refuses it, has no such model or address, or was never reached.
        """
        where = f"the {self.role} at {self.url}"
        if failed.status == 401:
            if os.environ.get(self.key_env):
                raise ProbeError(f"{where} refuses the key in {self.key_env}; correct it")
            raise ProbeError(f"{where} needs a key; set the environment variable {self.key_env}")
        if failed.status == 404:
            named = "" if model is None else f" or model {model!r}"
            raise ProbeError(f"{where} has no such address{named}: {str(failed).removeprefix('HTTP 404: ')}")
        if last and failed.unreachable and not self.reached:
            said = str(failed).partition(": ")[2]
            raise ProbeError(f"nothing answers at {self.url} ({said}); correct {self.setting}, or start the server")


def pause(tried: int) -> float:
    """Seconds to wait before the next try; doubled after each try."""
    return min(2.0**tried, LONGEST_WAIT)


def _failed(error: HTTPError) -> Failed:
    try:
        said = " ".join(error.read(500).decode("utf-8", "replace").split())
    except (OSError, http.client.HTTPException):
        said = "no message"
    temporary = error.code in _TEMPORARY or error.code >= 500
    return Failed(f"HTTP {error.code}: {said}", status=error.code, temporary=temporary, wait=_asked_wait(error))


def _asked_wait(error: HTTPError) -> float | None:
    """The seconds that the server asks to wait, at most a minute; None if it does not say."""
    try:
        return min(max(0.0, float(error.headers["Retry-After"])), LONGEST_WAIT)
    except (TypeError, ValueError):
        return None
