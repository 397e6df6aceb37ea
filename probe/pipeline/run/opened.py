"""A run that is opened from its folder. Each part is read when it is first accessed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.config import nearest, read_as
from probe.errors import ProbeError
from probe.html import html_table
from probe.pipeline.run.config import RunConfig
from probe.pipeline.run.kept import CONFIG, recalled
from probe.reports import arm_rows, read_behaviours, read_graded, read_results

if TYPE_CHECKING:
    from probe.circuits import Circuit
    from probe.hybrid import Arm, ArmResult
    from probe.models import Pair
    from probe.pipeline.run.experiment import Experiment
    from probe.pipeline.run.own import Answer
    from probe.pipeline.run.stages import Vectors
    from probe.problems import ProblemSet
    from probe.steering import BasePolicy
    from probe.taxonomy import Taxonomy
    from probe.traces import Traces


def open_run(folder: str | Path) -> "Run":
    """Open a run from its folder. Nothing is read, and no model is loaded, before it is needed.

    Args:
        folder: the folder that ``probe run`` wrote.

    Raises:
        ProbeError: if the folder holds no run, or a run whose stages are not finished.

    >>> run = open_run("runs/rl")  # doctest: +SKIP
    >>> run.traces.train[0], run.taxonomy, run.arms["hybrid"].texts[0]  # doctest: +SKIP
    """
    folder = Path(folder).expanduser()
    if not (folder / CONFIG).is_file():
        raise ProbeError(_what_it_is(folder))
    return Run(folder)


def _what_it_is(folder: Path) -> str:
    """A sentence on what a folder without a run's settings holds, and how to open it."""
    if (folder / "discover.json").is_file():
        return f"{folder} holds a discovery; open its taxonomy with: probe.Taxonomy.load({str(folder / 'taxonomy')!r})"
    begun = read_as(dict[str, Any], folder / "run.json") if (folder / "run.json").is_file() else {}
    if "config" in begun:
        return f"the stages of {folder} are not finished; run the same `probe run` or `probe discover` again"
    return f"{folder} holds no run; make one with: probe run --pair tiny-rl --out {folder}"


