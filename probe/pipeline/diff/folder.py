"""The folder of ``probe diff``: what its results depend on, and the parts that are kept in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.config import to_dict
from probe.files import file_hash, object_hash, read_json, write_json
from probe.models import Pair, content_hash
from probe.pipeline.behaviour import taxonomy_in
from probe.pipeline.diff.config import DiffConfig
from probe.pipeline.folder import RunFolder
from probe.pipeline.imported import ImportedSplits
from probe.pipeline.run.inputs import prompts_hash, weights_hash
from probe.problems import ProblemSet

_SHARED = ("train", "max_new_tokens", "seed", "dtype", "sentence", "behaviour", "grader")
"""Settings that every part depends on; those of a single part are in its own key."""
_RESULT = "result.json"
_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")


def diff_folder(
    config: DiffConfig, pair: Pair, problem_set: ProblemSet, imported: ImportedSplits | None, out: Path
) -> RunFolder:
    """The folder of a comparison, which is checked and not yet written.

    The same command in it resumes. Parts, series and numbers of heads may be added later: what is finished is kept.

    Args:
        config: the settings, with the numbers of problems that were taken.
        problem_set: the problems.
        imported: the imported traces, if there are any.

    Raises:
        ProbeError: if it holds results of other settings or inputs, or something else.
    """
    settings = {name: value for name, value in to_dict(config).items() if name in _SHARED}
    hashes = {
        "prompts": prompts_hash(pair),
        "problems": problem_set.hash,
        "base": weights_hash(pair.base),
        "thinking": weights_hash(pair.thinking),
        **({} if imported is None else {"traces": imported.hash}),
        "taxonomy": None if config.run is None else content_hash(taxonomy_in(config.run)),
    }
    return RunFolder(out, {"diff": settings, **hashes})


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


def sae_hash(sae: str) -> str:
    """What an SAE is known by: the content of its folder, or its published name.

    Args:
        sae: a folder, or RELEASE/SAE_ID.
    """
    folder = Path(sae).expanduser()
    return checkpoint_hash(folder) if folder.is_dir() else sae
