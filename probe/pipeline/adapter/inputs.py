"""What an adapter is trained on and measured by, found and checked before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.adapters import Example, examples_of, load_sae
from probe.config import nearest
from probe.counters import SCHEMES
from probe.errors import ProbeError
from probe.files import read_jsonl
from probe.models import Model, load_model
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.run.own import experiment_at
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, Traces, generate_traces

if TYPE_CHECKING:
    from sae_lens import SAE

_TENTHS = 10
"""Of so many texts of one's own one validates and one tests."""


@dataclass(frozen=True)
class Questions:
    """Problems that a model can be asked."""

    problem_set: ProblemSet
    problems: Sequence[Problem]
    max_new_tokens: int

    def traces(self, model: Model) -> Traces:
        """Greedy rollouts of the model as it is, with whatever is attached to it."""
        return generate_traces(model, self.problem_set, self.problems, max_new_tokens=self.max_new_tokens)

    def solved(self, model: Model) -> list[float]:
        """Of each problem whether it is solved."""
        return [float(bool(trace.correct)) for trace in self.traces(model)]

    def texts(self, model: Model) -> list[Example]:
        """The model's own rollouts as it is, to train on."""
        return examples_of(model, list(self.traces(model)), self.problems)

    def counted(self, model: Model, behaviour: str, *, ended: bool = False) -> list[float]:
        """How often a behaviour, ``SCHEME:NAME``, shows in a rollout on each problem.

        Args:
            ended: a rollout that did not end counts nothing, so that going round in circles is no behaviour.
        """
        count = counter(behaviour)
        return [0.0 if ended and trace.truncated else count(trace) for trace in self.traces(model)]


@dataclass(frozen=True)
class AdapterInputs:
    """What an adapter is trained on and with.

    Attributes:
        train, validation, test: texts; of a run, the thinking model's traces behind the base model's prompt.
        general: other texts; of a run, the base model's own traces.
        questions, choosing, learning: of a run, its test problems, those on which something may be chosen, and those of
            the training texts.
        traces: of a run, those that ``train`` was made of.
    """

    model: Model
    sae: "SAE[Any] | None"
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    general: list[Example]
    source: Model | None
    questions: Questions | None = None
    choosing: Questions | None = None
    learning: Questions | None = None
    traces: Sequence[Trace] = ()


def prepare_adapter(config: AdapterConfig) -> AdapterInputs:
    """Find everything and refuse what cannot work.

    Raises:
        ProbeError: for a run, model, SAE or file that is not there or not whole.
    """
    source, traces = None, ()
    questions, choosing, learning = None, None, None
    if config.run is None:
        assert config.model is not None
        assert config.texts is not None
        model, sae = load_model(config.model, device=config.device, dtype=config.dtype), None
        train, validation, test = _split(texts_of(model, Path(config.texts)))
        general = []
    else:
        experiment = experiment_at(Path(config.run))
        inputs, rollouts = experiment.stages.inputs, experiment.rollouts
        model, source, sae = inputs.pair.base, inputs.pair.thinking, experiment.taxonomy.sae
        traces = list(rollouts.train)
        train = examples_of(model, traces, inputs.train)
        validation = examples_of(model, list(rollouts.validation), inputs.validation)
        test = examples_of(model, list(rollouts.thinking), inputs.test)
        general = examples_of(model, list(rollouts.base), inputs.test)[: config.held]
        questions = Questions(inputs.problem_set, inputs.test[: config.problems], inputs.max_new_tokens)
        choosing = Questions(inputs.problem_set, inputs.validation[: config.problems], inputs.max_new_tokens)
        learning = Questions(inputs.problem_set, inputs.train, inputs.max_new_tokens)
    if config.general is not None:
        general = texts_of(model, Path(config.general))[: config.held]
    if config.sae is not None:
        sae = load_sae(config.sae, config.site)
    if config.source is not None:
        source = load_model(config.source, device=config.device, dtype=config.dtype)
    if sae is not None:
        sae = fitting(sae, model)
    if config.behaviour is not None:
        if questions is None:
            raise ProbeError("a behaviour is counted in rollouts on problems: name a run, which has them")
        counter(config.behaviour)
    test, asked = test[: config.held], (questions, choosing, learning)
    return AdapterInputs(model, sae, train, validation, test, general, source, *asked, traces)


def counter(behaviour: str) -> Callable[[Trace], float]:
    """What counts a behaviour, ``SCHEME:NAME``, in a trace.

    Raises:
        ProbeError: if there is no such scheme or behaviour.
    """
    scheme, _, name = behaviour.partition(":")
    if scheme not in SCHEMES:
        raise ProbeError(f"behaviour is {behaviour!r}: write SCHEME:NAME; {nearest(scheme, SCHEMES)}")
    names, count = SCHEMES[scheme].names, SCHEMES[scheme].count
    if name not in names:
        raise ProbeError(f"the scheme {scheme} counts no {name!r}; {nearest(name, names)}")
    return lambda trace: float(count(trace).get(name, 0))


def fitting(sae: "SAE[Any]", model: Model) -> "SAE[Any]":
    """The SAE where the model is.

    Raises:
        ProbeError: if it is of another width.
    """
    if sae.cfg.d_in != model.d_model:
        raise ProbeError(f"the SAE is {sae.cfg.d_in} wide and {model.name} is {model.d_model}: it does not fit")
    return sae.to(model.device)


def texts_of(model: Model, path: Path) -> list[Example]:
    """Texts of a JSONL file.

    Raises:
        ProbeError: naming the line that is wrong.
    """
    found = []
    for where, row in read_jsonl(path):
        prompt, text = row.get("prompt", ""), row.get("text")
        if not isinstance(prompt, str) or not isinstance(text, str) or not text:
            raise ProbeError(f'{where}: write {{"text": "…"}}, and "prompt" if you like')
        ids = model.tokenizer(prompt).input_ids if prompt else []
        more = model.tokenizer(text, add_special_tokens=not prompt).input_ids
        found.append(Example((*ids, *more), max(1, len(ids))))
    if not found:
        raise ProbeError(f"{path} has no text: give a JSONL file with a text on every line")
    return found


def _split(examples: list[Example]) -> tuple[list[Example], list[Example], list[Example]]:
    if len(examples) < _TENTHS:
        raise ProbeError(
            f"there are {len(examples)} texts: give at least {_TENTHS}, of which every tenth validates and tests"
        )
    parts: tuple[list[Example], ...] = ([], [], [])
    for i, example in enumerate(examples):
        parts[{_TENTHS // 2 - 1: 1, _TENTHS - 1: 2}.get(i % _TENTHS, 0)].append(example)
    return parts[0], parts[1], parts[2]
