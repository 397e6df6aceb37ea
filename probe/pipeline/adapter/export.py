"""``probe adapter export`` and ``probe push``: writes a finished adapter in other formats and uploads it to a hub."""

import shutil
from pathlib import Path
from typing import Any

from probe.adapters import canonical, compare_export, gguf_lora, merged, save_saelens
from probe.config import read_as
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.files import write_json
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.finished import check_formats, finished_adapter
from probe.pipeline.adapter.inputs import sae_of
from probe.pipeline.adapter.tune import model_of

_EXPORTS = "exports.json"


def export_adapter(out: str | Path, formats: list[str]) -> list[Path]:
    """Write a finished adapter in other formats, into ``out/FORMAT``, and check each in a fresh process.

    ``out/exports.json`` holds the result of the checks, as :func:`~probe.adapters.compare_export` returns it.

    Args:
        out: a folder of :func:`~probe.pipeline.tune_adapter`.
        formats: names such as ``peft``.

    Raises:
        ProbeError: if there is no adapter, there is no such format, or an export does not do what the adapter does.
    """
    check_formats(formats)
    config, folder = finished_adapter(Path(out))
    out, model = folder.parent, model_of(config, folder)
    made = {
        "peft": lambda: canonical(folder, out / "peft"),
        "merged": lambda: merged(model, folder, out / "merged"),
        "gguf": lambda: gguf_lora(model, folder, out / "gguf" / "adapter.gguf"),
    }
    paths = []
    with FolderLock(out):
        report = read_as(dict[str, Any], out / _EXPORTS) if (out / _EXPORTS).exists() else {}
        for name in formats:
            paths.append(made[name]())
            report[name] = compare_export(model, folder, name, paths[-1])
            write_json(out / _EXPORTS, report)
    return paths


def hub_folder(out: str | Path) -> Path:
    """Collect a finished adapter for a model hub, in ``out/hub``.

    The folder holds the canonical PEFT form, the card with the verification table, ``probe.json``, the report, the SAE
    in SAELens' format, and the GGUF file if there is one.

    Args:
        out: a folder of :func:`~probe.pipeline.tune_adapter`.

    Raises:
        ProbeError: if there is no finished adapter.
    """
    config, folder = finished_adapter(Path(out))
    out = folder.parent
    with FolderLock(out):
        return _hub_folder(config, folder, out)


def _hub_folder(config: AdapterConfig, folder: Path, out: Path) -> Path:
    """Collect the files in a folder that is locked; if one is damaged, the folder of an earlier call stays."""
    hub, fresh = out / "hub", out / ".hub.tmp"
    files = (folder / "README.md", out / "verification.json", out / "report.html", out / "gguf" / "adapter.gguf")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        canonical(folder, fresh)
        for path in files:
            if path.exists():
                shutil.copy(path, fresh / path.name)
        if (sae := sae_of(config)) is not None:
            save_saelens(sae, fresh / "sae")
        shutil.rmtree(hub, ignore_errors=True)
        fresh.rename(hub)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return hub


def push_adapter(out: str | Path, repo: str) -> str:
    """Upload the folder of :func:`hub_folder`.

    Args:
        out: a folder of :func:`~probe.pipeline.tune_adapter`.
        repo: ``ORG/NAME`` on the hub; created as a private repository if it does not exist.

    Returns:
        The address of the upload.

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
        raise ProbeError(f"{repo} was not pushed ({said}); the folder to push is {hub}") from error
