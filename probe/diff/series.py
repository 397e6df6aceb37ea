"""A series of checkpoints of one training run, as transformers' Trainer and `probe organism --series` leave them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, load_model

_STEP = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Series:
    """Checkpoints in the order of their steps; each is loaded when it is asked for.

    Attributes:
        name: of the run.
        steps: of training.
        folders: one a step.
        prompt: of all of them.
    """

    name: str
    steps: tuple[int, ...]
    folders: tuple[Path, ...]
    prompt: str

    def __len__(self) -> int:
        return len(self.steps)

    def load(self, at: int, device: str = "auto", dtype: str = "float32") -> Model:
        """The model of the checkpoint in place ``at``."""
        return load_model(ModelConfig(str(self.folders[at]), prompt=self.prompt), device=device, dtype=dtype)

    def __iter__(self) -> Iterator[tuple[int, Model]]:
        """Step and model, one at a time."""
        return ((step, self.load(at)) for at, step in enumerate(self.steps))


def load_series(folder: str | Path, prompt: str) -> Series:
    """Find ``checkpoint-STEP`` folders.

    Raises:
        ProbeError: if there are none.
    """
    folder = Path(folder)
    found = sorted(
        (int(match[1]), each)
        for each in (folder.iterdir() if folder.is_dir() else ())
        if each.is_dir() and (match := _STEP.fullmatch(each.name))
    )
    if not found:
        raise ProbeError(f"{folder} holds no checkpoint-STEP folders: make some with probe organism --series")
    steps, folders = zip(*found, strict=True)
    return Series(folder.name, steps, folders, prompt)
