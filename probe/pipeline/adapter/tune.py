"""``probe adapter``: an adapter from its configuration to its report, and what the model says with it."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

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
    processes,
    tune,
)
from probe.config import from_dict, to_dict
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Model, ModelConfig, load_model
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.inputs import AdapterInputs, counter, prepare_adapter
from probe.pipeline.adapter.report import VERIFIED, write_foreign, write_verification
from probe.pipeline.run.own import experiment_at

_CHOSEN, _STEERED = "chosen.json", "steered.json"


def tune_adapter(config: AdapterConfig, out: Path, *, progress: bool = False) -> tuple[Tuned, dict[str, Any] | None]:
    """Train an adapter into ``out/adapter`` and verify it; what is there is not done again.

    Returns:
        The adapter, and its report; None without an SAE, by which most of it is measured.

    Raises:
        ProbeError: for anything the user can mend, before the first step.
    """
    inputs = prepare_adapter(config)
    config = _with_latents(config, inputs, out, progress)
    objective = _objective(config, inputs)
    texts = _steered_texts(config, inputs, out) or (inputs.train, inputs.validation)
    done = tune(inputs.model, *texts, objective, out / "adapter", config.plan, config.tune, progress=progress)
    if not processes().is_main:
        return done, None
    write_json(out / "config.json", to_dict(config))
    if (out / VERIFIED).exists():
        return done, read_json(out / VERIFIED)
    return done, write_verification(out, config, inputs, progress=progress)


def verify_adapter(out: Path, on: str | None = None, *, progress: bool = False) -> dict[str, Any] | None:
    """Measure a finished adapter anew: on the model it was trained for, or on another of the same shapes.

    Args:
        out: what :func:`tune_adapter` wrote.
        on: another model's folder or hub id; it is asked with the prompt that the adapter was trained for. Random
            adapters as large are measured on it as well: the experiment behind "reasoning as an adapter" (Resa), with
            its controls.

    Returns:
        What ``verification.json`` or ``foreign.json`` holds.

    Raises:
        ProbeError: if there is no finished adapter, or it does not fit.
    """
    config, _ = finished(out)
    inputs = prepare_adapter(config)
    if on is None:
        return write_verification(out, config, inputs, progress=progress)
    other = load_model(ModelConfig(on, prompt=inputs.model.config.prompt), device=config.device, dtype=config.dtype)
    return write_foreign(out, config, inputs, other, progress=progress)


def answers(out: Path, question: str, max_new_tokens: int) -> dict[str, str]:
    """What the model says to a question, without a finished adapter and with it.

    Raises:
        ProbeError: if there is no adapter.
    """
    from probe.traces import decode_greedy

    config, folder = finished(out)
    model = model_of(config)

    def said() -> str:
        (emission,) = decode_greedy(model, [model.prompt_ids(question)], max_new_tokens)
        return model.decode(emission.tokens)

    plain = said()
    with attached(model, folder):
        return {"without": plain, "with": said()}


def finished(out: Path) -> tuple[AdapterConfig, Path]:
    """The settings and the folder of a finished adapter.

    Raises:
        ProbeError: if there is none.
    """
    if not (out / "config.json").is_file():
        raise ProbeError(f"{out} holds no finished adapter; make one with: probe adapter tune --run RUN --out {out}")
    return from_dict(AdapterConfig, read_json(out / "config.json"), str(out / "config.json")), out / "adapter"


def model_of(config: AdapterConfig) -> Model:
    """The model that an adapter is for."""
    if config.model is not None:
        return load_model(config.model, device=config.device, dtype=config.dtype)
    assert config.run is not None
    return experiment_at(Path(config.run)).stages.inputs.pair.base


def _objective(config: AdapterConfig, inputs: AdapterInputs) -> Objective:
    # feature-match learns another model's latents, unless it is told to which value its own are raised.
    other = config.objective == "source-distil" or (config.objective == "feature-match" and not config.value)
    return Objective(
        config.objective,
        inputs.sae,
        config.insert,
        config.through,
        config.latents,
        config.value,
        inputs.source if other else None,
        config.match,
        config.seed,
    )


def _steered_texts(
    config: AdapterConfig, inputs: AdapterInputs, out: Path
) -> tuple[list[Example], list[Example]] | None:
    """Of a run, what the model with its latents raised writes itself: the texts that the adapter will go on to write.

    On other texts the adapter learns to predict as the steered model does, and then meets its own.
    """
    if config.objective != "steer-distil" or inputs.learning is None or inputs.choosing is None or inputs.sae is None:
        return None
    kept, told = out / _STEERED, {"latents": list(config.latents), "value": config.value}
    if processes().is_main and not (kept.exists() and read_json(kept)["told"] == told):
        with inserted(inputs.model, Boost(inputs.sae, config.latents, config.value)):
            asked = {"train": inputs.learning, "validation": inputs.choosing}
            texts = {name: [asdict(text) for text in each.texts(inputs.model)] for name, each in asked.items()}
        write_json(kept, {"told": told, **texts})
    processes().wait()
    made = read_json(kept)
    train, validation = (
        [Example(tuple(text["ids"]), text["start"]) for text in made[part]] for part in ("train", "validation")
    )
    return train, validation


def _with_latents(config: AdapterConfig, inputs: AdapterInputs, out: Path, progress: bool) -> AdapterConfig:
    """The configuration with the latent that brings its behaviour about, where that has to be found."""
    if config.objective != "steer-distil" or config.latents or config.behaviour is None:
        return config
    model, sae, choosing, learning = inputs.model, inputs.sae, inputs.choosing, inputs.learning
    if sae is None or choosing is None or learning is None:
        raise ProbeError("a behaviour's latent is found by rollouts on a run's problems: name a run, or give latents")
    if processes().is_main and not (out / _CHOSEN).exists():
        # Both models' traces: a behaviour that training took away shows in the base model's alone.
        own = learning.traces(model)
        texts = [*inputs.train, *examples_of(model, list(own), learning.problems)]
        chosen = choose_latent(
            model,
            sae,
            texts,
            places_before(texts, [*inputs.traces, *own], counter(config.behaviour)),
            partial(choosing.counted, model, config.behaviour, ended=True),
            progress=progress,
        )
        write_json(out / _CHOSEN, {"latent": chosen.latent, "value": chosen.value, "tried": chosen.tried})
    processes().wait()
    chosen = read_json(out / _CHOSEN)
    return replace(config, latents=(chosen["latent"],), value=chosen["value"])