class Run:
    """A run, from :func:`open_run`. Each part is read on first access and kept.

    Results, traces, behaviours, taxonomy, vectors, policy and circuits need no models. The pair, arms and answers need
    the models; models, prompts and problems are then compared with those of the run.

    Attributes:
        folder: the folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> RunConfig:
        """The settings, with the numbers of problems that were taken."""
        return recalled(self.folder)[0]

    @cached_property
    def results(self) -> dict[str, Any]:
        """The contents of ``results.json``.

        Raises:
            ProbeError: if the arms are not finished.
        """
        return read_results(self.folder)

    @cached_property
    def behaviours(self) -> list[dict[str, Any]]:
        """The contents of ``behaviours.json``: for each behaviour its label, its examples and what its vector did."""
        return read_behaviours(self.folder)

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self.folder / "report.html"

    @cached_property
    def problems(self) -> "ProblemSet":
        """The problem set, with its splits as the run used them."""
        from probe.pipeline.run.inputs import sizes_of, taken_problems

        config, pair = recalled(self.folder)
        return taken_problems(config, pair, sizes_of(config.sizes), graded=("validation", "test"))[0].problem_set

    @cached_property
    def traces(self) -> "KeptTraces":
        """The traces: ``train``, ``validation`` and ``thinking`` of the thinking model, ``base`` of the base model."""
        return KeptTraces(self.folder / "traces", lambda name: getattr(self.experiment.rollouts, name))

    @cached_property
    def taxonomy(self) -> "Taxonomy":
        """The behaviours."""
        from probe.taxonomy import Taxonomy

        return Taxonomy.load(self.folder / "taxonomy")

    @cached_property
    def vectors(self) -> "Vectors":
        """The vectors of every seed, the single vector, and the reader that predicts the next behaviour, on the CPU."""
        from probe.pipeline.run.stages import Vectors
        from probe.steering import ComingReader, load_mechanism

        kept = self.folder / "steering"
        seeds = [load_mechanism(kept / f"seed-{seed}") for seed in self.config.steering.seeds]
        return Vectors(seeds, load_mechanism(kept / "single"), ComingReader.load(kept / "reader"))

    @cached_property
    def policy(self) -> "BasePolicy":
        """The policy that reads the base model alone, on the CPU.

        Raises:
            ProbeError: if no arm of the run needed it.
        """
        from probe.steering import BasePolicy

        kept = self.folder / "policy"
        if not (kept / "manifest.json").is_file():
            raise ProbeError(
                f"{self.folder} has no policy; probe hybrid --run {self.folder} --arms oracle-free learns it"
            )
        return BasePolicy.load(kept)

    @cached_property
    def circuits(self) -> "dict[str, Circuit]":
        """The circuits in the folder ``circuits`` of the run, by name.

        ``probe circuits --run RUN --behaviour NAME --out RUN/circuits/NAME`` puts one there.
        """
        from probe.circuits import Circuit

        return {file.parent.name: Circuit.load(file) for file in sorted(self.folder.glob("circuits/*/circuit.json"))}

    @cached_property
    def arms(self) -> "Arms":
        """The results of the arms, base and thinking model included, by name; each is read on demand."""
        return Arms(self)

    def arm(self, name: str) -> "Arm":
        """The arm with this name, to decode more with :func:`~probe.decode_hybrid` or :func:`~probe.evaluate_arm`.

        Parts that the arm needs and the run has not learned are learned now.

        Raises:
            ProbeError: if there is no such arm, or it is not decoded token by token.
        """
        from probe.pipeline.run.arms import make_arm

        return make_arm(self.experiment, name)

    def ask(self, question: str, arm: str = "hybrid", *, max_new_tokens: int | None = None) -> "Answer":
        """Put one question to an arm.

        Args:
            question: the question, without a prompt template.
            arm: the name of an arm that is decoded token by token.
            max_new_tokens: maximum number of tokens of the answer; None takes the limit of the run.
        """
        from probe.pipeline.run.own import ask

        return ask(self.experiment, arm, question, max_new_tokens=max_new_tokens)

    @property
    def pair(self) -> "Pair":
        """Both models.

        Raises:
            ProbeError: if they are missing, or are not the models of the run.
        """
        return self.experiment.inputs.pair

    @cached_property
    def experiment(self) -> "Experiment":
        """The run with its models loaded, for the functions of :mod:`probe.pipeline`."""
        from probe.pipeline.run.experiment import Experiment

        return Experiment.open(self.folder)

    def __repr__(self) -> str:
        if not (self.folder / "results.json").is_file():
            return f"Run({str(self.folder)!r}: {self.config.name}, arms not finished)"
        problems = self.results.get("problems") or {}
        said = f"{problems.get('n', '?')} {problems.get('split', '')} problems of {problems.get('name', '?')}"
        return f"Run({str(self.folder)!r}: {self.results.get('pair')}, {len(self.arms)} arms on {said})"

    def _repr_html_(self) -> str:
        if not (self.folder / "results.json").is_file():
            return html_table((), [[repr(self)]])
        return html_table(*arm_rows(self.results), caption=repr(self))


class KeptTraces:
    """The traces of a run; each split is read when it is first accessed.

    Args:
        folder: the folder of the traces.
        made: reads traces with the models, for a run of an earlier version, which kept no texts.
    """

    def __init__(self, folder: Path, made: Callable[[str], "Traces"]) -> None:
        self._folder, self._made = folder, made

    @cached_property
    def train(self) -> "Traces":
        """The thinking model's traces of train problems, from which everything is learned."""
        return self._read("train")

    @cached_property
    def validation(self) -> "Traces":
        """The thinking model's traces of validation problems."""
        return self._read("validation")

    @cached_property
    def base(self) -> "Traces":
        """The base model's traces of test problems."""
        return self._read("base")

    @cached_property
    def thinking(self) -> "Traces":
        """The thinking model's traces of test problems."""
        return self._read("thinking")

    def _read(self, name: str) -> "Traces":
        from probe.traces import Traces

        kept = self._folder / name
        return Traces.load(kept) if (kept / "traces.parquet").is_file() else self._made(name)

    def __repr__(self) -> str:
        return f"KeptTraces({str(self._folder)!r}: train, validation, base, thinking)"

    def _repr_html_(self) -> str:
        splits = ("train", "validation", "base", "thinking")
        return html_table(("name", "traces"), [(name, repr(getattr(self, name))) for name in splits])


class Arms(Mapping[str, "ArmResult"]):
    """The results of the arms of a run by name, in the order of ``results.json``; each is read on demand."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.results["arms"])

    def __len__(self) -> int:
        return len(self._run.results["arms"])

    def __getitem__(self, name: str) -> "ArmResult":
        """The answers of an arm, with their grades.

        Raises:
            ProbeError: if the run has no such arm, or its models are missing.
        """
        from probe.hybrid import ArmResult, HybridTrace
        from probe.pipeline.run.arms import arm_result

        if name not in self:
            raise ProbeError(f"{self._run.folder} has no arm {name!r}; {nearest(name, list(self))}")
        correct = read_graded(self._run.folder)["correct"].get(name)
        if name not in ("base", "thinking"):
            return replace(arm_result(self._run.experiment, name), correct=correct)
        own: Traces = getattr(self._run.traces, name)
        rows = [
            HybridTrace(each.problem_id, list(each.tokens), truncated=each.truncated, sample=each.sample)
            for each in own
        ]
        samples = 1 + max((row.sample for row in rows), default=0)
        texts = [each.text for each in own]
        return ArmResult(name, rows, texts, own.seconds or 0.0, samples=samples, correct=correct)

    def __contains__(self, name: object) -> bool:
        return name in self._run.results["arms"]

    def __repr__(self) -> str:
        return f"Arms({', '.join(self)})"

    def _repr_html_(self) -> str:
        return html_table(*arm_rows(self._run.results))
