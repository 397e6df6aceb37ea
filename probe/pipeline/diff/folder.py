"""The folder of ``probe diff``: what its results depend on, and the parts that are kept in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.config import to_dict
from probe.diff import OF_PROMPTS, PARTS
from probe.errors import ProbeError
from probe.files import file_hash, object_hash, read_json, write_json
from probe.models import Pair
from probe.pipeline.diff.config import DiffConfig
from probe.pipeline.folder import RunFolder
from probe.pipeline.imported import ImportedSplits
from probe.pipeline.run.inputs import prompts_hash, weights_hash
from probe.problems import ProblemSet

RESULTS = "results.json"
_SHARED = ("train", "max_new_tokens", "seed", "dtype", "grader")
"""Settings that every part depends on; those of a single part are in its own key."""
_RESULT = "result.json"
_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")


def diff_folder(
    config: DiffConfig, pair: Pair, problem_set: ProblemSet, imported: ImportedSplits | None, out: Path
) -> RunFolder:
    """The folder of a comparison, which is checked and not yet written.

    The same command in it resumes. Parts, series and more heads may be added later: what is finished is kept.

    Args:
        config: the settings, with the numbers of problems that were taken.
        problem_set: the problems.
        imported: the imported traces, if there are any.

    Raises:
        ProbeError: if it holds results of other settings or inputs, or something else; if the models have the same
            weights, and a part is asked for in which only weights can differ.
    """
    base, thinking = weights_hash(pair.base), weights_hash(pair.thinking)
    if base == thinking and {*config.parts} != {OF_PROMPTS}:
        raise ProbeError(
            f"{pair.base.name} and {pair.thinking.name} have the same weights, so training changed nothing: give two "
            f"models (two prompts are compared by --part {OF_PROMPTS})"
        )
    settings = {name: value for name, value in to_dict(config).items() if name in _SHARED}
    hashes = {
        "prompts": prompts_hash(pair),
        "problems": problem_set.hash,
        "base": base,
        "thinking": thinking,
        **({} if imported is None else {"traces": imported.hash}),
    }
    return RunFolder(out, {"diff": settings, **hashes})


def joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The results of earlier commands in a folder and those of this one, which replace them part by part.

    Args:
        before: the content of ``results.json``; empty if there is none.
        now: the same of this command alone.
    """
    found = {each["part"]: each for each in (*before.get("findings", ()), *now["findings"])}
    told = {part for part in found if part not in now["missing"]}
    missing = {**before.get("missing", {}), **now["missing"]}
    kept = {name: value for name, value in before.items() if name not in now["missing"]}
    whole = {
        **kept,
        **{name: value for name, value in now.items() if value is not None or name not in kept},
        "problems": {**before.get("problems", {}), **now["problems"]},
        "findings": [found[part] for part in PARTS if part in told],
        "missing": {part: missing[part] for part in PARTS if part in missing and part not in told},
    }
    return {name: whole[name] for name in sorted(whole)}  # the order of the commands leaves no trace


@dataclass(frozen=True)
class Kept:
    """Results that are kept as JSON in the folder of a comparison, each under its name.

    Attributes:
        folder: the folder.
        seed: the seed of the comparison.
    """

    folder: RunFolder
    seed: int

    def result(self, name: str, config: Mapping[str, Any], make: Callable[[Path], Any]) -> Any:
        """Read a result, or make and keep it.

        Args:
            name: the folder of the result, below the folder of the comparison.
            config: the settings that only this result depends on.
            make: called with the folder; returns what JSON can store.

        Returns:
            The result as JSON gives it back, whether it was made now or before.

        Raises:
            ProbeError: if it was made with other settings.
        """

        def made(folder: Path, finished: bool) -> Any:
            if not finished:
                write_json(folder / _RESULT, make(folder))
            return read_json(folder / _RESULT, fix=f"remove {folder} to make it again")

        return self.folder.branch(name, made, dict(config), self.seed)


def checkpoint_hash(folder: Path) -> str:
    """A hash of the weights in a folder, read from its files.

    Args:
        folder: the folder of a checkpoint.
    """
    files = sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)})
    return object_hash([[file.name, file_hash(file)] for file in files])
