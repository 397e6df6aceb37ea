"""Pairs of clean and corrupt texts of equal length, and the metrics that compare their next tokens."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.edges.lens import Ids, Metric
from probe.circuits.names import METRICS
from probe.config import nearest, read_as
from probe.errors import ProbeError
from probe.files import read_jsonl, read_tensors, write_json, write_tensors
from probe.hooks import row_bytes
from probe.html import html_table
from probe.models import Model, check_frequencies
from probe.traces import encode_after

Side = tuple[list[int], int]
"""The token ids of a text, and its next token."""
FIRST = 4
"""The tokens at the beginning of a text that stay when it is cut."""
Row = tuple[list[int], list[int], int, int]
"""Token ids of a clean and of a corrupt text of equal length, and the next token of each."""


@dataclass(frozen=True, repr=False)
class Pairs:
    """Pairs of a clean and a corrupt text of equal length, grouped by length, without padding.

    Attributes:
        clean: token ids of the clean texts, one tensor ``[rows, pos]`` for each length.
        corrupt: token ids of the corrupt texts, in the same shape.
        right: the next token of each clean text, one tensor ``[rows]`` for each length.
        wrong: the next token of each corrupt text.
        second: True for the pairs of the second half, which shares no problem with the first; empty if the pairs are
            not of known problems.
        about: how the pairs were chosen, and how many prefixes were left out and why.
    """

    clean: tuple[Tensor, ...]
    corrupt: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    wrong: tuple[Tensor, ...]
    second: tuple[Tensor, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.clean)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return iter(zip(self.clean, self.corrupt, self.right, self.wrong, strict=True))

    def __repr__(self) -> str:
        sizes = [rows.shape[1] for rows in self.clean]
        long = f"{min(sizes)} to {max(sizes)} tokens" if sizes else "no tokens"
        halves = f", {sum(int(each.sum()) for each in self.second)} in the second half" if self.second else ""
        return f"Pairs({len(self)} pairs of {long}{halves})"

    def _repr_html_(self) -> str:
        return html_table(("", ""), [(name, str(value)) for name, value in self.about.items()], repr(self))

    def parts(self, rows: Callable[[int], int]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The groups, in parts of a limited number of rows, in the order of the pairs.

        Args:
            rows: gives the largest number of rows for a number of tokens, such as ``EdgeLens.rows_that_fit``.
        """
        found = []
        for clean, corrupt, right, wrong in self:
            several = rows(clean.shape[1])
            cut = (each.split(several) for each in (clean, corrupt, right, wrong))
            found += zip(*cut, strict=True)
        return found

    def batches(self, rows: int) -> list["Pairs"]:
        """The pairs as several sets of at most some rows and one length, in the order of the pairs.

        Args:
            rows: the largest number of pairs of a set.
        """
        return [_pairs([some], about=self.about) for some in self.parts(lambda _: rows)]

    def on(self, device: torch.device) -> "Pairs":
        """The same pairs on another device, such as that of the model that reads them."""
        groups = [tuple(tensor.to(device) for tensor in group) for group in self]
        return _pairs(groups, self.second, self.about)

    def split(self) -> tuple["Pairs", "Pairs"]:
        """Divide the pairs into those to find a circuit on and those to measure it on.

        Where the problems are known, the two share no problem; otherwise every second pair goes to the second part.
        """
        parts: list[list[tuple[Tensor, ...]]] = [[], []]
        before = 0
        for at, group in enumerate(self):
            second = self.second[at] if self.second else (before + torch.arange(len(group[0]))) % 2 == 1
            before += len(group[0])
            for part, mask in zip(parts, (~second, second), strict=True):
                if mask.any():
                    part.append(tuple(tensor[mask.to(tensor.device)] for tensor in group))
        return _pairs(parts[0], about=self.about), _pairs(parts[1], about=self.about)

    def save(self, path: str | Path) -> Path:
        """Write the pairs as a safetensors file, with ``about`` as JSON beside it, and return its path."""
        tensors = {}
        for at, group in enumerate(self):
            tensors |= {f"{at}.{name}": each.cpu() for name, each in zip(_NAMES, group, strict=True)}
        tensors |= {f"{at}.second": each for at, each in enumerate(self.second)}
        write_json(Path(path).with_suffix(".json"), self.about)
        return write_tensors(path, tensors)

    @classmethod
    def load(cls, path: str | Path) -> "Pairs":
        """Read the pairs that :meth:`save` wrote.

        Raises:
            ProbeError: if a file is missing or damaged.
        """
        found = read_tensors(path)
        about = read_as(dict[str, Any], Path(path).with_suffix(".json"))
        try:
            n = 1 + max(int(name.partition(".")[0]) for name in found)
            groups = [tuple(found[f"{at}.{name}"] for name in _NAMES) for at in range(n)]
        except (KeyError, ValueError):
            raise ProbeError(f"{path} does not hold pairs; remove it, and make them again") from None
        second = tuple(found[f"{at}.second"] for at in range(n) if f"{at}.second" in found)
        return _pairs(groups, second, about)


