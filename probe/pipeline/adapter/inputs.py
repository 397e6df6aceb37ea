"""Finds and checks the model, SAE, texts and problems of an adapter before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.adapters import Example, check_release, check_sae, examples_of, is_release, load_sae
from probe.config import to_dict
from probe.engine import difference
from probe.errors import ProbeError
from probe.files import located, object_hash, read_jsonl
from probe.models import Model, identity, load_model, weights_hash
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.folder import without
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.stages import problems_of
from probe.problems import Problem, ProblemSet
from probe.taxonomy import Behaviour, Taxonomy, find_behaviour
from probe.traces import Trace, Traces, encode_after, generate_traces

if TYPE_CHECKING:
    from sae_lens import SAE

_TENTHS = 10
"""Of this many texts of the user's one is used for validation and one for test."""


@dataclass(frozen=True, repr=False)
class Questions:
    """Problems for rollouts of a model.

    Attributes:
        problem_set: the set that they belong to.
        problems: the problems.
        max_new_tokens: longest answer, in tokens.
    """

    problem_set: ProblemSet
    problems: Sequence[Problem]
    max_new_tokens: int

    @property
    def hash(self) -> str:
        """A hash of the problems and the limit of answers."""
        return object_hash([[[each.id, each.question, each.answer] for each in self.problems], self.max_new_tokens])

    def __repr__(self) -> str:
        return f"Questions({len(self.problems)} problems of {self.problem_set.name})"

    def traces(self, model: Model) -> Traces:
        """Greedy rollouts of a model in its current state, with whatever is attached to it."""
        return generate_traces(model, self.problem_set, self.problems, max_new_tokens=self.max_new_tokens)

    def solved(self, model: Model) -> list[float]:
        """1 for each problem that the model solves and 0 for each other."""
        return [float(bool(trace.correct)) for trace in self.traces(model)]

    def texts(self, model: Model) -> list[Example]:
        """The model's own rollouts, as texts to train on."""
        return examples_of(model, list(self.traces(model)), self.problems)

    def counted(self, model: Model, behaviour: Behaviour, *, ended: bool = False) -> list[float]:
        """The number of sentences that show a behaviour, in a rollout on each problem.

        Args:
            model: the model that is rolled out.
            ended: count 0 for truncated rollouts, so that a model that repeats itself does not score.
        """
        traces = self.traces(model)
        counts = [float(sum(marks)) for marks in behaviour.marks(traces)]
        return [0.0 if ended and trace.truncated else n for trace, n in zip(traces, counts, strict=True)]


@dataclass(frozen=True, repr=False)
class AdapterInputs:
    """What an adapter is trained and measured with.

    Attributes:
        model: the base model.
        sae: the SAE; None if there is none.
        train: texts to train on; with a run, the thinking model's traces after the base model's prompt.
        validation: texts by which the best step is chosen.
        test: texts on which the adapter is measured.
        general: texts of another kind; with a run, the base model's own traces.
        source: another model to learn from; None if there is none.
        questions: with a run, its test problems.
        choosing: with a run, validation problems, on which a latent is chosen.
        learning: with a run, the problems of the training texts.
        traces: with a run, the traces that ``train`` was made from.
        behaviour: what is counted in rollouts; None if nothing is.
    """

    model: Model
    sae: "SAE[Any] | None"
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    general: list[Example]
    source: Model | None = None
    questions: Questions | None = None
    choosing: Questions | None = None
    learning: Questions | None = None
    traces: Sequence[Trace] = ()
    behaviour: Behaviour | None = None

    def hashes(self) -> dict[str, Any]:
        """Hash what an adapter depends on beside its settings, by content: where it lies does not count."""
        texts = {name: getattr(self, name) for name in ("train", "validation", "test", "general")}
        asked = {name: getattr(self, name) for name in ("questions", "choosing", "learning")}
        return {
            "model": identity(self.model),
            **{name: object_hash([[[*text.ids], text.start] for text in some]) for name, some in texts.items()},
            **{name: None if some is None else some.hash for name, some in asked.items()},
            "sae": None if self.sae is None else weights_hash(self.sae.state_dict().items()),
            "source": None if self.source is None else identity(self.source),
        }

    def __repr__(self) -> str:
        return f"AdapterInputs({self.model.name}, {len(self.train)} texts to train on, {len(self.test)} test texts)"


