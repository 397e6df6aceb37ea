"""``probe diff``: what training changed between two models, and along checkpoint series if there are any."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from probe.adapters import Dictionary
from probe.circuits import (
    Pairs,
    Reference,
    behaviour_look,
    behaviour_pairs,
    effect_of_heads,
    reference,
    start_tokens,
    with_others,
)
from probe.diff import (
    AT_LAYER,
    NEEDS_BEHAVIOUR,
    OF_SAE,
    ON_PAIRS,
    PARTS,
    USES_BEHAVIOUR,
    Texts,
    compare_parts,
    load_series,
    risen_behaviour,
)
from probe.errors import NotApplicable, ProbeError
from probe.files import read_json, write_json
from probe.models import Pair, content_hash, load_pair
from probe.pipeline.behaviour import named_behaviour, problems_of, taxonomy_in, traces_of
from probe.pipeline.cut import warn_cut
from probe.pipeline.diff.config import DiffConfig
from probe.pipeline.diff.folder import RESULTS, Kept, diff_folder, joined
from probe.pipeline.diff.series import check_series, series_results
from probe.pipeline.prompts import begin
from probe.pipeline.run.inputs import check_positions
from probe.pipeline.saes import sae_hash
from probe.problems import Problem, Taken
from probe.progress import progress_bar
from probe.reports import write_diff_report
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Traces


def diff(config: DiffConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Compare the models of a pair, and write ``results.json`` and ``report.html``.

    Args:
        out: folder of the results. An interrupted comparison resumes in it: traces, parts, changes of heads and
            checkpoints that are finished are read. Other parts, more heads and series can be added to a finished one:
            the results are then those of all commands.
        progress: show progress bars.

    Returns:
        The content of ``results.json``: the findings, and the numbers behind them.

    Raises:
        ProbeError: for invalid settings, before the expensive part.
    """
    out = Path(out).expanduser()
    pair_config = config.models
    runs = [(name, load_series(folder, pair_config.thinking)) for name, _, folder in map(_parted, config.series)]
    pair = load_pair(pair_config, device=config.device, dtype=config.dtype, memory=config.memory)
    check_series(pair, runs)
    if OF_SAE in config.parts and config.sae is not None and pair.base.d_model == pair.thinking.d_model:
        Dictionary.of(config.sae, pair.thinking, pair.base)  # refused here, before the other parts
    changes = bool(config.heads) and "heads" in config.parts
    wanted = {"train": config.train} | ({"test": config.test} if changes else {})
    taken, imported = problems_of(
        pair_config, pair.thinking, wanted, problems=config.problems, grader=config.grader, traces=config.traces
    )
    problem_set, train = taken.problem_set, taken.splits["train"]
    config = replace(config, train=len(train), test=len(taken.splits["test"]) if changes else config.test)
    lowest = min(pair.base.n_layers, pair.thinking.n_layers)
    if config.layer is not None and config.layer >= lowest:
        raise ProbeError(f"layer is {config.layer}: both models have the layers 0 to {lowest - 1}")
    behaviour = None
    if config.behaviour is not None or config.sentence is not None:
        behaviour = named_behaviour(
            config.behaviour, problem_set, run=config.run, sentence=config.sentence, thinking=pair.thinking
        )
    limit = config.max_new_tokens or pair_config.max_new_tokens
    for model in (pair.base, pair.thinking):
        check_positions(model, (*train, *taken.splits.get("test", ())), limit)
    with diff_folder(config, pair, problem_set, imported, out) as folder:
        models = {"base": pair.base, "thinking": pair.thinking}
        prompts = begin(out, models, train[0].question, remarks=taken.remarks, progress=progress)
        traces = traces_of(
            pair.thinking,
            taken,
            imported,
            out,
            max_new_tokens=limit,
            sampling=pair.thinking.own_sampling,
            seed=config.seed,
            progress=progress,
        )
        before = (
            read_json(out / RESULTS, fix="remove it and run the same command again") if (out / RESULTS).exists() else {}
        )
        stages = _Stages(config, pair, taken, traces, behaviour, Kept(folder, config.seed), limit, progress)
        stages.check(before)
        results = stages.compared()
        cut = warn_cut({pair.thinking.name: traces}, limit, progress=progress)
        counts = {split: len(some) for split, some in taken.splits.items()}
        results |= {"problems": {"name": problem_set.name, **counts}, "prompts": prompts, "cut": cut}
        _write(out, joined(before, results))
        if effects := stages.effects(results):
            results["effects"] = effects
        if runs:
            pairs, about = stages.series_pairs(), stages.about_pairs
            results |= series_results(config, pair, traces, pairs, runs, stages.kept, about)
        return _write(out, joined(before, results))