_NAMES = ("clean", "corrupt", "right", "wrong")


def rows_that_fit(model: Model, sites: int = 1) -> Callable[[int], int]:
    """Make the function for :meth:`Pairs.parts` that gives the number of texts a pass without gradients may read.

    Args:
        model: the model, whose budget the texts must fit into.
        sites: the number of sites that are read.
    """
    return lambda width: max(1, model.budget // row_bytes(model, width, sites))


def logit_difference(right: Int[Tensor, " rows"], wrong: Int[Tensor, " rows"]) -> Metric:
    """The metric that takes the logit of the right next token minus that of the wrong one, at the last token.

    Args:
        right: the right next token of each row.
        wrong: the wrong next token of each row.
    """

    def metric(logits: Float[Tensor, "rows pos vocab"]) -> Float[Tensor, " rows"]:
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, -1, right].float() - logits[rows, -1, wrong].float()

    return metric


def divergence(clean: Float[Tensor, "rows pos vocab"]) -> Metric:
    """The metric that takes minus the KL divergence from a clean run in nats, at the last token; 0 is the clean run.

    Args:
        clean: logits of the clean run.
    """
    log_p = clean[:, -1].detach().float().log_softmax(-1)

    def metric(logits: Float[Tensor, "rows pos vocab"]) -> Float[Tensor, " rows"]:
        return -(log_p.exp() * (log_p - logits[:, -1].float().log_softmax(-1))).sum(-1)

    return metric


def end_logits(model: Model, ids: Ids) -> Float[Tensor, "batch last vocab"]:
    """The logits at the last token of each text, the only ones that metrics use.

    Args:
        model: the plain model, with the hooks that are on it.
    """
    check_frequencies(model.hf, ids.shape[1])
    return model.hf(ids, logits_to_keep=1, use_cache=False).logits


def metric_of(name: str, logits: Callable[[Ids], Tensor], clean: Ids, right: Tensor, wrong: Tensor) -> Metric:
    """The metric of some pairs of equal length.

    Args:
        name: one of :data:`~probe.circuits.METRICS`.
        logits: computes the logits of texts; ``divergence`` is measured from those of the clean texts.
        clean: token ids of the clean texts.
        right, wrong: the next token of each clean and of each corrupt text.

    Raises:
        ProbeError: for an unknown metric.
    """
    if name not in METRICS:
        raise ProbeError(f"there is no metric {name!r}; {nearest(name, METRICS)} (choose from {', '.join(METRICS)})")
    if name == "divergence":
        with torch.no_grad():
            return divergence(logits(clean))
    return logit_difference(right, wrong)


