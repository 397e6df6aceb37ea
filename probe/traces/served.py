"""Rollouts that OpenAI-compatible servers write. They become the same traces as rollouts that are decoded here."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probe.engine import Shards
from probe.errors import ProbeError
from probe.files import object_hash, read_json
from probe.models import GREEDY, Model, Sampling, ThinkTags, identity
from probe.problems import Problem, ProblemSet
from probe.servers import Answer, Ask, Servers, ServersConfig, open_server
from probe.traces.answers import ask_for, emitted
from probe.traces.generate import Emission, check_samples, graded_traces, sampling_key
from probe.traces.sampling import sample_key
from probe.traces.served_check import check_servers
from probe.traces.trace import Traces

_LOG = logging.getLogger("probe")
_WORK = "served traces"
_ANSWERS = "answers-*.jsonl"
"""The files with answers of incomplete shards; a name contains the hash of what the answers depend on."""


def open_servers(
    urls: Sequence[str],
    model: Model,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    config: ServersConfig | None = None,
    setting: str = "urls",
) -> Servers:
    """Connect to servers of a model, find out what they can do, and check that they run exactly this model.

    Each server continues some prompts, and the model that is loaded here gives the probabilities of the continuations.

    Args:
        urls: addresses such as ``http://localhost:8000/v1``. The server's name for the model is found, or given at the
            end of an address as ``#NAME``.
        model: the model, loaded here.
        problems: the problems that will be asked.
        max_new_tokens: the maximum number of tokens of an answer.
        sampling: how tokens will be chosen.
        config: concurrency, time-outs and the API key.
        setting: the name of the setting that holds the addresses, for error messages.

    Raises:
        ProbeError: if no server answers, the key is refused, the server does not run the model, a prompt and its answer
            do not fit the server's context, or the server ignores the sampling settings.
    """
    config = config or ServersConfig()
    prompts = [model.prompt_ids(problem.question) for problem in problems]
    trial = ask_for(model, prompts[0], 1, sampling, 0)
    names = list(dict.fromkeys((model.config.path, model.hf.config._name_or_path, model.name)))
    servers = Servers([open_server(url, trial, names, config, setting=setting) for url in urls], config)
    longest = max(map(len, prompts)) + max_new_tokens
    if servers.context is not None and longest > servers.context:
        raise ProbeError(
            f"the server at {servers.servers[0].client.url} has a context of {servers.context} tokens, but a prompt "
            f"and its answer may have {longest}; start it with a longer one, or give a smaller --max-new-tokens"
        )
    check_servers(model, servers, prompts, max_new_tokens, sampling)
    return servers


def served_shards(
    model: Model,
    servers: Servers | None,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Shards:
    """The work of :func:`served_traces` in shards, whose rows are those of :func:`~probe.traces.trace_shards`.

    Args:
        servers: from :func:`open_servers`; None reads the traces in the folder, no matter who wrote them.
        model, problems, max_new_tokens, sampling, samples, seed, folder: see :func:`served_traces`.

    Raises:
        ProbeError: for fewer than one sample, or for several samples that would all be equal.
    """
    check_samples(sampling, samples)

    def key() -> dict[str, Any]:
        who = _kept_writer(folder) if servers is None else servers.who
        return {
            "work": _WORK,
            "model": identity(model),
            "server": who,
            "problems": object_hash([problem.question for problem in problems]),
            "max_new_tokens": max_new_tokens,
            **sampling_key(sampling, samples, seed, problems),
        }

    name, n = f"traces of {model.name}", len(problems) * samples
    if servers is None:
        return Shards(n, _unwritten, name, key, folder)
    rollouts = _Rollouts(model, servers, problems, max_new_tokens, sampling, samples, seed)
    urls = [each.client.url for each in servers.servers]
    made = Shards(n, rollouts, name, key, folder, how={"urls": urls, **asdict(servers.config)})
    if folder is not None:
        rollouts.keep(Path(folder), made, object_hash(key()))
    return made


def _unwritten(_: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    raise ProbeError("these traces are not complete; give the address of their server again")


def _kept_writer(folder: str | Path | None) -> Any:
    with suppress(ProbeError, KeyError, TypeError):
        return read_json(Path(folder or "") / "key.json")["key"]["server"]
    return None


def is_served(folder: str | Path) -> bool:
    """Whether the traces in a folder were written by servers."""
    with suppress(ProbeError, KeyError, TypeError):
        return read_json(Path(folder) / "key.json")["key"]["work"] == _WORK
    return False


class _Rollouts:
    """The work of shards: the answers of servers.

    While it waits for the last answers of a shard, it requests those of the next one. Each answer is written to a file
    beside the shards when it arrives, so that an interrupted command loses none.
    """

    def __init__(
        self,
        model: Model,
        servers: Servers,
        problems: Sequence[Problem],
        limit: int,
        sampling: Sampling,
        samples: int,
        seed: int,
    ) -> None:
        self._model, self._servers, self._problems = model, servers, problems
        self._limit, self._sampling, self._samples, self._seed = limit, sampling, samples, seed
        self._found: dict[int, dict[str, Any]] = {}
        self._left: list[int] = list(range(len(problems) * samples))
        self._stream: Iterator[tuple[int, Answer]] | None = None
        self._file: Path | None = None
        self._uncertain = 0

    def keep(self, folder: Path, shards: Shards, key: str) -> None:
        """Keep answers in a folder, and load those that an interrupted command left there."""
        self._left = [item for number in shards.missing() for item in shards.items(number)]
        self._file = folder / _ANSWERS.replace("*", key[:16])
        wanted, text = set(self._left), self._file.read_text(encoding="utf-8") if self._file.is_file() else ""
        for line in text.splitlines():
            with suppress(ValueError, TypeError):  # the last line may be incomplete
                item, row = json.loads(line)
                if item in wanted:
                    self._found[item] = row
        if text and not text.endswith("\n"):
            self._write("\n")
        self._left = [item for item in self._left if item not in self._found]

    def __call__(self, items: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        waiting = set(items)
        try:
            while waiting:
                for item in sorted(waiting & self._found.keys()):
                    waiting.discard(item)
                    yield item, self._found.pop(item)
                if waiting:
                    self._take(waiting)
        except BaseException:
            self._stream = None  # this ends its threads
            raise
        if self._uncertain and not self._left:
            _LOG.warning(
                "%d traces of %s have a different number of tokens here than their server counted; their text is exact",
                *(self._uncertain, self._model.name),
            )

    def _take(self, waiting: set[int]) -> None:
        """Wait for one more answer."""
        if self._stream is None:
            # What was requested before, and never arrived, is requested again.
            self._left = sorted({*self._left, *(waiting - self._found.keys())})
            self._stream = self._servers.answers(self._asks())
        try:
            item, answer = next(self._stream)
        except StopIteration:
            self._stream = None
            return
        self._found[item] = row = self._row(item, answer)
        self._write(json.dumps([item, row]) + "\n")

    def _write(self, line: str) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(line)

    def _asks(self) -> Iterator[tuple[int, Ask]]:
        while self._left:
            item = self._left.pop(0)
            problem = self._problems[item // self._samples]
            key = sample_key(self._seed, problem.id, item % self._samples)
            prompt = self._model.prompt_ids(problem.question)
            yield item, ask_for(self._model, prompt, self._limit, self._sampling, key, by_ids=self._servers.by_ids)

    def _row(self, item: int, answer: Answer) -> dict[str, Any]:
        problem = self._problems[item // self._samples]
        prompt = self._model.prompt_ids(problem.question)
        tokens, cut, certain = emitted(self._model, prompt, answer, self._limit, f"the answer to {problem.id}")
        self._uncertain += not certain
        return asdict(Emission(tuple(tokens), cut))


def served_traces(
    model: Model,
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    servers: Servers | None,
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
    seed: int = 0,
    think_close: str | ThinkTags | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Traces:
    """Rollouts that servers of a model write, graded and split into sentences as by `generate_traces`.

    Args:
        model: the model that the servers run, loaded here; its own prompt template is used.
        problem_set: supplies the grader.
        servers: from :func:`open_servers`; None reads finished traces, no matter who wrote them.
        max_new_tokens, sampling, samples, think_close: as in :func:`~probe.traces.generate_traces`.
        seed: gives the seed that is sent with each sample; whether a seed gives the same trace twice depends on the
            server.
        folder: answers are saved here as they arrive, in shards of 256; a later call requests the missing ones.
        progress: show a progress bar.

    Returns:
        The traces in the order of the problems, all samples of a problem together.

    Raises:
        ProbeError: as `generate_traces`; if the folder holds traces of another server or version; and if the servers
            stop answering, truncate answers, or leave out part of them.
    """
    how = {"max_new_tokens": max_new_tokens, "sampling": sampling, "samples": samples, "seed": seed}
    shards = served_shards(model, servers, problems, **how, folder=folder)
    traces = graded_traces(model, problem_set, problems, shards, think_close=think_close, progress=progress)
    if folder is not None:
        for file in Path(folder).glob(_ANSWERS):  # not needed any more: every shard is written
            file.unlink()
    return traces
