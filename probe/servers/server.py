"""One server: which model it serves, of which kind it is, and its answers, each of which is checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from probe.errors import ProbeError
from probe.servers.client import Client, Failed
from probe.servers.config import ServersConfig
from probe.servers.dialects import DIALECTS, Answer, Ask, Dialect

_NOT_THIS = (400, 404, 405, 415, 422, 500, 501)
"""Statuses by which servers refuse a request of another kind of server."""
_LOOK = 60.0
"""Seconds to wait for what a server answers at once."""
_WRONG = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What reading an answer of another form raises."""


@dataclass(frozen=True)
class Server:
    """A server that writes continuations of prompts.

    Attributes:
        client: sends the requests.
        model: the server's name of the model.
        dialect: the kind of the server.
        version: of its software; None if it does not tell.
        context: the most tokens of a prompt and its answer; None if it does not tell.
    """

    client: Client
    model: str
    dialect: Dialect
    version: str | None
    context: int | None

    @property
    def who(self) -> dict[str, str | None]:
        """Who writes: the kind of the server, its name of the model, and its version."""
        return {"kind": self.dialect.kind, "model": self.model, "version": self.version}

    def complete(self, ask: Ask) -> Answer:
        """Ask once for the continuation of a prompt.

        Raises:
            Failed: if there is no answer, and another try may help.
            ProbeError: if the server refuses the request, answers with another model, reads another prompt, or cuts.
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
                f"{where} was asked for the model {self.model} and answered with {answer.model}; name the one that it "
                f"serves, as {self.client.url}#NAME"
            )
        if answer.prompt_count is not None and answer.prompt_count != len(ask.ids):
            raise ProbeError(
                f"{where} reads a prompt of {len(ask.ids)} tokens as {answer.prompt_count}: it adds tokens, cuts, or "
                "has another tokenizer; serve the checkpoint itself, without a prompt template"
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
    """Find out which model a server serves, and of which kind it is.

    Args:
        url: its address, such as ``http://localhost:8000/v1``; ``#NAME`` at its end names the model.
        trial: a request that finds out the kind of the server; it should be short.
        names: what the model may be called, if the server has several.
        config: the key and the time-out.
        setting: the name of the setting that holds the address, for error messages.

    Raises:
        ProbeError: if nothing answers, the key is missing or refused, the model is not there, or the server writes no
            completions.
    """
    client = Client(url, key_env=config.key_env, timeout=config.timeout, setting=setting)
    if urlsplit(client.url).path in ("", "/"):
        client.url += "/v1"
    listed = _listed(client)
    model, dialect = _model_and_dialect(client, _names(client, unquote(urlsplit(url).fragment), listed, names), trial)
    return Server(client, model, dialect, _version(client, dialect), _context(listed.get(model) or {}))


def _listed(client: Client) -> dict[str, dict[str, Any]]:
    """The models that a server lists, by name; none if it has no list, or a broken one."""
    try:
        found = client.send("models", timeout=_LOOK)
        return {str(each["id"]): each for each in found["data"]}
    except Failed as failed:
        client.check(failed) if failed.status == 401 or failed.unreachable else None
        return {}
    except _WRONG:
        return {}


def _names(client: Client, given: str, listed: dict[str, dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The names to ask for: the one that the address gives, the only one that is served, or those that are likely."""
    if given:
        return [given]
    roots = {str(each.get("root")): name for name, each in listed.items()}
    likely = [roots.get(name, name) for name in names if name in listed or name in roots]
    if likely or len(listed) <= 1:
        # A server that lists nothing may serve the model all the same, as that of transformers does with a folder.
        return likely[:1] or list(listed) or list(names)
    raise ProbeError(
        f"the server at {client.url} has several models ({', '.join(sorted(listed)[:8])}); name one, as "
        f"{client.url}#{next(iter(listed))}"
    )


def _model_and_dialect(client: Client, names: Sequence[str], trial: Ask) -> tuple[str, Dialect]:
    """The first of some names and the first kind of server that give an answer."""
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
                    f"the server at {client.url} knows neither top-k nor min-p, so it cannot sample by {how}"
                )
            return model, dialect
    # The last request is the plainest, which every server with completions can read.
    raise ProbeError(
        f"the server at {client.url} gives no completion of {' or '.join(names)} ({refusals[-1]}); it needs "
        f"/v1/completions, and the name of a model that it serves, as {client.url}#NAME"
    )


def _refusal(client: Client, model: str, dialect: Dialect, trial: Ask) -> Failed | None:
    """Why a server is not of this kind; None if it is.

    Raises:
        ProbeError: for a failure that has nothing to do with its kind.
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
