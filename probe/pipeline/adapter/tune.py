"""``probe adapter tune``, ``verify`` and ``attach``: trains and verifies an adapter, and asks the model with it."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from probe.adapters import (
    Boost,
    Example,
    Objective,
    Tuned,
    attached,
    choose_latent,
    examples_of,
    inserted,
    places_before,
    tune,
)
from probe.config import from_dict, read_as, to_dict
from probe.engine import FolderLock, KeptFolder
from probe.errors import ProbeError
from probe.files import located, read_json, write_json
from probe.models import Model, ModelConfig, find_source, load_model
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.finished import finished_adapter
from probe.pipeline.adapter.inputs import AdapterInputs, key_settings, prepare_adapter, same_settings
from probe.pipeline.adapter.report import VERIFIED, write_foreign, write_verification
from probe.pipeline.place import find_again, note_place
from probe.pipeline.prompts import PROMPTS, begin
from probe.pipeline.run.experiment import Experiment

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHOSEN, _STEERED = "chosen.json", "steered.json"
_PARTS = (_CHOSEN, _STEERED, "config.json", "adapter/probe.json", "adapter/*checkpoint*/state.json")


def tune_adapter(
    config: AdapterConfig, out: str | Path, *, accelerator: "Accelerator | None" = None, progress: bool = False
) -> tuple[Tuned, dict[str, Any] | None]:
    """Train an adapter into ``out/adapter`` and verify it; finished steps are not repeated.

    Args:
        out: the folder that is written.
        accelerator: shares training among its processes; the main one writes the files.
        progress: show bars.

    Returns:
        The adapter, and what ``verification.json`` holds; None without an SAE and in all processes but the main one.

    Raises:
        ProbeError: for invalid settings or inputs, before the first step.
    """
    out = Path(out).expanduser()
    inputs = prepare_adapter(config)
    config = from_dict(AdapterConfig, located(to_dict(config), Path.cwd()))
    if not _finds_latents(config, inputs):
        _objective(config, inputs)  # refuses what cannot be trained, before anything is written
    if not _is_main(accelerator):
        return _tune(config, inputs, out, accelerator, progress=progress)
    key = {"work": "adapter", "config": key_settings(config), **inputs.hashes()}
    with KeptFolder(out, key, _PARTS, lambda: _was(config, out)):
        return _tune(config, inputs, out, accelerator, progress=progress)


def _was(config: AdapterConfig, out: Path) -> bool:
    """Whether an adapter of an earlier version is this one; one that is not finished is recognised by its training."""
    written = out / "config.json"
    chosen = ("latents", "value") if (out / _CHOSEN).exists() else ()
    return not written.exists() or same_settings(read_as(dict[str, Any], written), config, *chosen)


def _tune(
    config: AdapterConfig, inputs: AdapterInputs, out: Path, accelerator: "Accelerator | None", *, progress: bool
) -> tuple[Tuned, dict[str, Any] | None]:
    """Train and verify in a folder that is locked."""
    inputs.model.check_gradient("training an adapter")
    prompts = {}
    if inputs.learning is not None:
        seen = progress and _is_main(accelerator)
        prompts = begin(None, {"base": inputs.model}, inputs.learning.problems[0].question, progress=seen)
    config = _with_latents(config, inputs, out, accelerator, progress=progress)
    objective = _objective(config, inputs)
    train, validation = _steered_texts(config, inputs, out, accelerator) or (inputs.train, inputs.validation)
    done = tune(
        inputs.model,
        train,
        validation,
        objective,
        folder=out / "adapter",
        plan=config.plan,
        config=config.tune,
        accelerator=accelerator,
        progress=progress,
    )
    if accelerator is not None and not accelerator.is_main_process:
        return done, None
    note_place(out)
    write_json(out / "config.json", to_dict(config))
    if prompts:
        write_json(out / PROMPTS, prompts)
    if (out / VERIFIED).exists():
        return done, read_json(out / VERIFIED)
    return done, write_verification(out, config, inputs, progress=progress)


def verify_adapter(out: str | Path, on: str | None = None, *, progress: bool = False) -> dict[str, Any] | None:
    """Measure a finished adapter again, on the model that it was trained for or on another of the same shapes.

    On another model, random adapters of the same norms are measured, too: the experiment behind "reasoning as an
    adapter" (Resa, 2506.09967), with its controls.

    Args:
        out: a folder of :func:`tune_adapter`.
        on: folder or hub id of the other model, which gets the prompt that the adapter was trained with; None takes
            the adapter's own model.
        progress: show bars.

    Returns:
        What ``verification.json`` or ``foreign.json`` holds.

    Raises:
        ProbeError: if there is no finished adapter, or it does not fit the model.
    """
    config, folder = finished_adapter(Path(out))
    out = folder.parent
    if on is None:
        inputs = prepare_adapter(config)
        with FolderLock(out):
            return write_verification(out, config, inputs, progress=progress)
    find_source(ModelConfig(on))
    inputs = prepare_adapter(config)
    tags = inputs.model.think_tags
    source = replace(inputs.model.config.asked_alike(on), think_close=tags.close, think_open=tags.open)
    other = load_model(source, device=config.device, dtype=config.dtype, memory=config.memory)
    with FolderLock(out):
        return write_foreign(out, config, inputs, other, progress=progress)


def answers(out: str | Path, question: str, max_new_tokens: int) -> dict[str, str]:
    """Answer a question without a finished adapter and with it.

    Args:
        out: a folder of :func:`tune_adapter`.
        max_new_tokens: longest answer, in tokens.

    Returns:
        The answers ``without`` and ``with`` the adapter.

    Raises:
        ProbeError: if there is no finished adapter.
    """
    from probe.traces import decode_greedy

    config, folder = finished_adapter(Path(out))
    model = model_of(config, folder)

    def said() -> str:
        (emission,) = decode_greedy(model, [model.prompt_ids(question)], max_new_tokens)
        return model.decode(emission.tokens)

    plain = said()
    with attached(model, folder):
        return {"without": plain, "with": said()}


def model_of(config: AdapterConfig, folder: Path) -> Model:
    """Load the model that a finished adapter is for.

    Args:
        folder: the adapter, whose ``probe.json`` names the model.
    """
    path = folder / "probe.json"
    card = read_as(dict[str, Any], path)
    named = find_again(card["model"], folder.parent) if "model" in card else None
    source = config.model or (from_dict(ModelConfig, named, f"{path}.model") if named is not None else None)
    if source is not None:
        return load_model(source, device=config.device, dtype=config.dtype, memory=config.memory)
    assert config.run is not None  # an adapter of an earlier version: only the run knows its model
    return Experiment.open(config.run).stages.inputs.pair.base


def _objective(config: AdapterConfig, inputs: AdapterInputs) -> Objective:
    # feature-match learns another model's latents, unless a value is given to which the base model's own are raised.
    other = config.objective == "source-distil" or (config.objective == "feature-match" and not config.value)
    return Objective(
        config.objective,
        inputs.sae,
        config.insert,
        through=config.through,
        latents=config.latents,
        value=config.value,
        source=inputs.source if other else None,
        match=config.match,
        seed=config.seed,
    )


class _Text(TypedDict):
    ids: list[int]
    start: int


class _Steered(TypedDict):
    told: dict[str, Any]
    train: list[_Text]
    validation: list[_Text]


def _steered_texts(
    config: AdapterConfig, inputs: AdapterInputs, out: Path, accelerator: "Accelerator | None"
) -> tuple[list[Example], list[Example]] | None:
    """With a run, rollouts of the model with its latents raised, for training and validation; otherwise None.

    An adapter trained on other texts learns the steered model's predictions there, but then writes texts like these.
    """
    if config.objective != "steer-distil" or inputs.learning is None or inputs.choosing is None or inputs.sae is None:
        return None
    kept, told = out / _STEERED, {"latents": list(config.latents), "value": config.value}
    if _is_main(accelerator) and not (kept.exists() and read_as(_Steered, kept)["told"] == told):
        with inserted(inputs.model, Boost(inputs.sae, config.latents, config.value)):
            asked = {"train": inputs.learning, "validation": inputs.choosing}
            texts = {name: [asdict(text) for text in each.texts(inputs.model)] for name, each in asked.items()}
        write_json(kept, {"told": told, **texts})
    _wait(accelerator)
    made = read_as(_Steered, kept)
    train, validation = (
        [Example(tuple(text["ids"]), text["start"]) for text in part] for part in (made["train"], made["validation"])
    )
    return train, validation


class _Latent(TypedDict):
    latent: int
    value: float


def _with_latents(
    config: AdapterConfig, inputs: AdapterInputs, out: Path, accelerator: "Accelerator | None", *, progress: bool
) -> AdapterConfig:
    """The configuration with the latent that causes its behaviour, where that latent has to be found."""
    if not _finds_latents(config, inputs):
        return config
    assert inputs.behaviour is not None
    model, sae, choosing, learning = inputs.model, inputs.sae, inputs.choosing, inputs.learning
    if sae is None or choosing is None or learning is None:
        raise ProbeError("the latent of a behaviour is found by rollouts on a run's problems: name a run, or latents")
    if _is_main(accelerator) and not (out / _CHOSEN).exists():
        # Both models' traces: a behaviour that training removed is in the base model's traces alone.
        own = learning.traces(model)
        texts = [*inputs.train, *examples_of(model, list(own), learning.problems)]
        chosen = choose_latent(
            model,
            sae,
            texts,
            places_before(texts, [*inputs.traces, *own], inputs.behaviour),
            counted=partial(choosing.counted, model, inputs.behaviour, ended=True),
            progress=progress,
        )
        write_json(out / _CHOSEN, {"latent": chosen.latent, "value": chosen.value, "tried": chosen.tried})
    _wait(accelerator)
    chosen = read_as(_Latent, out / _CHOSEN)
    return replace(config, latents=(chosen["latent"],), value=chosen["value"])


def _finds_latents(config: AdapterConfig, inputs: AdapterInputs) -> bool:
    return config.objective == "steer-distil" and not config.latents and inputs.behaviour is not None


def _is_main(accelerator: "Accelerator | None") -> bool:
    return accelerator is None or accelerator.is_main_process


def _wait(accelerator: "Accelerator | None") -> None:
    if accelerator is not None:
        accelerator.wait_for_everyone()
