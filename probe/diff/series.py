"""Checkpoint series of one training run, in the layout of transformers' Trainer and ``probe organism --series``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, ThinkTags, Where, load_model

_STEP = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Series:
    """The checkpoints of one run in the order of their steps; each is loaded when it is needed.

    Attributes:
        name: name of the run.
        steps: training step of each checkpoint.
        folders: folder of each checkpoint.
        asked: the settings of a model that is asked as all checkpoints are.
    """

    name: str
    steps: tuple[int, ...]
    folders: tuple[Path, ...]
    asked: ModelConfig

    def __len__(self) -> int:
        return len(self.steps)

    def load(self, at: int, device: Where = "auto", dtype: str = "float32", memory: int | str | None = None) -> Model:
        """Load one checkpoint.

        Args:
            at: its index in ``steps``.
            device, memory: as in :func:`~probe.load_model`.
            dtype: data type of the weights.
        """
        return load_model(self.asked.asked_alike(str(self.folders[at])), device=device, dtype=dtype, memory=memory)

    def __iter__(self) -> Iterator[tuple[int, Model]]:
        """The step and the model of each checkpoint; one model is loaded at a time."""
        return ((step, self.load(at)) for at, step in enumerate(self.steps))


def load_series(folder: str | Path, prompt: str | ModelConfig, think_tags: ThinkTags | None = None) -> Series:
    """Find the ``checkpoint-STEP`` folders of a run.

    Args:
        folder: the folder of the run.
        prompt: the prompt of all checkpoints, as in :class:`~probe.ModelConfig`, or the settings of a model that is
            asked as they are.
        think_tags: the tags around their thinking; None for those that their tokenizer has.

    Raises:
        ProbeError: if there are none.
    """
    folder = Path(folder).expanduser()
    found = sorted(
        (int(match[1]), each)
        for each in (folder.iterdir() if folder.is_dir() else ())
        if each.is_dir() and (match := _STEP.fullmatch(each.name))
    )
    if not found:
        raise ProbeError(f"{folder} holds no checkpoint-STEP folders: make some with probe organism --series")
    steps, folders = zip(*found, strict=True)
    asked = prompt if isinstance(prompt, ModelConfig) else ModelConfig(str(folder), prompt=prompt)
    if think_tags is not None:
        asked = replace(asked, think_close=think_tags.close, think_open=think_tags.open)
    return Series(folder.name, steps, folders, asked)
