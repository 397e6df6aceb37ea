"""``probe adapter``: an adapter from its configuration to its report, and out into other formats."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe._config import from_dict, to_dict
from probe._errors import ProbeError
from probe._files import read_json, write_json, write_text
from probe.adapters import (
    Example,
    Objective,
    Tuned,
    attached,
    canonical,
    examples_of,
    gguf_lora,
    load_sae,
    merged,
    tune,
    verify,
)
from probe.models import Model, load_model
from probe.pipeline.adapter_config import AdapterConfig
from probe.pipeline.own import experiment_at

if TYPE_CHECKING:
    from sae_lens import SAE

#: Where an adapter can be taken, and as what.
FORMATS = {
    "peft": "a PEFT folder that means the same in vLLM and llama.cpp",
    "merged": "the whole model with it",
    "gguf": "a LoRA file for llama.cpp",
}
_EVERY = 5
"""Of so many texts one validates."""
_VERIFIED = 60
"""Validation texts by which an adapter is verified, at most."""


@dataclass(frozen=True)
class AdapterInputs:
    """What an adapter is trained on and with."""

    model: Model
    sae: "SAE[Any] | None"
    train: list[Example]
    validation: list[Example]
    source: Model | None


def prepare_adapter(config: AdapterConfig) -> AdapterInputs:
    """Find everything and refuse what cannot work, before anything is trained.

    Raises:
        ProbeError: for a run, model, SAE or file that is not there or not whole.
    """
    if config.run is None:
        assert config.model is not None
        assert config.texts is not None
        model = load_model(config.model, device=config.device, dtype=config.dtype)
        train, validation = _split(texts_of(model, Path(config.texts)))
        sae, source = None, None
    else:
        experiment = experiment_at(Path(config.run))
        inputs, rollouts = experiment.stages.inputs, experiment.rollouts
        model, source = inputs.pair.base, inputs.pair.thinking
        train = examples_of(model, list(rollouts.train), inputs.train)
        validation = examples_of(model, list(rollouts.validation), inputs.validation)
        sae = experiment.taxonomy.sae
    if config.sae is not None:
        sae = load_sae(config.sae, config.site)
    if config.source is not None:
        source = load_model(config.source, device=config.device, dtype=config.dtype)
    if sae is not None:
        sae = sae.to(model.device)
        if sae.cfg.d_in != model.d_model:
            raise ProbeError(f"the SAE is {sae.cfg.d_in} wide and {model.name} is {model.d_model}: it does not fit")
    return AdapterInputs(model, sae, train, validation, source)


def tune_adapter(config: AdapterConfig, out: Path, *, progress: bool = False) -> tuple[Tuned, dict[str, Any] | None]:
    """Train an adapter into ``out/adapter`` and write ``out/verification.json``; what is there is not done again.

    Returns:
        The adapter, and its report; None without an SAE, by which most of it is measured.

    Raises:
        ProbeError: for anything the user can mend, before the first step.
    """
    inputs = prepare_adapter(config)
    needs_source = config.objective in ("source-distil", "feature-match")
    objective = Objective(
        config.objective,
        inputs.sae,
        config.insert,
        config.through,
        config.latents,
        config.value,
        inputs.source if needs_source and not (config.objective == "feature-match" and config.value) else None,
        config.seed,
    )
    done = tune(
        inputs.model,
        inputs.train,
        inputs.validation,
        objective,
        out / "adapter",
        config.plan,
        config.tune,
        progress=progress,
    )
    write_json(out / "config.json", to_dict(config))
    write_text(done.folder / "README.md", _card(config, done))
    if inputs.sae is None:
        return done, None
    if not (out / "verification.json").exists():
        some = inputs.validation[:_VERIFIED]
        found = verify(inputs.model, done.folder, inputs.sae, some, latents=config.latents, progress=progress)
        write_json(out / "verification.json", found.to_dict())
    return done, read_json(out / "verification.json")


def _card(config: AdapterConfig, done: Tuned) -> str:
    """What a reader of the adapter's folder needs; figures are in the files beside it."""
    first, best = done.history[0]["loss"], done.best
    objective = config.objective if config.insert == "sae" else f"{config.objective} with {config.insert}"
    return f"""---
library_name: peft
base_model: {config.model.path if config.model is not None else config.run}
---
# An adapter, tuned by probe

LoRA of rank {config.plan.rank}, objective {objective}.
Loss on validation texts {first:.4f} → {best["loss"]:.4f} (step {best["step"]:.0f}); {done.cost["tokens"]:,.0f} tokens.
`probe.json` says what it was trained on, `verification.json` in the folder above what it does.

```
PeftModel.from_pretrained(base, "this folder")
```
"""


def export_adapter(out: Path, formats: list[str]) -> list[Path]:
    """Write a finished adapter in other forms, into ``out/FORMAT``.

    Raises:
        ProbeError: if there is no adapter, or a format is none of :data:`FORMATS`.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ProbeError(f"there is no format {unknown[0]!r}; formats are {', '.join(FORMATS)}")
    config, folder = _finished(out)
    model = _model_of(config)
    made = {
        "peft": lambda: canonical(folder, out / "peft"),
        "merged": lambda: merged(model, folder, out / "merged"),
        "gguf": lambda: gguf_lora(model, folder, out / "gguf" / "adapter.gguf"),
    }
    return [made[name]() for name in formats]


def answers(out: Path, question: str, new_tokens: int) -> dict[str, str]:
    """What the model says to a question, without a finished adapter and with it.

    Raises:
        ProbeError: if there is no adapter.
    """
    from probe.traces import decode_greedy

    config, folder = _finished(out)
    model = _model_of(config)

    def said() -> str:
        (emission,) = decode_greedy(model, [model.prompt_ids(question)], new_tokens)
        return model.decode(emission.tokens)

    plain = said()
    with attached(model, folder):
        return {"without": plain, "with": said()}


def texts_of(model: Model, path: Path) -> list[Example]:
    """Texts of a JSONL file.

    Raises:
        ProbeError: naming the line that is wrong.
    """
    if not path.is_file():
        raise ProbeError(f"there is no file {path}: give a JSONL file with a text on every line")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, text = row.get("prompt", ""), row["text"]
            ids = model.tokenizer(prompt).input_ids if prompt else []
            more = model.tokenizer(text, add_special_tokens=not prompt).input_ids
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise ProbeError(f'{path}, line {number}: write {{"text": "…"}}, and "prompt" if you like') from error
        found.append(Example((*ids, *more), max(1, len(ids))))
    if len(found) < _EVERY:
        raise ProbeError(f"{path} has {len(found)} texts: give at least {_EVERY}, of which every fifth validates")
    return found


def _split(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    held = examples[_EVERY - 1 :: _EVERY]
    return [example for i, example in enumerate(examples) if i % _EVERY != _EVERY - 1], held


def _finished(out: Path) -> tuple[AdapterConfig, Path]:
    if not (out / "config.json").is_file():
        raise ProbeError(f"{out} holds no finished adapter; make one with: probe adapter tune --run RUN --out {out}")
    return from_dict(AdapterConfig, read_json(out / "config.json"), str(out / "config.json")), out / "adapter"


def _model_of(config: AdapterConfig) -> Model:
    if config.model is not None:
        return load_model(config.model, device=config.device, dtype=config.dtype)
    assert config.run is not None
    return experiment_at(Path(config.run)).stages.inputs.pair.base