def prepare_adapter(config: AdapterConfig) -> AdapterInputs:
    """Load and check everything that an adapter is trained and measured with.

    Args:
        config: the settings; its paths are absolute, or from the current folder.

    Raises:
        ProbeError: for a run, model, SAE, file or behaviour that is missing or damaged.
    """
    more: dict[str, Any] = {}
    if config.sae is not None and is_release(config.sae):
        check_release(config.sae)  # before any model is loaded
    if config.run is None:
        assert config.model is not None
        assert config.texts is not None
        if config.behaviour is not None:
            raise ProbeError("a behaviour is counted in rollouts on problems: name a run, which has them")
        model, sae = (
            load_model(config.model, device=config.device, dtype=config.dtype, memory=config.memory),
            None,
        )
        train, validation, test = _split(texts_of(model, Path(config.texts).expanduser()))
        general = []
    else:
        experiment = Experiment.open(config.run)
        inputs, rollouts = experiment.stages.inputs, experiment.rollouts
        model, sae = inputs.pair.base, experiment.taxonomy.sae
        train, validation = (
            examples_of(model, traces, problems_of(traces, problems))
            for traces, problems in ((rollouts.train, inputs.train), (rollouts.validation, inputs.validation))
        )
        test = examples_of(model, list(rollouts.thinking), inputs.test)
        general = examples_of(model, list(rollouts.base), inputs.test)[: config.held]
        limit = config.max_new_tokens or inputs.max_new_tokens
        more = {
            name: Questions(inputs.problem_set, problems, limit)
            for name, problems in (
                ("questions", inputs.test[: config.problems]),
                ("choosing", inputs.validation[: config.problems]),
                ("learning", inputs.train),
            )
        }
        more |= {"source": inputs.pair.thinking, "traces": list(rollouts.train)}
        if config.behaviour is not None:
            more["behaviour"] = find_behaviour(
                config.behaviour,
                problem_set=inputs.problem_set,
                taxonomy=experiment.taxonomy,
                model=inputs.pair.thinking,
            )
    if config.general is not None:
        general = texts_of(model, Path(config.general).expanduser())[: config.held]
    if config.sae is not None:
        sae = load_sae(config.sae, config.site)
    if config.source is not None:
        more["source"] = load_model(config.source, device=config.device, dtype=config.dtype, memory=config.memory)
    if sae is not None:
        sae = fitting(sae, model)
    return AdapterInputs(model, sae, train, validation, test[: config.held], general, **more)


def sae_of(config: AdapterConfig) -> "SAE[Any] | None":
    """The SAE that a configuration names, or that of its run's taxonomy; None if there is none."""
    if config.sae is not None:
        return load_sae(config.sae, config.site)
    return None if config.run is None else Taxonomy.load(Path(config.run).expanduser() / "taxonomy").sae


def fitting(sae: "SAE[Any]", model: Model) -> "SAE[Any]":
    """Move an SAE to the model's device.

    Raises:
        ProbeError: if the model has no such site, or another width there.
    """
    check_sae(sae, model)
    return sae.to(model.device)


def texts_of(model: Model, path: Path) -> list[Example]:
    """Read the texts of a JSONL file.

    Args:
        model: gives the tokenizer.
        path: each line has ``text``, and ``prompt`` for a beginning that does not count.

    Raises:
        ProbeError: naming the line that is wrong.
    """
    found = []
    for where, row in read_jsonl(path):
        prompt, text = row.get("prompt", ""), row.get("text")
        if not isinstance(prompt, str) or not isinstance(text, str) or not text:
            raise ProbeError(f'{where}: write {{"text": "…"}}, and "prompt" if there is one')
        ids = model.encode(prompt) if prompt else []
        more = encode_after(ids, text, model.decode, model.tokenizer) if ids else model.encode(text)
        found.append(Example((*ids, *more), max(1, len(ids))))
    model.check_ids(example.ids for example in found)
    if not found:
        raise ProbeError(f"{path} has no text: give a JSONL file with a text on every line")
    return found


def _split(examples: list[Example]) -> tuple[list[Example], list[Example], list[Example]]:
    if len(examples) < _TENTHS:
        raise ProbeError(
            f"there are {len(examples)} texts: give at least {_TENTHS}, since one in {_TENTHS} is for validation and "
            "one for test"
        )
    parts: tuple[list[Example], ...] = ([], [], [])
    for i, example in enumerate(examples):
        parts[{_TENTHS // 2 - 1: 1, _TENTHS - 1: 2}.get(i % _TENTHS, 0)].append(example)
    return parts[0], parts[1], parts[2]


_HOW = ("device", "memory", "tune.pack_to")
"""Settings that only say how an adapter is made."""
_WHERE = ("run", "model", "texts", "general", "sae", "source")
"""Settings that say where the inputs are, which are known by their content."""


def key_settings(config: AdapterConfig) -> dict[str, Any]:
    """The settings that an adapter depends on, beside its inputs."""
    return without(to_dict(config), *_HOW, *_WHERE)


def same_settings(before: Any, config: AdapterConfig, *but: str) -> bool:
    """Whether the settings that an earlier version has written are these, with inputs at the same places.

    Args:
        before: the settings as they were written.
        but: settings that are not compared.
    """
    if not isinstance(before, dict):
        return False
    there, here = (without(located(each, Path.cwd()), *_HOW, *but) for each in (before, to_dict(config)))
    return difference(there, here) is None
