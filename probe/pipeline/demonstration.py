"""A short run on both bundled pairs at once, each in a process of its own, which tells what it finds."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from probe.config import read_as
from probe.engine import Engine, Task

PAIRS = ("tiny-rl", "tiny-sft")
"""The bundled pairs: training taught the first *when*, and the second *how*."""
_RECIPE = "quick"


@dataclass(frozen=True)
class _Began:
    """The time at which the demo began, in seconds since the epoch."""

    at: float

    def __call__(self) -> "_Began":
        return self


def run_demo(
    out: str | Path, *, settings: Mapping[str, Any] | None = None, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Run the recipe ``quick`` on both bundled pairs.

    Args:
        out: a folder, which gets the folder of a run for each pair. An interrupted demo resumes.
        settings: settings as in a YAML file, which win over those of the recipe.
        progress: write what is found on stderr, as soon as it is known.

    Returns:
        The contents of ``results.json`` of each run, by pair.

    Raises:
        ProbeError: if a folder holds something else.
    """
    out = Path(out).expanduser()
    do = partial(_run, settings=dict(settings or {}), progress=progress)
    tasks = [Task(pair, partial(do, pair=pair, out=out / pair)) for pair in PAIRS]
    with Engine("processes", len(PAIRS)).open(_Began(time.time()), out) as workers:
        workers.run(tasks, name="demo")
    return {pair: read_as(dict[str, Any], out / pair / "results.json") for pair in PAIRS}


def _run(began: _Began, *, pair: str, out: Path, settings: dict[str, Any], progress: bool) -> None:
    from probe.pipeline.run.config import RunConfig
    from probe.pipeline.run.run import run  # slow to import: the workers alone need it

    def tell(sentence: str) -> None:
        if progress:
            minutes, seconds = divmod(int(time.time() - began.at), 60)
            line = fill(f"{minutes}:{seconds:02}  {pair:<8}  {sentence}", 80, subsequent_indent=" " * 16)
            sys.stderr.write(f"{line}\n")

    # The bundled pairs are known, so nothing has to be looked at first.
    run(RunConfig.of_recipe(_RECIPE, **{"look": 0, **settings, "pair": pair}), out, tell=tell)
