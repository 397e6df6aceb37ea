"""What ``probe circuits`` works on: one model, and traces of a behaviour or pairs of texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.adapters import Dictionary
from probe.config import to_dict
from probe.errors import ProbeError
from probe.files import file_hash
from probe.models import (
    GREEDY,
    Model,
    PairConfig,
    Placement,
    Sampling,
    as_placement,
    content_hash,
    find_pair,
    load_model,
    load_pair,
)
from probe.pipeline.behaviour import named_behaviour, problems_of, taxonomy_in
from probe.pipeline.circuits.config import CircuitConfig
from probe.pipeline.folder import RunFolder
from probe.pipeline.imported import ImportedSplits
from probe.pipeline.run.config import short_name
from probe.pipeline.run.inputs import check_positions, prompt_hash, weights_hash
from probe.problems import Problem, Taken
from probe.taxonomy import Behaviour


@dataclass(frozen=True)
class CircuitInputs:
    """The model and, unless pairs of texts are given, the problems and the behaviour.

    Attributes:
        model: the model whose circuit is found.
        reader: the thinking model, if a taxonomy reads it; it may be the same.
        limit: the largest number of tokens of an answer.
        sampling: how the model's own traces are sampled.
        dictionaries: the SAEs and transcoders whose latents are scored.
        taken, imported, behaviour: None if pairs of texts are given; ``imported`` also if no traces are.
    """

    model: Model
    reader: Model | None
    limit: int
    sampling: Sampling
    dictionaries: tuple[Dictionary, ...] = ()
    taken: Taken | None = None
    imported: ImportedSplits | None = None
    behaviour: Behaviour | None = None

    @property
    def train(self) -> Sequence[Problem]:
        """The problems whose traces give the pairs."""
        return () if self.taken is None else self.taken.splits["train"]

    @property
    def test(self) -> Sequence[Problem]:
        """The problems on which ablation is measured."""
        return () if self.taken is None else self.taken.splits.get("test", ())


def circuit_inputs(config: CircuitConfig) -> CircuitInputs:
    """Load what the settings name, and refuse what cannot work.

    Raises:
        ProbeError: for an unknown pair, model, problem set or behaviour; before any model runs.
    """
    if isinstance(as_placement(config.device), Placement):
        raise ProbeError(
            f"circuits are found on a copy of a model on one device, not on {config.device}; name one device"
        )
    pair = _pair(config)
    model, reader = _models(config, pair)
    if config.method != "exact":
        model.check_gradient(f"attribution by {config.method}")
    limit = config.max_new_tokens or pair.max_new_tokens
    sampling = model.own_sampling if config.model == "thinking" else GREEDY
    dictionaries = tuple(_dictionary(sae, model) for sae in dict.fromkeys(config.sae))
    if config.pairs is not None:
        return CircuitInputs(model, None, limit, sampling, dictionaries)
    wanted = {"train": config.train} | ({"test": config.test} if config.test else {})
    taken, imported = problems_of(
        pair, model, wanted, problems=config.problems, grader=config.grader, traces=config.traces
    )
    behaviour = named_behaviour(
        config.behaviour, taken.problem_set, run=config.run, sentence=config.sentence, thinking=reader
    )
    made = CircuitInputs(model, reader, limit, sampling, dictionaries, taken, imported, behaviour)
    check_positions(model, (*made.train, *made.test), limit)
    return made


def circuit_folder(config: CircuitConfig, inputs: CircuitInputs, out: Path) -> RunFolder:
    """The folder of the results, which is checked and not yet written.

    Raises:
        ProbeError: if it holds results of other settings or inputs, or something else.
    """
    model, settings = inputs.model, to_dict(config)
    hashes: dict[str, Any] = {"prompt": prompt_hash(model), "model": weights_hash(model)}
    if inputs.reader not in (None, model):
        hashes["thinking"] = weights_hash(inputs.reader)
    if config.pairs is not None:
        hashes["pairs"] = file_hash(Path(config.pairs).expanduser())
    if config.run is not None:
        hashes["taxonomy"] = content_hash(taxonomy_in(config.run))
    if inputs.taken is not None:
        hashes["problems"] = inputs.taken.problem_set.hash
    if inputs.imported is not None:
        hashes["traces"] = inputs.imported.hash
    shared = {name: settings[name] for name in ("behaviour", "sentence", "model", "dtype", "seed")}
    return RunFolder(out, {"circuits": shared, **hashes})


def _pair(config: CircuitConfig) -> PairConfig:
    if config.pair is not None:
        return find_pair(config.pair)
    assert config.thinking is not None
    name = short_name(config.thinking.path)
    return PairConfig(name, base=config.base or config.thinking, thinking=config.thinking)


def _dictionary(sae: str, model: Model) -> Dictionary:
    return Dictionary.of(sae, model)


def _models(config: CircuitConfig, pair: PairConfig) -> tuple[Model, Model | None]:
    """The model whose circuit is found, and the thinking model; only what is needed is loaded."""
    how: dict[str, Any] = {"device": config.device, "dtype": config.dtype, "memory": config.memory}
    if config.model == "thinking" and pair.think_close is None and pair.think_open is None:
        model = load_model(pair.thinking, **how)
        return model, model
    both = load_pair(pair, **how)
    return getattr(both, config.model), both.thinking


def settled(config: CircuitConfig, inputs: CircuitInputs) -> CircuitConfig:
    """The settings with the numbers of problems that were actually taken. Results depend on these settings."""
    if inputs.taken is None:
        return config
    return replace(config, train=len(inputs.train), test=len(inputs.test))
