"""The settings of ``probe anchors``."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from probe.config import as_pattern, byte_size, check_least, check_seeds, nearest
from probe.errors import ProbeError
from probe.models import DeviceNames, ModelConfig, Sampling
from probe.pipeline.checks import check_inputs
from probe.servers import ServersConfig, check_urls

MEASURES = ("counterfactual", "resilience", "forced", "critical")
"""What can be measured, in order."""
_OPTIONS = {"sampling": "sampling (--temperature, --top-p, --top-k, --min-p)", "servers": "the section servers"}
"""What a setting is called in messages, where it is no option of its name."""


@dataclass(frozen=True)
class AnchorsConfig:
    """All settings of ``probe anchors``."""

    pair: str | None = None
    """The pair: the name of a bundled or published pair, or the path of a pair.yaml; instead of ``thinking``."""
    thinking: ModelConfig | None = None
    """The model, if no pair is named."""
    model: str = "thinking"
    """The model of the pair that continues the traces: thinking or base."""
    problems: str | None = None
    """Name of a problem set, or the path of a JSONL file; None takes the problem set of the pair."""
    grader: str | None = None
    """How answers are graded: exact, numeric, math-verify or close; None: as the set says."""
    traces: str | None = None
    """The folder of imported traces (``probe traces import``); None lets the model write one trace of each problem."""
    rollouts: str | None = None
    """A folder of rollouts in the structure of math-rollouts, from which anchors are computed without a model."""
    problem: str | None = None
    """The id of one problem; None takes the first ones."""
    limit: int = 1
    """The largest number of traces."""
    samples: int = 100
    """The number of rollouts of each place."""
    max_new_tokens: int | None = None
    """The largest number of tokens of a trace and of a rollout; None takes the limit of the pair."""
    measure: tuple[str, ...] = ("counterfactual",)
    """What is measured: counterfactual (rollouts in place of each sentence), resilience (a sentence is taken out
    wherever it comes back), forced (answers forced after sentences) and critical (tokens that change the chance)."""
    every: int = 1
    """Answers are forced after every so many sentences."""
    chains: int = 10
    """The number of chains of each sentence for resilience."""
    behaviours: tuple[str, ...] = ()
    """The behaviours whose sentences are averaged: sentence types, counters as SCHEME:NAME, or with ``run`` categories
    by number or label; empty for all categories of the run, or all types of the problem set, or all its counters."""
    run: str | None = None
    """The folder of a run; ``behaviours`` may name categories of its taxonomy."""
    patterns: tuple[str, ...] = ()
    """Regular expressions; sentences in which one is found are averaged too."""
    sampling: Sampling | None = None
    """How the model is sampled. None: as its ``generation_config.json`` says, and if it says nothing, with temperature
    0.6 and top-p 0.95."""
    export: bool = False
    """Also write the rollouts in the structure of math-rollouts."""
    seed: int = 0
    """The seed of the sampling, the permutations and the bootstraps."""
    thinking_url: tuple[str, ...] = ()
    """Addresses of OpenAI-compatible servers of the model, which write the rollouts."""
    servers: ServersConfig = field(default_factory=ServersConfig)
    """Settings of the requests to servers; results do not depend on them."""
    device: DeviceNames = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps, or as in the settings of a run."""
    memory: str | None = None
    """Memory that work may take on a device besides the weights, such as ``40GB``; None takes half of what is free.
    Results do not depend on it."""
    dtype: str = "float32"
    """The data type of the weights."""

    def __post_init__(self) -> None:
        byte_size(self.memory)
        check_least("", self, limit=1, samples=2, max_new_tokens=1, every=1, chains=2)
        check_seeds("seed", [self.seed])
        check_urls("thinking_url", self.thinking_url)
        given = [name for name in ("pair", "thinking", "rollouts") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(f"--{name}" for name in given) or "no model"
            raise ProbeError(f"{said} given; name one of --pair, --thinking MODEL and --rollouts FOLDER")
        if self.model not in ("thinking", "base"):
            raise ProbeError(f"model is {self.model!r}; use thinking or base")
        if not self.measure:
            raise ProbeError(f"nothing to measure; name one or more of {', '.join(MEASURES)} (--measure)")
        for each in self.measure:
            if each not in MEASURES:
                raise ProbeError(f"measure is {each!r}; {nearest(each, MEASURES)}")
        if self.rollouts is not None and set(self.measure) != {"counterfactual"}:
            raise ProbeError("rollouts of others give the measure counterfactual alone; the others need a model")
        if self.rollouts is not None and self.run is not None:
            raise ProbeError("categories need the activations of a model, so --rollouts and --run exclude each other")
        if (unused := next(self._unused(), None)) is not None:
            raise ProbeError("{} has no effect {}; leave it out".format(*unused))
        for pattern in self.patterns:
            as_pattern(pattern)
        if self.sampling is not None and self.sampling.greedy:
            raise ProbeError("greedy rollouts are all equal; give a temperature above 0")

    def _unused(self) -> Iterator[tuple[str, str]]:
        """The settings that are given and that nothing reads, and why."""
        rows = (
            (self.rollouts is not None, "with --rollouts", ("model", "traces", "samples", "max_new_tokens", "export")),
            (self.rollouts is not None, "with --rollouts", ("sampling", "thinking_url")),
            (self.thinking is not None, "with --thinking, which names one model", ("model",)),
            (self.traces is not None, "with --traces, which bring their problems", ("problems", "grader")),
            (self.traces is None and self.rollouts is None and self.problem is not None, "with --problem", ("limit",)),
            ("forced" not in self.measure, "without --measure forced", ("every",)),
            ("resilience" not in self.measure, "without --measure resilience", ("chains",)),
            ("counterfactual" not in self.measure, "without --measure counterfactual", ("export",)),
            (set(self.measure) == {"resilience"}, "with --measure resilience, which counts --chains", ("samples",)),
            (not self.thinking_url, "without --thinking-url", ("servers",)),
        )
        usual = {each.name: each.default for each in fields(self)} | {"servers": ServersConfig()}
        for applies, why, names in rows:
            for name in names:
                if applies and getattr(self, name) != usual[name]:
                    yield _OPTIONS.get(name, f"--{name.replace('_', '-')}"), why

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)
        if self.rollouts is not None and not Path(self.rollouts).expanduser().is_dir():
            raise ProbeError(f"there is no folder {self.rollouts} (--rollouts)")
