"""Settings of OpenAI-compatible servers that write traces."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from probe.config import check_above_zero, check_least
from probe.errors import ProbeError


@dataclass(frozen=True)
class ServersConfig:
    """How requests for traces are sent to OpenAI-compatible servers; traces do not depend on it."""

    concurrency: int = 32
    """Number of requests that each server works on at once. One that can do fewer keeps the others waiting."""
    timeout: float = 3600.0
    """Seconds to wait for an answer, which includes the time that it waits in the server."""
    patience: float = 300.0
    """Seconds for which a command waits for servers that have stopped answering, before it ends."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable with the API key of the servers; if it is not set, no key is sent."""

    def __post_init__(self) -> None:
        check_least("servers", self, concurrency=1, patience=0)
        check_above_zero("servers", self, "timeout")


def check_urls(setting: str, urls: Sequence[str]) -> None:
    """Refuse what are not addresses of servers, and an address that is given twice.

    Args:
        setting: the name of the setting that holds the addresses.
        urls: addresses such as ``http://localhost:8000/v1``.

    Raises:
        ProbeError: for the first mistake.
    """
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ProbeError(f"{setting} is {url!r}; give an http address such as http://localhost:8000/v1")
    if len(set(urls)) < len(urls):
        raise ProbeError(f"{setting} names an address twice: {', '.join(urls)}; give each once")
