"""One server: the model that it serves, its kind, and its answers, each of which is checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from probe.errors import ProbeError
from probe.servers.client import Client, Failed
from probe.servers.config import ServersConfig
from probe.servers.dialects import DIALECTS, Answer, Ask, Dialect

_NOT_THIS = (400, 404, 405, 415, 422, 500, 501)
"""Statuses with which servers refuse a request in the form of another kind of server."""
_LOOK = 60.0
"""Seconds to wait for requests that a server answers at once."""
_WRONG = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""The errors that reading an answer of another form raises."""


@dataclass(frozen=True)
class Server:
    """A server that writes continuations of prompts.

    Attributes:
        client: sends the requests.
        model: the server's name for the model.
        dialect: the kind of the server.
        version: the version of its software; None if it does not report it.
        context: the maximum number of tokens of a prompt and its answer; None if it does not report it.
    """

    client: Client
    model: str
    dialect: Dialect
    version: str | None
    context: int | None

    @property
    def who(self) -> dict[str, str | None]:
        """What identifies the writer: the kind of the server, its name for the model, and its version."""
        return {"kind": self.dialect.kind, "model": self.model, "version": self.version}

    def complete(self, ask: Ask) -> Answer:
        """Ask once for the continuation of a prompt.

        Raises:
            Failed: if there is no answer, and another try may help.
            ProbeError: if the server refuses the request, answers with another model, reads the prompt as a different
                number of tokens, or cuts the answer.
        """
        where = f"the server at {self.client.url}"
        try:
            reply = self.client.send(self.dialect.path, {"model": self.model, **self.dialect.body(ask)})
        except Failed as failed:
            self.client.check(failed, model=self.model, last=False)
            if not failed.temporary:
                raise ProbeError(f"{where} refuses a request for {self.model}: {failed}") from None
            raise
        answer = _read(self.dialect, reply)
        if answer.model is not None and not answer.model.startswith(self.model):
            raise ProbeError(
                f"{where} was asked for the model {self.model} and answered with {answer.model}; give the name of the "
                f"model that it serves, as {self.client.url}#NAME"
            )
        if answer.prompt_count is not None and answer.prompt_count != len(ask.ids):
            raise ProbeError(
                f"{where} reads a prompt of {len(ask.ids)} tokens as {answer.prompt_count}: it adds tokens, cuts the "
                "prompt, or has another tokenizer; serve the checkpoint itself, without a prompt template"
            )
        count = answer.count if answer.tokens is None else len(answer.tokens)
        if not answer.stopped and count is not None and count < ask.max_new_tokens:
            raise ProbeError(
                f"{where} cut an answer after {count} of {ask.max_new_tokens} tokens; start it with a longer context, "
                "or give a smaller --max-new-tokens"
            )
        return answer


def _read(dialect: Dialect, reply: Any) -> Answer:
    try:
        return dialect.read(reply)
    except _WRONG as error:
        said = error if type(error) is ValueError else f"no completion: {' '.join(str(reply)[:200].split())}"
        raise Failed(str(said), temporary=True) from None


def open_server(url: str, trial: Ask, names: Sequence[str], config: ServersConfig, *, setting: str) -> Server:
    """Find out which model a server serves, and the kind of the server.

    Args:
        url: its address, such as ``http://localhost:8000/v1``; ``#NAME`` at its end names the model.
        trial: the request that is sent to find out the kind; it should be short.
        names: possible names of the model, if the server has several models.
        config: the key and the time-out.
        setting: the name of the setting that holds the address, for error messages.

    Raises:
        ProbeError: if no server answers, the key is missing or refused, the server does not have the model, or it
            writes no completions.
    """
    client = Client(url, key_env=config.key_env, timeout=config.timeout, setting=setting)
    if urlsplit(client.url).path in ("", "/"):
        client.url += "/v1"
    listed = _listed(client)
    model, dialect = _model_and_dialect(client, _names(client, unquote(urlsplit(url).fragment), listed, names), trial)
    return Server(client, model, dialect, _version(client, dialect), _context(listed.get(model) or {}))


def _listed(client: Client) -> dict[str, dict[str, Any]]:
    """The models that a server lists, by name; empty if it has no valid list."""
    try:
        found = client.send("models", timeout=_LOOK)
        return {str(each["id"]): each for each in found["data"]}
    except Failed as failed:
        client.check(failed) if failed.status == 401 or failed.unreachable else None
        return {}
    except _WRONG:
        return {}


def _names(client: Client, given: str, listed: dict[str, dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The names to try: the name in the address, the name of the only served model, or the likely names."""
    if given:
        return [given]
    roots = {str(each.get("root")): name for name, each in listed.items()}
    likely = [roots.get(name, name) for name in names if name in listed or name in roots]
    if likely or len(listed) <= 1:
        # A server without a list may still serve the model: the server of transformers does so for a folder.
        return likely[:1] or list(listed) or list(names)
    raise ProbeError(
        f"the server at {client.url} has several models ({', '.join(sorted(listed)[:8])}); name one, as "
        f"{client.url}#{next(iter(listed))}"
    )


def _model_and_dialect(client: Client, names: Sequence[str], trial: Ask) -> tuple[str, Dialect]:
    """The first combination of a name and a kind of server that gets an answer."""
    refusals: list[Failed] = []
    for model in names:
        for dialect in DIALECTS:
            if trial.text is None and not dialect.by_ids:
                continue
            if (refusal := _refusal(client, model, dialect, trial)) is not None:
                refusals.append(refusal)
                continue
            how = trial.sampling
            if not dialect.cuts and (how.top_k is not None or how.min_p):
                raise ProbeError(
                    f"the server at {client.url} supports neither top-k nor min-p, so it cannot sample with {how}"
                )
            return model, dialect
    # The last request is the simplest; every server with completions can read it.
    raise ProbeError(
        f"the server at {client.url} gives no completion of {' or '.join(names)} ({refusals[-1]}); it must have "
        f"/v1/completions; give the name of a model that it serves, as {client.url}#NAME"
    )


def _refusal(client: Client, model: str, dialect: Dialect, trial: Ask) -> Failed | None:
    """Why a server is not of this kind; None if it is.

    Raises:
        ProbeError: for a failure that does not depend on its kind.
    """
    body = {"model": model, **dialect.body(trial)}
    try:
        try:
            reply = client.send(dialect.path, body)
        except Failed as failed:
            client.check(failed) if failed.status == 401 or failed.unreachable else None
            if failed.status in _NOT_THIS:
                return failed
            if not failed.temporary:
                raise
            reply = client.ask(dialect.path, body)
    except Failed as failed:
        raise ProbeError(f"the server at {client.url} gives no completion: {failed}") from None
    try:
        _read(dialect, reply)
    except Failed as failed:
        return failed
    return None


def _version(client: Client, dialect: Dialect) -> str | None:
    if dialect.version is None:
        return None
    path, key = dialect.version
    try:
        return str(client.send(path, timeout=_LOOK)[key])
    except (Failed, *_WRONG):
        return None


def _context(listed: dict[str, Any]) -> int | None:
    found = listed.get("max_model_len") or (listed.get("meta") or {}).get("n_ctx")
    return found if type(found) is int and found > 0 else None
