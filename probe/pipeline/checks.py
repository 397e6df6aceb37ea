"""Checks of settings before any library that runs models is imported, so that a mistake is named at once."""

import re
from pathlib import Path
from typing import Any

from probe.adapters import is_release
from probe.config import as_pattern
from probe.errors import ProbeError
from probe.files import is_there
from probe.models import DeviceNames, ModelConfig, bundled_folder, find_pair
from probe.problems import check_problems

_DTYPES = ("float32", "bfloat16", "float16", "auto")


def check_inputs(config: Any) -> None:
    """Check that what the settings of a command name is there. What only a loaded model can tell is checked later.

    Args:
        config: the settings of a command; the fields that it has are checked.

    Raises:
        ProbeError: for a pair, model, problem set, run, file, device or dtype that does not exist.
    """
    for name in ("device", "base_device", "thinking_device"):
        _check_device(getattr(config, name, None) or "auto")
    if (dtype := getattr(config, "dtype", "float32")) not in _DTYPES:
        raise ProbeError(f"unknown dtype {dtype!r}; use one of {', '.join(_DTYPES)}")
    problems = getattr(config, "problems", None)
    if (name := getattr(config, "pair", None)) is not None:
        pair = find_pair(name)
        for model in (pair.base, pair.thinking):
            _check_member(model)
        problems = problems or pair.problems
    for role in ("base", "thinking", "model", "source"):
        if isinstance(model := getattr(config, role, None), ModelConfig):
            _check_member(model)
    judge = getattr(config, "judge", None)
    if judge is not None and judge.url is None:
        check_model(judge.model)
    if isinstance(problems, str):
        check_problems(problems)
    if (run := getattr(config, "run", None)) is not None:
        check_taxonomy(run) if hasattr(config, "behaviour") or hasattr(config, "behaviours") else check_run(run)
    if (traces := getattr(config, "traces", None)) is not None:
        check_traces(traces)
    for name in ("texts", "general"):
        if (file := getattr(config, name, None)) is not None and not Path(file).expanduser().is_file():
            raise ProbeError(f"there is no file {file} (--{name})")
    saes = getattr(config, "sae", None) or ()
    for sae in [saes] if isinstance(saes, str) else saes:
        # RELEASE/SAE_ID is looked up in SAELens' registry when it is loaded, which takes seconds.
        if not Path(sae).expanduser().is_dir() and not is_release(sae):
            raise ProbeError(f"there is no SAE folder {sae} (--sae); a published one is named RELEASE/SAE_ID")
    for each in getattr(config, "series", ()):
        if not Path(folder := each.partition("=")[2]).expanduser().is_dir():
            raise ProbeError(f"there is no folder {folder} of a checkpoint series (--series)")


def _check_member(model: ModelConfig) -> None:
    check_model(model.path)
    if model.adapter is not None:
        check_model(model.adapter)


_SAYS = ("config.json", "adapter_config.json")
"""The files that say what a folder holds: a model, or an adapter on one."""


def check_model(path: str) -> None:
    """Refuse the path of a model that is not there; whether the hub has one of that name is found out later.

    Raises:
        ProbeError: if nothing is there, or a folder without a model.
    """
    if path.startswith("bundled:"):
        bundled_folder(path.removeprefix("bundled:"))
        return
    there = Path(path).expanduser()
    if path.endswith(".gguf") and not is_there(there):
        raise ProbeError(f"there is no GGUF file {path}")
    if path.startswith((".", "~", "/")) and not is_there(there):
        raise ProbeError(f"there is no model folder {path}")
    if is_there(there) and there.is_dir() and not any((there / name).is_file() for name in _SAYS):
        raise ProbeError(f"the folder {path} holds no model: it has no config.json")


def check_behaviour(behaviour: str | None, sentence: str | None) -> None:
    """Check the two settings that name a behaviour; this needs no model.

    Args:
        behaviour: the name of a type, counter or category.
        sentence: a regular expression.

    Raises:
        ProbeError: if both or none of them are given, or the expression is invalid.
    """
    if (behaviour is None) == (sentence is None):
        raise ProbeError(
            "name one behaviour: a type, counter or category (--behaviour), or a pattern of its sentences (--sentence)"
        )
    if sentence is not None:
        as_pattern(sentence)


def check_run(run: str | Path) -> None:
    """Refuse a folder that holds no run.

    Raises:
        ProbeError: if it does not.
    """
    if not (Path(run).expanduser() / "config.json").is_file():
        raise ProbeError(f"{run} holds no run; make one with: probe run --pair tiny-rl --out {run}")


def check_taxonomy(run: str | Path) -> None:
    """Refuse a folder without a finished taxonomy.

    Raises:
        ProbeError: if it is neither that of a run nor that of a discovery.
    """
    if not (Path(run).expanduser() / "taxonomy" / "taxonomy.json").is_file():
        raise ProbeError(
            f"{run} holds no taxonomy; make one with: probe discover --pair tiny-rl --out {run} (or probe run)"
        )


def check_traces(folder: str | Path) -> None:
    """Check that a folder holds imported traces.

    Raises:
        ProbeError: if it does not.
    """
    if not (Path(folder).expanduser() / "import.json").is_file():
        raise ProbeError(
            f"{folder} holds no imported traces; make them with: probe traces import FILE --model MODEL --out {folder}"
        )


def _check_device(device: DeviceNames) -> None:
    if isinstance(device, dict):
        for name, each in device.items():
            if isinstance(each, str) and each != "disk" and name != "offload_folder":
                _check_one(each)
    elif device != "balanced":
        for each in device.split(","):
            _check_one(each.strip())


def _check_one(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|(cuda|mps)(:\d+)?", device):
        raise ProbeError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:N, mps or balanced")
