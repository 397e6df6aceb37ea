"""The stages of ``probe circuits``. Each is kept in a folder of its own, and resumes where it was interrupted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from probe.circuits import (
    Circuit,
    EdgeLens,
    Faithfulness,
    Graph,
    Keeping,
    Look,
    Pairs,
    Reference,
    Window,
    attribute,
    behaviour_look,
    behaviour_pairs,
    effect_of_heads,
    latents_of,
    pairs_look,
    read_pairs,
    reference,
    sizes_of,
    start_tokens,
    strongest_heads,
    with_others,
)
from probe.errors import NotApplicable
from probe.files import object_hash, read_json, read_tensors, write_json, write_tensors
from probe.pipeline.behaviour import traces_of
from probe.pipeline.circuits.config import CircuitConfig
from probe.pipeline.circuits.inputs import CircuitInputs
from probe.pipeline.circuits.kept import Measurements
from probe.pipeline.folder import RunFolder
from probe.pipeline.saes import sae_hash
from probe.progress import progress_bar
from probe.traces import Traces

_CLOSE = 20
"""The search for the smallest circuit ends within one part in this many of its size."""
_PART = 8
"""The most pairs whose scores are kept as one file."""
_TEXTS = 150
"""The most traces that the output of heads is taken from for ablation."""


@dataclass(frozen=True)
class CircuitStages:
    """The work of each stage, in the order of the methods."""

    config: CircuitConfig
    inputs: CircuitInputs
    folder: RunFolder
    progress: bool = False

    def stage(self, name: str, make: Any, *settings: str, **more: Any) -> Any:
        """Run a stage, or load it if it is finished.

        Args:
            name: its folder.
            make: called with the folder and whether the stage is finished.
            settings: the names of the settings that it depends on.
            more: other values that it depends on.
        """
        chosen = {each: getattr(self.config, each) for each in settings} | more
        return self.folder.stage(name, make, chosen, self.config.seed)

    def traces(self) -> Traces | None:
        """One trace of each train problem; None if pairs of texts are given."""
        inputs = self.inputs
        if inputs.taken is None:
            return None

        def make(folder: Path, _finished: bool) -> Traces:
            assert inputs.taken is not None
            return traces_of(
                inputs.model,
                inputs.taken,
                inputs.imported,
                folder.parent,
                max_new_tokens=inputs.limit,
                sampling=inputs.sampling,
                seed=self.config.seed,
                progress=self.progress,
            )

        return self.stage("traces", make, "train", max_new_tokens=inputs.limit)

    def pairs(self, traces: Traces | None) -> Pairs:
        """Pairs of texts, from traces or from a file."""
        config, inputs = self.config, self.inputs

        def make(folder: Path, finished: bool) -> Pairs:
            file = folder / "pairs.safetensors"
            if finished:
                return Pairs.load(file)
            if config.pairs is not None:
                made = read_pairs(
                    inputs.model, Path(config.pairs).expanduser(), context=config.context, n_pairs=config.n_pairs
                )
            else:
                assert traces is not None and inputs.behaviour is not None
                made = behaviour_pairs(
                    inputs.model, traces, inputs.train, inputs.behaviour,
                    n_pairs=config.n_pairs, context=config.context, seed=config.seed,
                )  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
            made.save(file)
            return made

        found = self.stage("pairs", make, "n_pairs", "context").on(inputs.model.device)
        if not all(map(len, found.split())):
            raise NotApplicable(
                f"{len(found)} pairs of texts are too few to find a circuit on some and measure it on others: "
                + ("give more traces (--train), or another behaviour" if config.pairs is None else "give more pairs")
                + ", and another --out"
            )
        return found

    def scores(self, lens: EdgeLens, found: Pairs) -> Circuit:
        """Every edge with its score, one part of the pairs after the other."""
        config = self.config

        def make(folder: Path, finished: bool) -> torch.Tensor:
            file = folder / "scores.safetensors"
            if finished:
                return read_tensors(file)["scores"]
            kept = Measurements(folder / "parts", {"work": "edge scores", "after": self.folder.key, **settings})
            total = torch.zeros(lens.graph.edges.shape, dtype=torch.float64)
            for i, part in enumerate(progress_bar(found.batches(_PART), desc=config.method, show=self.progress)):
                mean = kept.tensor(
                    f"{i:05d}",
                    lambda part=part: (
                        attribute(
                            lens, part, config.method, metric=config.metric, steps=config.steps, window=self.window
                        ).scores
                    ),
                )
                total += mean.double() * len(part)
            scores = (total / len(found)).float()
            write_tensors(file, {"scores": scores})
            return scores

        names = ("method", "metric", "steps", "window")
        settings = {name: getattr(config, name) for name in names}
        about = {"method": config.method, "metric": config.metric, "pairs": len(found)}
        about |= {} if config.window is None else {"window": config.window}
        return Circuit(lens.graph, self.stage("scores", make, *names), about)

    def circuit(self, lens: EdgeLens, scored: Circuit, found: Pairs, second: Pairs) -> tuple[Circuit, dict[str, Any]]:
        """The smallest circuit that keeps enough on the pairs that it is found on, and what is kept on the others."""
        config = self.config
        settings = {"keeps": config.keeps, "shares": list(config.shares)}

        def make(folder: Path, finished: bool) -> dict[str, Any]:
            file = folder / "kept.json"
            if finished:
                return read_json(file)
            kept = Measurements(folder / "sizes", {"work": "faithfulness", "after": self.folder.key, **settings})

            @cache
            def measured(half: str) -> Keeping:
                pairs = found if half == "first" else second
                return Keeping(lens, pairs, metric=config.metric, window=self.window)

            def keeps(half: str, size: int) -> float:
                return kept.number(f"{half}-{size}", lambda: measured(half)(scored.top(size)))

            sizes = sizes_of(scored, config.shares)
            values = [keeps("second", size) for size in progress_bar(sizes, desc="faithfulness", show=self.progress)]
            size = _smallest(lens.graph, lambda size: keeps("first", size) >= config.keeps, progress=self.progress)
            curve = Faithfulness(tuple(each / len(lens.graph) for each in sizes), tuple(values))
            told = {
                "size": size,
                "first": keeps("first", size),
                "kept": keeps("second", size),
                "faithfulness": {
                    "shares": list(curve.shares), "values": list(curve.values), "cpr": curve.cpr, "cmd": curve.cmd,
                },
            }  # fmt: skip
            write_json(file, told)
            return read_json(file)

        told = self.stage("circuit", make, **settings)
        return scored.top(told["size"]), told

    def ablation(self, circuit: Circuit, traces: Traces | None, found: Pairs, second: Pairs) -> dict[str, Any]:
        """The circuit's strongest heads ablated: on the second half of the pairs, and in rollouts on test problems."""
        config, inputs = self.config, self.inputs
        heads = with_others(strongest_heads(circuit, len(circuit.graph)), circuit.graph.n_heads, config.heads)
        names = ("heads", "ablation", "where", "draws", "test")

        def make(folder: Path, finished: bool) -> dict[str, Any]:
            file = folder / "effects.json"
            if finished:
                return read_json(file)
            starts = traces is not None and config.where == "starts"
            tokens = start_tokens(traces) if starts and traces is not None else None
            known = Reference({})
            if config.ablation != "zero" and heads:
                texts: Any = traces[:_TEXTS] if traces is not None else [ids.tolist() for ids in _clean(found)]
                layers = [layer for layer, _ in heads]
                known = reference(inputs.model, texts, layers, tokens=tokens, seed=config.seed)
            looks: dict[str, Look] = {"pairs": pairs_look(inputs.model, second)}
            if inputs.test and inputs.behaviour is not None and inputs.taken is not None:
                looks["rollouts"] = behaviour_look(
                    inputs.model, inputs.taken.problem_set, inputs.test, inputs.behaviour, max_new_tokens=inputs.limit
                )
            settings = {name: getattr(config, name) for name in names}
            effects: dict[str, Any] = {"heads": [f"a{layer}.h{head}" for layer, head in heads]}
            for name, look in looks.items():
                kept = Measurements(folder / name, {"work": name, "after": self.folder.key, **settings})
                measured = effect_of_heads(
                    inputs.model, heads, look, config.ablation, reference=known, tokens=tokens,
                    n_controls=config.draws, seed=config.seed, keep=kept.measured, progress=self.progress,
                )  # fmt: skip
                effects |= {what: effect.to_dict() for what, effect in measured.items()}
            write_json(file, effects)
            return read_json(file)

        return self.stage("ablation", make, *names)

    def latents(self, traces: Traces | None, pairs: Pairs) -> dict[str, Any] | None:
        """The latents of the SAEs that are named, scored on all pairs; None if none is."""
        config, inputs = self.config, self.inputs
        if not inputs.dictionaries:
            return None

        def make(folder: Path, finished: bool) -> dict[str, Any]:
            file = folder / "latents.json"
            if not finished:
                told = latents_of(
                    inputs.model, inputs.dictionaries, pairs, traces=traces, behaviour=inputs.behaviour,
                    metric=config.metric, steps=config.steps, window=self.window, seed=config.seed,
                    progress=self.progress,
                )  # fmt: skip
                write_json(file, told)
            return read_json(file)

        saes = {sae: sae_hash(sae) for sae in dict.fromkeys(config.sae)}
        return self.stage(f"latents/{object_hash(saes)[:12]}", make, "metric", "steps", "window", saes=saes)

    @property
    def window(self) -> Window:
        """The tokens at which edges are scored and cut."""
        return (0, None) if self.config.window is None else (-self.config.window, None)


def _clean(pairs: Pairs) -> list[torch.Tensor]:
    return [ids for group in pairs.clean for ids in group]


def _smallest(graph: Graph, enough: Callable[[int], bool], *, progress: bool) -> int:
    """Bisect for the smallest size that is enough, up to 5 % of it.

    Faithfulness may fall as edges are added, so a smaller size may have been missed.
    """
    low, high = 0, len(graph)
    with progress_bar(desc="smallest circuit", unit="size", show=progress) as bar:
        while high - low > max(1, high // _CLOSE):
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
            bar.set_postfix_str(f"at most {high:,} of {len(graph):,} edges", refresh=False)
            bar.update()
    return high
