"""The interface of a judge: an LLM that answers prompts and may fail at some.

A judge is any object with a ``name`` and ``complete(prompts)``. An answer is text, or None where it failed; the caller
parses it and counts an answer that it cannot parse as failed. :class:`CachedJudge` keeps the answers of any judge on
disk; the judges in ``language_models.py`` run a model.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from probe.errors import ProbeError
from probe.files import object_hash
from probe.models import read_thinking
from probe.progress import progress_bar

#: Prompts handed over at once: the most answers that an interruption can lose.
_AT_ONCE = 32


@runtime_checkable
class Judge(Protocol):
    """An LLM that answers prompts; the same prompt should always get the same answer."""

    name: str
    """Identifies the judge and every setting that its answers depend on; cached answers are found by it."""

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """Answer each prompt, in order; None for each that failed."""
        ...


class ScriptedJudge:
    """A function in place of a judge, for rules and for tests.

    >>> ScriptedJudge(lambda prompt: "yes" if "wait" in prompt else None).complete(["wait!", "so"])
    ['yes', None]
    """

    def __init__(self, answer: Callable[[str], str | None], name: str = "scripted") -> None:
        self.answer = answer
        self.name = name

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """Return the function's answer to each prompt."""
        return [self.answer(prompt) for prompt in prompts]


class CachedJudge:
    """A judge whose answers are kept in ``answers.jsonl``, by judge and prompt, so that each is asked for only once.

    Answers are written as they come, 32 prompts at a time, so a process that is killed loses few of them. Failures are
    not kept. A line that cannot be read, for example one cut by a kill, is asked for again.

    Args:
        judge: answers what is not in the cache.
        folder: where the answers are kept; several judges may share it.

    Attributes:
        hits: the number of answers that came from the cache.
    """

    def __init__(self, judge: Judge, folder: str | Path) -> None:
        self.judge = judge
        self.name = judge.name
        self.path = Path(folder) / "answers.jsonl"
        self.hits = 0
        self._answers = _read_answers(self.path)

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """Answer each prompt, in order; the judge is asked once for each answer that is not in the cache."""
        keys = [object_hash([self.name, prompt]) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._answers}
        self.hits += len(prompts) - len(missing)
        todo = list(missing.items())
        for start in range(0, len(todo), _AT_ONCE):
            self._ask(todo[start : start + _AT_ONCE])
        return [self._answers.get(key) for key in keys]

    def _ask(self, todo: Sequence[tuple[str, str]]) -> None:
        answers = _complete(self.judge, [prompt for _, prompt in todo])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut = _ends_within_a_line(self.path)
        with self.path.open("ab") as file:
            for (key, prompt), answer in zip(todo, answers, strict=True):
                if answer is None:
                    continue
                line = {"key": key, "judge": self.name, "prompt": prompt, "answer": answer}
                file.write(b"\n" * cut + json.dumps(line, ensure_ascii=False).encode() + b"\n")
                file.flush()
                self._answers[key], cut = answer, False


def ask(judge: Judge, prompts: Sequence[str], *, name: str = "judge", progress: bool = False) -> list[str | None]:
    """Ask a judge all prompts, 32 at a time.

    Args:
        name: the label of the progress bar.
        progress: show a progress bar.

    Returns:
        The answers, in order; None for each that failed.

    Raises:
        ProbeError: if the judge does not give one answer for each prompt.
    """
    answers: list[str | None] = []
    with progress_bar(total=len(prompts), desc=name, unit="prompt", show=progress) as bar:
        for start in range(0, len(prompts), _AT_ONCE):
            answers += _complete(judge, prompts[start : start + _AT_ONCE])
            bar.update(len(answers) - start)
    return answers


def without_thinking(answer: str | None) -> str | None:
    """Return what a thinking model says after its thinking; None if its thinking never ends.

    >>> without_thinking("<think>no, or yes?</think> yes"), without_thinking("<think>no, or"), without_thinking("no")
    ('yes', None, 'no')
    """
    if answer is None:
        return None
    after = read_thinking(answer)
    return None if after is None else after.strip()


def _complete(judge: Judge, prompts: Sequence[str]) -> list[str | None]:
    answers = judge.complete(prompts)
    if len(answers) != len(prompts):
        raise ProbeError(
            f"the judge {judge.name} gave {len(answers)} answers to {len(prompts)} prompts; "
            "complete(prompts) must give one each, None where it failed"
        )
    return [answer if isinstance(answer, str) else None for answer in answers]


def _read_answers(path: Path) -> dict[str, str]:
    answers = {}
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                kept = json.loads(line)
                key, answer = kept["key"], kept["answer"]
            except (ValueError, TypeError, KeyError):
                continue
            if isinstance(key, str) and isinstance(answer, str):
                answers[key] = answer
    return answers


def _ends_within_a_line(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
