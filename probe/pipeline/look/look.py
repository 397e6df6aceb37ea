"""``probe look``, and the first minute of a run: answers of both models to a few validation problems, and verdicts."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from probe.config import read_as
from probe.errors import ProbeError
from probe.files import write_json
from probe.pipeline.folder import LOOK, RunFolder
from probe.pipeline.look.causes import verdicts
from probe.pipeline.look.seen import Seen, Side
from probe.pipeline.prompts import begin
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.inputs import Inputs, prepare
from probe.pipeline.stages import Split, roll_out_splits
from probe.reports import look_tables

WRITTEN = "look.json"
_SHOWN = 5
"""Number of problems whose answers are shown."""


def look(config: RunConfig, out: str | Path | None = None, *, progress: bool = False) -> dict[str, Any]:
    """Let both models answer a few validation problems, and say what is wrong with their answers.

    Args:
        config: the settings of the run that is to follow; ``config.look`` is the number of problems.
        out: a folder that keeps ``look.json``, the prompts and the traces, so that an interrupted look resumes; None
            keeps nothing.
        progress: show the first prompts and bars.

    Returns:
        What ``look.json`` holds: the figures of both ``models``, the ``difference`` of their accuracies with its
        interval, the ``verdicts``, and the first answers beside the known ones (``shown``).

    Raises:
        ProbeError: for settings that cannot work, before any model runs.
    """
    if config.look < 1:
        raise ProbeError("a look needs at least one problem (--look)")
    inputs = prepare(config)
    folder = None if out is None else Path(out).expanduser()
    asked = {"base": inputs.pair.base, "thinking": inputs.pair.thinking}
    sampling = {"base": inputs.sampling.base, "thinking": inputs.sampling.thinking}
    prompts = begin(folder, asked, inputs.validation[0].question, sampling, progress=progress)
    return _look(config, inputs, prompts, folder, progress=progress) | {"prompts": prompts}


def look_first(
    config: RunConfig, inputs: Inputs, prompts: Mapping[str, Any], folder: RunFolder, *, progress: bool
) -> dict[str, Any] | None:
    """The look of a run, which is made once, before its first stage.

    Args:
        config, inputs: those of the run.
        prompts: from :func:`~probe.pipeline.prompts.begin`.
        folder: the folder of the run; it keeps the look in ``look/``.
        progress: show bars and what was seen.

    Returns:
        What ``look.json`` holds; None for a run that did not look.

    Raises:
        ProbeError: if a verdict stops the run and ``config.anyway`` is not set.
    """
    begun = folder.has("traces")
    if not folder.has(LOOK) and (begun or config.look < 1):
        return None

    def make(at: Path, finished: bool) -> dict[str, Any]:
        if finished:
            return read_as(dict[str, Any], at / WRITTEN)
        return _look(config, inputs, prompts, at, progress=progress)

    found = folder.branch(LOOK, make, {"problems": config.look}, config.seed, how=("problems",))
    if begun:
        return found
    if progress:
        from rich.console import Console

        console = Console(file=sys.stderr)
        for table in look_tables(found):
            console.print(table)
    if (stop := stopped(found)) and not config.anyway:
        raise ProbeError(f"{stop}; or continue with --anyway")
    return found


def stopped(found: Mapping[str, Any]) -> str | None:
    """The first verdict of a look that stops a run, as a line; None if there is none."""
    for verdict in found["verdicts"]:
        if verdict["stops"]:
            return f"{verdict['finding']} ({verdict['name']}); {verdict['remedy']}"
    return None


def _look(
    config: RunConfig, inputs: Inputs, prompts: Mapping[str, Any], folder: Path | None, *, progress: bool
) -> dict[str, Any]:
    if folder is None:
        with TemporaryDirectory() as there:
            return _look(config, inputs, prompts, Path(there), progress=progress)
    problems, pair, limit = inputs.validation[: config.look], inputs.pair, inputs.max_new_tokens
    splits = {
        "base": Split(pair.base, problems, inputs.sampling.base, urls=config.base_url, setting="base_url"),
        "thinking": Split(
            pair.thinking, problems, inputs.sampling.thinking, urls=config.thinking_url, setting="thinking_url"
        ),
    }
    written = roll_out_splits(
        splits,
        inputs.problem_set,
        max_new_tokens=limit,
        seed=config.seed,
        batch_size=config.decoding.batch_size,
        folder=folder,
        finished=False,
        progress=progress,
        config=config.servers,
    )
    sides = {
        role: Side(role, split.model, written[role], problems, inputs.problem_set, split.sampling, limit)
        for role, split in splits.items()
    }
    same = pair.config.base.same_weights == pair.config.thinking.same_weights
    seen = Seen(**sides, same_weights=same)
    found = {
        "pair": pair.name,
        "problems": {"name": inputs.problem_set.name, "split": "validation", "n": len(problems)},
        "max_new_tokens": limit,
        "models": {side.role: side.to_dict() | {"sampling": prompts[side.role]["sampling"]} for side in seen.sides},
        "difference": {**seen.difference.to_dict(), "n": seen.difference.n},
        "verdicts": [asdict(verdict) for verdict in verdicts(seen)],
        "shown": seen.examples(_SHOWN),
    }
    write_json(folder / WRITTEN, found)
    return found
