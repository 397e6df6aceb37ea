"""The report on a finished adapter: what it does to the model it is for, and to another that it was not trained on."""

from functools import partial
from pathlib import Path
from typing import Any

from probe.adapters import Held, measure, random_like, summary, verify
from probe.files import read_json, write_json, write_text
from probe.models import Model
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.inputs import AdapterInputs
from probe.reports import adapter_card, write_adapter_report

VERIFIED, FOREIGN = "verification.json", "foreign.json"
_DRAWN = 3
"""Random adapters beside one on another model."""


def write_verification(
    out: Path, config: AdapterConfig, inputs: AdapterInputs, *, progress: bool = False
) -> dict[str, Any] | None:
    """Verify the adapter in ``out/adapter``; write ``verification.json``, and the report and card anew.

    Returns:
        What that file holds; None without an SAE, by whose latents an adapter is verified.
    """
    found, counted = None, None
    if config.behaviour is not None and inputs.questions is not None:
        counted = partial(inputs.questions.counted, inputs.model, config.behaviour)
    if inputs.sae is not None:
        found = verify(
            inputs.model,
            out / "adapter",
            inputs.sae,
            inputs.test,
            general=inputs.general,
            latents=config.latents,
            counted=counted,
            seed=config.seed,
            progress=progress,
        ).to_dict()
        write_json(out / VERIFIED, found)
    write_pages(out, config)
    return None if found is None else read_json(out / VERIFIED)


def write_foreign(
    out: Path, config: AdapterConfig, inputs: AdapterInputs, on: Model, *, progress: bool = False
) -> dict[str, Any]:
    """Measure the adapter in ``out/adapter`` on a model that it was not trained on, beside random ones as large.

    Returns:
        What ``foreign.json`` holds: ``model``, and ``rows`` with the measures of each.

    Raises:
        ProbeError: if its shapes differ.
    """
    questions = inputs.questions
    held = Held(inputs.test, inputs.general, None if questions is None else partial(questions.solved, on))
    adapter = measure(on, out / "adapter", held, foreign=True, progress=progress)
    drawn = [random_like(out / "adapter", out / "random" / str(seed), seed) for seed in range(_DRAWN)]
    rows = {
        "adapter": [adapter],
        "random": [measure(on, folder, held, foreign=True, progress=progress) for folder in drawn],
        "none": [{name: [0.0] * len(values) for name, values in adapter.items()}],
    }
    found = {"model": on.name, "rows": summary(rows, {"adapter": "random"})}
    write_json(out / FOREIGN, found)
    write_pages(out, config)
    return read_json(out / FOREIGN)


def write_pages(out: Path, config: AdapterConfig) -> None:
    """``report.html``, and the card of the adapter's folder, from what has been measured so far."""
    files = {name: read_json(out / name) if (out / name).exists() else None for name in (VERIFIED, FOREIGN)}
    card, history = read_json(out / "adapter" / "probe.json"), read_json(out / "adapter" / "history.json")
    told = {"card": card, "history": history, "cost": card["cost"], "found": files[VERIFIED]}
    write_adapter_report(out / "report.html", **told, foreign=files[FOREIGN])
    base = (
        str(config.model.path)
        if config.model is not None
        else read_json(out / "adapter" / "adapter_config.json")["base_model_name_or_path"]
    )
    write_text(out / "adapter" / "README.md", adapter_card(base=base, **told))
