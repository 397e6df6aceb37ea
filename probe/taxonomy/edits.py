"""Edits of behaviours: a YAML file beside the taxonomy in which people rename, describe, annotate and merge them.

    3:
      name: checks a result
      note: only arithmetic
    5:
      merge_into: 3

Edits change how behaviours are shown and counted. They change neither the SAE nor anything computed with it.
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
    """The edits of one behaviour; None leaves a property as it is."""

    name: str | None = None
    """The name that replaces its label."""
    description: str | None = None
    """What its sentences do."""
    note: str | None = None
    """Anything else worth knowing."""
    merge_into: int | None = None
    """The number of the behaviour that it is shown and counted as."""


@dataclass(frozen=True)
class Edits:
    """The edits of every behaviour of a taxonomy, in order."""

    behaviours: tuple[BehaviourEdit, ...]

    @classmethod
    def none(cls, n_behaviours: int) -> "Edits":
        """Return edits that change nothing."""
        return cls((BehaviourEdit(),) * n_behaviours)

    @classmethod
    def read(cls, path: str | Path, n_behaviours: int) -> "Edits":
        """Read a file of edits.

        Args:
            path: the file, ``behaviours.yaml``.
            n_behaviours: the number of behaviours of the taxonomy.

        Raises:
            ProbeError: if the file cannot be read; if a key is unknown or given twice, a value has the wrong type, or
                the taxonomy has no such behaviour; or if a behaviour is merged into itself, directly or in a circle.
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
                    raise ProbeError(f"{where}.merge_into merges behaviour {at} into itself; delete that line")
        found = cls(tuple(edits))
        for number in range(n_behaviours):
            way = found._way(number)
            if len(set(way)) < len(way):
                circle = " → ".join(map(str, way))
                raise ProbeError(f"{path}: {number}.merge_into leads in a circle ({circle}); delete one of these lines")
        return found

    @property
    def merged(self) -> list[int]:
        """For each behaviour, the number of the one that it is shown as: itself if it is not merged."""
        return [self._way(number)[-1] for number in range(len(self.behaviours))]

    @overload
    def apply(self, behaviours: Tensor) -> Tensor: ...
    @overload
    def apply(self, behaviours: Sequence[int | None]) -> list[int | None]: ...
    def apply(
        self, behaviours: Int[Tensor, "*batch"] | Sequence[int | None]
    ) -> Int[Tensor, "*batch"] | list[int | None]:
        """Replace merged behaviours by those that they are shown as.

        Args:
            behaviours: numbers of behaviours; None stays None.
        """
        merged = self.merged
        if isinstance(behaviours, Tensor):
            return torch.tensor(merged, device=behaviours.device)[behaviours.long()]
        return [None if behaviour is None else merged[behaviour] for behaviour in behaviours]

    def names(self, labels: Sequence[str]) -> list[str]:
        """Return the name of each behaviour: the edited one, otherwise its label.

        Args:
            labels: one for each behaviour.
        """
        return [edit.name or label for edit, label in zip(self.behaviours, labels, strict=True)]

    def _way(self, number: int) -> list[int]:
        """The chain of merges from a behaviour; it ends at the first behaviour that comes twice."""
        way = [number]
        while (target := self.behaviours[way[-1]].merge_into) is not None:
            way.append(target)
            if target in way[:-1]:
                break
        return way


def write_template(path: str | Path, labels: Sequence[str]) -> Path:
    """Write a file of comments that explains how to edit these behaviours; an existing file is kept.

    Args:
        path: the file, ``behaviours.yaml`` beside a taxonomy.
        labels: one for each behaviour.
    """
    path = Path(path)
    if path.exists():
        return path
    lines = [
        "# Edit the behaviours of this taxonomy by number: remove the '# ' before a number and its keys.",
        "# Edits change only how behaviours are shown and counted. Keys, all optional:",
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
        # One printable line: a label must neither end its comment nor be invalid YAML.
        shown = " ".join("".join(c if c.isprintable() else " " for c in label).split())
        lines += [f"# {number}:  # {shown}", "#   name:", ""]
    return write_text(path, "\n".join(lines))


def _checked(where: str, number: object, n_behaviours: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        known = nearest(str(number), map(str, range(n_behaviours)))
        raise ProbeError(f"{where}: name a behaviour by its number; {known}")
    if not 0 <= number < n_behaviours:
        raise ProbeError(f"{where}: there is no behaviour {number}; give 0 to {n_behaviours - 1}")
    return number


class _Loader(yaml.SafeLoader):
    """Refuses a duplicate key, of which YAML loaders silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[object] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"{key!r} is given twice; merge both into one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[Any, Any]:
    try:
        data = yaml.load(path.read_bytes(), _Loader)
    except OSError:
        raise ProbeError(f"{path} cannot be read; is it a file?") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ProbeError(f"{path}{f':{mark.line + 1}' if mark else ''} cannot be read ({problem})") from None
    if data is not None and not isinstance(data, dict):
        raise ProbeError(f"{path} must hold a number and its keys for each behaviour, not {type(data).__name__}")
    return data or {}
