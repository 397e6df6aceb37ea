"""What runs in the process of a :class:`~probe.problems.worker.Worker`: math-verify and reasoning-gym."""

import contextlib
import json
import os
import re
import sys
import time
from functools import cache, lru_cache
from typing import Any

#: Item i of a task depends on the seed and i alone, whatever the size, so the size is only an upper limit ...
_ENDLESS = 10**9
#: ... except where the library makes something for all items at once.
_SIZES = {"acre": 4_000, "gsm_symbolic": 10_000, "list_functions": 10_000, "word_ladder": 10_000}


def serve() -> None:
    """Answer the calls on standard input, one JSON line each, on standard output."""
    # Libraries print; only replies may reach the pipe.
    with open(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            function, *arguments = json.loads(line)
            try:
                reply = {"value": _FUNCTIONS[function](*arguments)}
            except Exception as error:  # any error of another library on any text: the caller decides what it means
                reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            print(json.dumps(reply), file=replies, flush=True)


def ready(memory: int) -> bool:
    """Limit the memory of this process, in bytes, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return True


def load(library: str) -> bool:
    """Import a library ahead of the first call, whose time is limited."""
    __import__(library)
    return True


def verify(answer: str, truth: str) -> bool | None:
    """Whether both are the same by math-verify; None if the truth cannot be read."""
    import math_verify

    gold, given = (math_verify.parse(_as_latex(text), parsing_timeout=None) for text in (truth, answer))  # pyright: ignore[reportArgumentType]
    return math_verify.verify(gold, given, timeout_seconds=None) if gold else None


def _as_latex(text: str) -> str:
    return f"${text.replace(chr(92) + '$', '').replace('$', '')}$"


@cache
def _items(task: str, seed: int) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(task, seed=seed, size=_SIZES.get(task, _ENDLESS))


@lru_cache(maxsize=4096)
def _item(task: str, seed: int, i: int) -> Any:
    return _items(task, seed)[i]


def make(task: str, seed: int, first: int, end: int, seconds: float) -> list[list[str | None]]:
    """Make the items of a reasoning-gym task from ``first`` to ``end``, or as many as take some seconds, at least one.

    Returns:
        The question and answer of each; nothing if the task has no more.
    """
    made: list[list[str | None]] = []
    began = time.monotonic()
    for i in range(first, min(end, _SIZES.get(task, _ENDLESS))):
        item = _item(task, seed, i)
        answer = item["answer"]
        made.append([str(item["question"]).strip(), None if answer is None else str(answer)])
        if time.monotonic() - began > seconds:
            break
    return made


def score(task: str, seed: int, i: int, answer: str) -> bool:
    """Whether the verifier of a task gives full marks; partial ones go even to text that merely contains the answer."""
    item = _item(task, seed, i)
    if item["answer"] in ("True", "False"):  # the verifier of game_of_life_halting takes any text for either
        return answer.strip().lower() == item["answer"].lower()
    # The verifier of puzzle24 takes any four numbers that make 24.
    if task == "puzzle24" and sorted(re.findall("[0-9]+", answer)) != sorted(re.findall("[0-9]+", item["answer"])):
        return False
    return float(_items(task, seed).score_answer(answer, item)) == 1.0


_FUNCTIONS = {each.__name__: each for each in (ready, load, verify, make, score)}
