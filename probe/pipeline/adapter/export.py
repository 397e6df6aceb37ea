"""A finished adapter taken elsewhere: other formats, and the folder that is pushed to a model hub."""

import shutil
from pathlib import Path

from probe.adapters import canonical, compare_export, gguf_lora, merged
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.pipeline.adapter.inputs import prepare_adapter
from probe.pipeline.adapter.tune import finished, model_of

_EXPORTS = "exports.json"

#: Where an adapter can be taken, and as what.
FORMATS = {
    "peft": "a PEFT folder that means the same in vLLM and llama.cpp",
    "merged": "the whole model with it",
    "gguf": "a LoRA file for llama.cpp",
}


def export_adapter(out: Path, formats: list[str]) -> list[Path]:
    """Write a finished adapter in other forms, into ``out/FORMAT``, each read again by a fresh process and compared.

    The comparison is in ``out/exports.json``: the greatest difference of a logit on fixed texts to the adapter that is
    attached, and for scale the greatest to the base model and the greatest logit.

    Raises:
        ProbeError: if there is no adapter, a format is none of :data:`FORMATS`, or what was written is not the adapter.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ProbeError(f"there is no format {unknown[0]!r}; formats are {', '.join(FORMATS)}")
    config, folder = finished(out)
    model = model_of(config)
    made = {
        "peft": lambda: canonical(folder, out / "peft"),
        "merged": lambda: merged(model, folder, out / "merged"),
        "gguf": lambda: gguf_lora(model, folder, out / "gguf" / "adapter.gguf"),
    }
    report = read_json(out / _EXPORTS) if (out / _EXPORTS).exists() else {}
    paths = []
    for name in formats:
        paths.append(made[name]())
        report[name] = compare_export(model, folder, name, paths[-1])
        write_json(out / _EXPORTS, report)
    return paths


def hub_folder(out: Path) -> Path:
    """Lay a finished adapter out as a model hub keeps one, into ``out/hub``: the canonical PEFT form, its card with the
    verification table, ``probe.json``, the report, the SAE in SAELens' form, and a GGUF file if it was exported.

    Raises:
        ProbeError: if there is no adapter.
    """
    config, folder = finished(out)
    hub = out / "hub"
    shutil.rmtree(hub, ignore_errors=True)
    canonical(folder, hub)
    for path in (folder / "README.md", out / "verification.json", out / "report.html", out / "gguf" / "adapter.gguf"):
        if path.exists():
            shutil.copy(path, hub / path.name)
    if (sae := prepare_adapter(config).sae) is not None:
        sae.save_model(hub / "sae")
    return hub


def push_adapter(out: Path, repo: str) -> str:
    """Upload what :func:`hub_folder` lays out.

    Args:
        repo: ``ORG/NAME`` on the hub; made, private, if it is not there.

    Returns:
        Its address.

    Raises:
        ProbeError: if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    hub = hub_folder(out)
    try:
        api = HfApi()
        api.create_repo(repo, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=str(hub)))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, ConnectionError, OSError) as error:
        said = str(error).strip().splitlines()[0]
        raise ProbeError(f"{repo} was not pushed ({said}); what would have been is in {hub}") from error
