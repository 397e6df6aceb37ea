"""Measures a finished adapter and writes the results, the report and the card."""

from functools import partial
from pathlib import Path
from typing import Any

from probe.adapters import EvaluationData, measure, random_like, summary, verify
from probe.config import read_as
from probe.files import read_json, write_json, write_text
from probe.models import Model
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.inputs import AdapterInputs
from probe.reports import adapter_card, read_adapter, write_adapter_report

VERIFIED, FOREIGN = "verification.json", "foreign.json"
_RANDOM = 3
"""Random adapters that are measured beside one on another model."""


def write_verification(
    out: Path, config: AdapterConfig, inputs: AdapterInputs, *, progress: bool = False
) -> dict[str, Any] | None:
    """Verify the adapter in ``out/adapter`` and write ``verification.json``, the report and the card.

    Returns:
        What ``verification.json`` holds; None without an SAE, which verification needs.
    """
    found, counted = None, None
    if inputs.behaviour is not None and inputs.questions is not None:
        counted = partial(inputs.questions.counted, inputs.model, inputs.behaviour)
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
    """Measure the adapter in ``out/adapter`` on a model it was not trained on, beside random ones of the same norms.

    Returns:
        What ``foreign.json`` holds: ``model``, and ``rows`` with the measures of each adapter.

    Raises:
        ProbeError: if the model's shapes differ.
    """
    questions = inputs.questions
    data = EvaluationData(inputs.test, inputs.general, None if questions is None else partial(questions.solved, on))
    adapter = measure(on, out / "adapter", data, foreign=True, progress=progress)
    random = [random_like(out / "adapter", out / "random" / str(seed), seed) for seed in range(_RANDOM)]
    rows = {
        "adapter": [adapter],
        "random": [measure(on, folder, data, foreign=True, progress=progress) for folder in random],
        "none": [{name: [0.0] * len(values) for name, values in adapter.items()}],
    }
    write_json(out / FOREIGN, {"model": on.name, "rows": summary(rows, {"adapter": "random"})})
    write_pages(out, config)
    return read_json(out / FOREIGN)


def write_pages(out: Path, config: AdapterConfig) -> None:
    """Write ``report.html`` and the card of the adapter's folder from what has been measured so far."""
    told = read_adapter(out)
    write_adapter_report(out / "report.html", **told)
    del told["foreign"]
    base = (
        str(config.model.path)
        if config.model is not None
        else read_as(dict[str, Any], out / "adapter" / "adapter_config.json").get("base_model_name_or_path")
    )
    write_text(out / "adapter" / "README.md", adapter_card(base=base, **told))