def _write(out: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Write the results and their page, and return the results as they are read."""
    write_json(out / RESULTS, results)
    read = read_json(out / RESULTS)
    write_diff_report(read, out / "report.html")
    return read


def _parted(series: str) -> tuple[str, str, str]:
    return series.partition("=")


@dataclass
class _Stages:
    """The stages of a comparison. The result of each is kept in the folder when it is finished."""

    config: DiffConfig
    pair: Pair
    taken: Taken
    traces: Traces
    asked: Behaviour | None
    kept: Kept
    limit: int
    progress: bool

    @property
    def train(self) -> Sequence[Problem]:
        return self.taken.splits["train"]

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The name of the behaviour and how it was chosen, or why there is none."""
        if self.asked is not None:
            self.asked.marks(self.traces, required=True)
            return {"name": self.asked.name, "chosen": None, "missing": None}

        def choose(folder: Path) -> dict[str, Any]:
            try:
                found = risen_behaviour(
                    self.pair,
                    self.taken.problem_set,
                    self.train,
                    self.traces,
                    max_new_tokens=self.limit,
                    sampling=self.pair.thinking.own_sampling,
                    seed=self.config.seed,
                    folder=folder / "base-traces",
                    progress=self.progress,
                )
            except NotApplicable as error:
                return {"name": None, "chosen": None, "missing": str(error)}
            return {"name": found.behaviour.name, "chosen": found.said, "missing": None}

        return self.kept.result("behaviour", {}, choose)

    @cached_property
    def behaviour(self) -> Behaviour | None:
        """The behaviour that was named, or that rose most; None if no part uses one, or none rose."""
        used = self.asked is not None or self.config.series or USES_BEHAVIOUR & set(self.config.parts)
        if not used or self.chosen["name"] is None:
            return None
        return self.asked or find_behaviour(self.chosen["name"], problem_set=self.taken.problem_set)

    @cached_property
    def about_behaviour(self) -> dict[str, Any]:
        """What the behaviour is known by in the keys of the results that depend on it."""
        run = self.config.run
        return {
            "behaviour": self.behaviour and self.behaviour.name,
            "taxonomy": None if run is None else content_hash(taxonomy_in(run)),
        }

    @property
    def about_pairs(self) -> dict[str, Any]:
        """The same for what depends on its pairs of texts."""
        return {"pairs": self.config.n_pairs, "context": self.config.context, **self.about_behaviour}

    @cached_property
    def texts(self) -> Texts:
        config = self.config
        return Texts(
            self.pair, self.taken.problem_set, tuple(self.train), self.traces, self.behaviour,
            n_pairs=config.n_pairs, context=config.context, layer=config.layer, sae=config.sae,
            max_new_tokens=self.limit, sampling=self.pair.thinking.own_sampling, seed=config.seed,
            progress=self.progress,
        )  # fmt: skip

    def check(self, before: Mapping[str, Any]) -> None:
        """Refuse what cannot be compared, before anything is: a second behaviour in a folder, a series without one."""
        if self.config.series and self.behaviour is None:
            raise ProbeError(f"series are compared for one behaviour: {self.chosen['missing']}")
        own, other = self.about_behaviour, before.get("behaviour")
        if self.behaviour is not None and other is not None and own != {name: before.get(name) for name in own}:
            raise ProbeError(
                f"{self.kept.folder.path} compares the models for {other!r}, and this command for "
                f"{self.behaviour.name!r}{'' if other != self.behaviour.name else ' of another taxonomy'}: name the "
                "first, or give another --out"
            )

    def compared(self) -> dict[str, Any]:
        """Every part, one after the other."""
        config, behaviour = self.config, self.behaviour
        about: dict[str, Any] = {"pairs": config.n_pairs, "context": config.context, "layer": config.layer}
        about |= {"sae": config.sae and sae_hash(config.sae)}
        users = {"pairs": ON_PAIRS, "context": NEEDS_BEHAVIOUR, "layer": AT_LAYER, "sae": {OF_SAE}}
        whole: dict[str, Any] = {
            "pair": self.pair.name,
            **self.about_behaviour,
            "chosen": behaviour and self.chosen["chosen"],
            "findings": [],
            "missing": {},
        }
        parts = progress_bar(
            [part for part in PARTS if part in config.parts], desc="parts", unit="part", show=self.progress
        )
        for part in parts:
            parts.set_description(part)
            if part in NEEDS_BEHAVIOUR and behaviour is None:
                whole["missing"][part] = self.chosen["missing"]
                continue
            own = {name: value for name, value in about.items() if part in users[name]}
            own |= self.about_behaviour if part in USES_BEHAVIOUR else {}
            found = self.kept.result(
                f"parts/{part}", own, lambda _, part=part: compare_parts(self.texts, [part]).to_dict()
            )
            whole["findings"] += found["findings"]
            whole["missing"] |= found["missing"]
            whole |= {name: value for name, value in found.items() if name not in whole}
        return whole

    def effects(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """The thinking model with the heads that grew most ablated, weakened and strengthened, beside random heads."""
        config, behaviour = self.config, self.behaviour
        grown = [(layer, head) for layer, head in results.get("heads", {}).get("grown", ())]
        n_heads = self.pair.thinking.hf.config.get_text_config().num_attention_heads
        heads = with_others(grown, n_heads, config.heads)
        if behaviour is None or not heads:
            return None
        names = [f"a{layer}.h{head}" for layer, head in heads]
        about = {"heads": names, "test": config.test, "draws": config.draws, **self.about_pairs}
        ways = {
            str(way): self.kept.result(f"effects/{len(heads)}/{way}", about, self._effect(heads, way, behaviour))
            for way in ("resample", *config.factors)
        }
        return {"heads": names, "ways": ways}

    def _effect(
        self, heads: list[tuple[int, int]], way: str | float, behaviour: Behaviour
    ) -> Callable[[Path], dict[str, Any]]:
        config, model = self.config, self.pair.thinking

        def change(_: Path) -> dict[str, Any]:
            test = self.taken.splits["test"]
            effects = effect_of_heads(
                model,
                heads,
                behaviour_look(model, self.taken.problem_set, test, behaviour, max_new_tokens=self.limit),
                way,
                reference=self._written if way == "resample" else None,
                tokens=start_tokens(self.traces),
                n_controls=config.draws,
                seed=config.seed,
                progress=self.progress,
            )
            return {name: effect.to_dict() for name, effect in effects.items()}

        return change

    @cached_property
    def _written(self) -> Reference:
        return reference(self.pair.thinking, self.traces, tokens=start_tokens(self.traces))

    def series_pairs(self) -> Pairs:
        """The pairs of texts that checkpoints read."""
        assert self.behaviour is not None
        return behaviour_pairs(
            self.pair.thinking, self.traces, self.train, self.behaviour,
            n_pairs=self.config.n_pairs, context=self.config.context, seed=self.config.seed,
        )  # fmt: skip
