"""A finished adapter, and the formats in which it can be exported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probe.config import from_dict, read_as
from probe.errors import ProbeError
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.place import find_again

#: The formats of an export.
FORMATS = {
    "peft": "a PEFT folder that vLLM and llama.cpp read alike",
    "merged": "the whole model with the adapter in its weights",
    "gguf": "a LoRA file for llama.cpp",
}


def check_formats(formats: Sequence[str]) -> None:
    """Check the names of formats.

    Raises:
        ProbeError: for an unknown format, or if none is named.
    """
    if unknown := [name for name in formats or [""] if name not in FORMATS]:
        raise ProbeError(f"there is no format {unknown[0]!r}; formats are {', '.join(FORMATS)}")


def finished_adapter(out: Path) -> tuple[AdapterConfig, Path]:
    """The settings and the folder of a finished adapter.

    Raises:
        ProbeError: if there is none.
    """
    out = out.expanduser()
    if not (out / "config.json").is_file():
        raise ProbeError(f"{out} holds no finished adapter; make one with: probe adapter tune --run RUN --out {out}")
    written = out / "config.json"
    return from_dict(AdapterConfig, find_again(read_as(dict[str, Any], written), out), str(written)), out / "adapter"
