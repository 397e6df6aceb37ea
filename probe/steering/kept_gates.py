"""Gates on disk: one file for each batch, read when it is used, because together they do not fit on a device."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from probe.activations import SentenceActivations
from probe.engine import KeptFolder, Key
from probe.errors import ProbeError
from probe.files import object_hash, read_tensors, write_tensors
from probe.hooks import Forced
from probe.models import Pair, content_hash, identity, tensors_hash
from probe.problems import Problem
from probe.steering.gates import GateBatch, gates_of, text_batches, token_behaviours
from probe.taxonomy import Taxonomy
from probe.traces import Trace

_PARTS = "batch-*.safetensors"
_NARROW = {torch.long: torch.int32, torch.bool: torch.bool}


class KeptGates(Sequence[GateBatch]):
    """A sequence of batches of gates that are read from their files when they are used.

    A batch that is still held elsewhere is given again as the same object.

    Args:
        files: one file for each batch.
        device: where the batches are put.
    """

    def __init__(self, files: Sequence[Path], device: torch.device) -> None:
        self.files, self.device = list(files), device
        self._held: weakref.WeakValueDictionary[int, GateBatch] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, i: int) -> GateBatch: ...
    @overload
    def __getitem__(self, i: slice) -> "KeptGates": ...
    def __getitem__(self, i: int | slice) -> "GateBatch | KeptGates":
        if isinstance(i, slice):
            return KeptGates(self.files[i], self.device)
        number = range(len(self.files))[i]
        batch = self._held.get(number)
        if batch is None:
            batch = self._held[number] = self._read(self.files[number])
        return batch

    def _read(self, file: Path) -> GateBatch:
        there = read_tensors(file)
        if missing := [name for name in ("ids", "valid", "predicts", "emitted", "gate", *_LABELS) if name not in there]:
            raise ProbeError(f"{file} has no {missing[0]}; remove it to find these gates again")

        def tensor(name: str) -> Tensor:
            own = there[name]
            return own.to(self.device, torch.bool if own.dtype == torch.bool else torch.long)

        forced = Forced(*(tensor(name) for name in ("ids", "valid", "predicts", "emitted")))
        return GateBatch(forced, tensor("gate"), *(tensor(name) for name in _LABELS))

    def __repr__(self) -> str:
        return f"KeptGates({len(self)} batches)"


_LABELS = ("behaviour", "target")


def keep_gates(
    folder: str | Path,
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    acts: SentenceActivations | None = None,
    batch_size: int = 16,
) -> KeptGates:
    """Find the gates of some traces as :func:`~probe.steering.collect_gates` does, and keep each batch in a file.

    An interrupted call resumes: a batch whose file is there is not computed again.

    Args:
        folder: keeps the files.
        pair, taxonomy, traces, problems, acts, batch_size: see :func:`~probe.steering.collect_gates`.

    Raises:
        ProbeError: if a trace has a token that the base model cannot read, the folder keeps the gates of other inputs,
            or another process writes into it.
        ValueError: if traces and problems are not in the same order.
    """
    home = KeptFolder(folder, _key(pair, taxonomy, traces, problems, acts, batch_size), _PARTS)
    n = sum(1 for _ in text_batches(pair, traces, problems, batch_size))
    files = [home.folder / f"batch-{i:06d}.safetensors" for i in range(n)]
    if not (home.check() and all(file.exists() for file in files)):
        with home:
            named = None if acts is None else token_behaviours(taxonomy, traces, acts)
            for file, (part, emitted) in zip(files, text_batches(pair, traces, problems, batch_size), strict=True):
                if not file.exists():
                    said = None if named is None else [named[i] for i in part]
                    batch = gates_of(pair, taxonomy, [(traces[i], problems[i]) for i in part], emitted, said)
                    write_tensors(file, _tensors(batch))
    return KeptGates(files, pair.base.device)


def _tensors(batch: GateBatch) -> dict[str, Tensor]:
    whole = {**vars(batch.forced), **{name: getattr(batch, name) for name in ("gate", *_LABELS)}}
    return {name: tensor.to("cpu", _NARROW[tensor.dtype]).contiguous() for name, tensor in whole.items()}


def _key(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    acts: SentenceActivations | None,
    batch_size: int,
) -> Key:
    spans = (
        [trace.problem_id, list(trace.tokens), trace.truncated, [[s.token_start, s.token_end] for s in trace.sentences]]
        for trace in traces
    )
    # Traces that were imported may follow another prompt than the thinking model's own.
    ask = pair.thinking.prompt_text
    other = [
        [i, trace.prompt]
        for i, (trace, problem) in enumerate(zip(traces, problems, strict=True))
        if trace.prompt != ask(problem.question)
    ]
    site, normaliser, weights = taxonomy.content
    return {
        "work": "gates",
        "base": identity(pair.base),
        "thinking": identity(pair.thinking),
        "taxonomy": content_hash([site, normaliser.mean, weights.encoder]),  # what gives a state its behaviour
        "traces": object_hash([object_hash(each) for each in spans]),
        "questions": object_hash([problem.question for problem in problems]),
        **({"prompts": object_hash(other)} if other else {}),
        # Harvested sentences are large and follow from the traces: a sample of their numbers tells others apart.
        "sentences": None if acts is None else [object_hash(acts.index), tensors_hash([acts.rows(taxonomy.site)[:64]])],
        "batch_size": batch_size,  # a batch is what training takes at a time
    }
