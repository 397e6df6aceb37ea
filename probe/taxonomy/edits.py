"""What people say about behaviours: a YAML file beside the taxonomy that renames, describes, annotates and merges.

    3:
      name: checks a result
      note: only arithmetic
    5:
      merge_into: 3

Edits concern how behaviours are shown and counted. They change neither the SAE nor anything computed with it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
import yaml
from jaxtyping import Int
from torch import Tensor

from probe.config import from_dict, nearest
from probe.errors import ProbeError
from probe.files import write_text


@dataclass(frozen=True)
class BehaviourEdit:
    """What is said about one behaviour; None for what is left as it is."""

    name: str | None = None
    """What it is called instead of its label."""
    description: str | None = None
    """What its sentences do."""
    note: str | None = None
    """Anything else worth knowing."""
    merge_into: int | None = None
    """The behaviour that it is shown and counted as."""


@dataclass(frozen=True)
class Edits:
    """The edits of every behaviour of a taxonomy, in order."""

    behaviours: tuple[BehaviourEdit, ...]

    @classmethod
    def none(cls, n_behaviours: int) -> "Edits":
        """No edits: every behaviour is shown as it is."""
        return cls((BehaviourEdit(),) * n_behaviours)

    @classmethod
    def read(cls, path: str | Path, n_behaviours: int) -> "Edits":
        """Read a file of edits.

        Args:
            path: the file, ``behaviours.yaml``.
            n_behaviours: of the taxonomy that it is about.

        Raises:
            ProbeError: if the file cannot be read; an unknown key, one given twice, a value of the wrong type or a
                behaviour that the taxonomy does not have; a behaviour merged into itself, directly or in a circle.
        """
        path = Path(path)
        edits = [BehaviourEdit()] * n_behaviours
        for number, said in _read(path).items():
            where = f"{path}: {number}"
            at = _checked(where, number, n_behaviours)
            edits[at] = from_dict(BehaviourEdit, {} if said is None else said, where)
            if edits[at].merge_into is not None:
                target = _checked(f"{where}.merge_into", edits[at].merge_into, n_behaviours)
                if target == at:
                    raise ProbeError(f"{where}.merge_into merges behaviour {at} into itself; leave that line out")
        found = cls(tuple(edits))
        for number in range(n_behaviours):
            way = found._way(number)
            if len(set(way)) < len(way):
                circle = " → ".join(map(str, way))
                raise ProbeError(f"{path}: {number}.merge_into leads in a circle ({circle}); leave one of them out")
        return found

    @property
    def merged(self) -> list[int]:
        """For each behaviour the one that it is shown as, itself if it is not merged."""
        return [self._way(number)[-1] for number in range(len(self.behaviours))]

    @overload
    def apply(self, behaviours: Tensor) -> Tensor: ...
    @overload
    def apply(self, behaviours: Sequence[int | None]) -> list[int | None]: ...
    def apply(
        self, behaviours: Int[Tensor, "*batch"] | Sequence[int | None]
    ) -> Int[Tensor, "*batch"] | list[int | None]:
        """The behaviours as they are shown: those merged into another are that one; None stays None."""
        merged = self.merged
        if isinstance(behaviours, Tensor):
            return torch.tensor(merged, device=behaviours.device)[behaviours.long()]
        return [None if behaviour is None else merged[behaviour] for behaviour in behaviours]

    def names(self, labels: Sequence[str]) -> list[str]:
        """What each behaviour is called: its own name if it was given one, otherwise its label."""
        return [edit.name or label for edit, label in zip(self.behaviours, labels, strict=True)]

    def _way(self, number: int) -> list[int]:
        """From a behaviour over what it is merged into to the last; one that comes twice ends it."""
        way = [number]
        while (target := self.behaviours[way[-1]].merge_into) is not None:
            way.append(target)
            if target in way[:-1]:
                break
        return way


def write_template(path: str | Path, labels: Sequence[str]) -> Path:
    """Write a file of comments that says how to edit these behaviours; a file that is there is left as it is.

    Args:
        path: the file, ``behaviours.yaml`` beside a taxonomy.
        labels: one a behaviour.

    Returns:
        The path.
    """
    path = Path(path)
    if path.exists():
        return path
    lines = [
        "# What you say about the behaviours of this taxonomy, by number: take out the '# ' of a number and its keys.",
        "# Only how they are shown and counted is changed. Keys, each optional:",
        "#",
        "# 0:",
        "#   name: what to call it instead of its label",
        "#   description: what its sentences do",
        "#   note: anything else worth knowing",
        "#   merge_into: 1  # the behaviour to show and count it as",
        "#",
        "# The behaviours and their labels:",
        "",
    ]
    for number, label in enumerate(labels):
        # In one line and printable: nothing of a label may end its comment, or be refused by a YAML reader.
        shown = " ".join("".join(c if c.isprintable() else " " for c in label).split())
        lines += [f"# {number}:  # {shown}", "#   name:", ""]
    return write_text(path, "\n".join(lines))


def _checked(where: str, number: object, n_behaviours: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        known = nearest(str(number), map(str, range(n_behaviours)))
        raise ProbeError(f"{where}: a behaviour is named by its number; {known}")
    if not 0 <= number < n_behaviours:
        raise ProbeError(f"{where}: there is no behaviour {number}; give 0 to {n_behaviours - 1}")
    return number


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML readers silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[object] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                said = f"{key!r} comes a second time; put both together under one"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[Any, Any]:
    try:
        data = yaml.load(path.read_bytes(), _Loader)
    except OSError:
        raise ProbeError(f"{path} cannot be read; is it a file?") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ProbeError(f"{path}{f':{mark.line + 1}' if mark else ''} cannot be read ({said})") from None
    if data is not None and not isinstance(data, dict):
        raise ProbeError(f"{path} must hold a number and its keys for each behaviour, not {type(data).__name__}")
    return data or {}