def read_pairs(model: Model, path: str | Path, *, context: int | None = None, n_pairs: int | None = None) -> Pairs:
    """Read pairs from a JSONL file of objects with the texts ``clean``, ``corrupt``, ``right`` and ``wrong``.

    Args:
        model: its tokenizer reads the texts.
        path: the file. The first tokens of ``right`` and ``wrong`` are the next tokens.
        context: the largest number of tokens of a text. Longer texts, and the longer text of a pair, are then cut
            after their first tokens, so that both have equally many; None refuses texts of unequal length.
        n_pairs: the largest number of pairs, the first ones of the file; None for all.

    Raises:
        ProbeError: if a line lacks a text, its clean and corrupt texts are equal or differ in their number of tokens,
            or its next tokens are equal.
    """
    by_length: dict[int, list[Row]] = defaultdict(list)
    cut, left_out = 0, 0
    for number, (where, row) in enumerate(read_jsonl(path)):
        if n_pairs is not None and number >= n_pairs:
            left_out += 1
            continue
        missing = [key for key in ("clean", "corrupt", "right", "wrong") if not isinstance(row.get(key), str)]
        if missing:
            raise ProbeError(f"{where} has no text {missing[0]!r}")
        clean, corrupt = (model.encode(row[key]) for key in ("clean", "corrupt"))
        nexts = [encode_after(clean, row[key], model.decode, model.tokenizer)[:1] for key in ("right", "wrong")]
        if len(clean) != len(corrupt) and context is None:
            raise ProbeError(
                f"{where}: clean has {len(clean)} tokens and corrupt {len(corrupt)}; make them equally long"
            )
        if not all(nexts) or nexts[0] == nexts[1]:
            raise ProbeError(f"{where}: right and wrong begin with the same token, or are empty; make them differ")
        length = min(len(clean), len(corrupt), context or len(clean))
        cut += length < max(len(clean), len(corrupt))
        clean, corrupt = (shortened(ids, length) for ids in (clean, corrupt))
        if clean == corrupt:
            raise ProbeError(f"{where}: clean and corrupt are the same text; make them differ")
        by_length[length].append((clean, corrupt, nexts[0][0], nexts[1][0]))
    if not by_length:
        raise ProbeError(f"{path} has no pairs: write one JSON object on each line")
    return grouped(model, by_length, about={"file": Path(path).name, "cut": cut, "left out": left_out})


def shortened(ids: Sequence[int], length: int) -> list[int]:
    """Cut a text to a number of tokens, after its first tokens.

    The first tokens stay because every later token attends to them, whatever they are (attention sinks, Xiao et al.,
    2309.17453); without them a model does not work as it does on the whole text.

    Args:
        ids: token ids.
        length: the number of tokens that remain; a shorter text stays as it is.

    >>> shortened(range(10), 8)
    [0, 1, 2, 3, 6, 7, 8, 9]
    """
    if len(ids) <= length:
        return list(ids)
    first = min(FIRST, length // 2)
    return [*ids[:first], *ids[len(ids) - length + first :]]


def grouped(
    model: Model,
    by_length: Mapping[int, Sequence[Row]],
    second: Mapping[int, Sequence[bool]] | None = None,
    about: dict[str, Any] | None = None,
) -> Pairs:
    """Make pairs from rows of token ids.

    Args:
        model: gives the device.
        by_length: for each number of tokens, the clean ids, corrupt ids, right and wrong next token of each pair.
        second: whether each pair is of the second half; None if the halves are not known.
        about: how the pairs were chosen.
    """
    groups = [
        _group(model, [(a, right) for a, _, right, _ in rows], [(b, wrong) for _, b, _, wrong in rows])
        for rows in by_length.values()
    ]
    halves = () if second is None else tuple(torch.tensor(list(second[length])) for length in by_length)
    return _pairs(groups, halves, about or {})


def _group(model: Model, clean: list[Side], corrupt: list[Side]) -> tuple[Tensor, ...]:
    for side in (clean, corrupt):
        model.check_ids([*(ids for ids, _ in side), *([after] for _, after in side)])
    sides = [torch.tensor([ids for ids, _ in side], device=model.device) for side in (clean, corrupt)]
    nexts = [torch.tensor([after for _, after in side], device=model.device) for side in (clean, corrupt)]
    return sides[0], sides[1], nexts[0], nexts[1]


def _pairs(
    groups: Sequence[tuple[Tensor, ...]], second: tuple[Tensor, ...] = (), about: dict[str, Any] | None = None
) -> Pairs:
    clean, corrupt, right, wrong = zip(*groups, strict=True) if groups else ((), (), (), ())
    return Pairs(clean, corrupt, right, wrong, second, about or {})
