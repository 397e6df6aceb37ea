"""The machine: processors, memory, accelerators, disk, the hub, and the environment variables that matter."""

import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from probe.pipeline.doctor.diagnosis import Fact, guarded

_GROUPS = Path("/sys/fs/cgroup")
_LITTLE_DISK = 10e9
_CUDA_BUILD = "install a CUDA build: https://pytorch.org/get-started/locally"
_NO_GPU = "check CUDA_VISIBLE_DEVICES, and that nvidia-smi lists a GPU"
_WAIT = 3.0
"""Seconds after which the hub counts as unreachable."""
_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TMPDIR"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "RAY_ADDRESS"),
)
_SECRET = ("HF_TOKEN", "HTTPS_PROXY", "https_proxy", "OPENAI_API_KEY")
"""Variables of which only the names are shown, because values may hold secrets."""


def machine() -> list[Fact]:
    """Processors, memory and accelerators."""
    return [
        *guarded("machine", "CPU", _processor),
        *guarded("machine", "memory", _memory),
        *guarded("machine", "GPU", _accelerators),
    ]


def disk() -> list[Fact]:
    """The free space where models and runs are kept."""
    return guarded("disk", "disk", _disk)


def hub() -> list[Fact]:
    """Whether models can be downloaded."""
    return guarded("hub", "hub", _hub)


def environment() -> list[Fact]:
    """The environment variables that change what probe does, if they are set."""
    shown = [f"{name}={_without_password(os.environ[name])}" for name in _VARIABLES if name in os.environ]
    kept = [f"{name} (set)" for name in _SECRET if os.environ.get(name)]
    return [Fact("environment", "environment", ", ".join([*shown, *kept]) or "no variable that matters is set")]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.0f} GB" if size >= 10e9 else f"{size / 1e9:.1f} GB"


def _processor() -> Iterator[Fact]:
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _cpu_share()
    cores = f"{there} cores" + ("" if share is None else f", of which this container may use {share:g}")
    try:
        import torch
    except Exception:  # said among the packages
        yield Fact("machine", "CPU", cores)
        return
    threads, most = torch.get_num_threads(), min(there, share or there)
    found = f"{cores}; torch uses {threads} threads, {torch.backends.cpu.get_cpu_capability()}"
    if threads > most + 1:
        yield Fact("machine", "CPU", found, "wrong", f"set OMP_NUM_THREADS={max(1, int(most))}, or threads will wait")
    else:
        yield Fact("machine", "CPU", found)


def _cpu_share() -> float | None:
    """The number of cores that a container may use; None if it is not limited."""
    quota = _read(_GROUPS / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        return int(quota[0]) / int(quota[1])
    old = _read(_GROUPS / "cpu" / "cpu.cfs_quota_us"), _read(_GROUPS / "cpu" / "cpu.cfs_period_us")
    return int(old[0]) / int(old[1]) if old[0].isdigit() and old[1].isdigit() else None


def _memory() -> Iterator[Fact]:
    import psutil

    now = psutil.virtual_memory()
    found = f"{_gigabytes(now.available)} of {_gigabytes(now.total)} free"
    limits = (_read(_GROUPS / "memory.max"), _read(_GROUPS / "memory" / "memory.limit_in_bytes"))
    limit = next((int(each) for each in limits if each.isdigit() and int(each) < now.total), None)
    if limit is None:
        yield Fact("machine", "memory", found)
        return
    # The memory of files that were read counts as used there, and would be given back.
    fix = (
        ""
        if limit >= now.available
        else f"give --memory {max(1, int(limit / 2e9))}GB, because this container may not use the rest"
    )
    yield Fact("machine", "memory", f"{found}; this container may use {_gigabytes(limit)}", "ok", fix)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _accelerators() -> Iterator[Fact]:
    try:
        import torch
    except Exception:  # said among the packages
        yield Fact("machine", "GPU", "unknown, because torch cannot be imported", "absent")
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        half = "bfloat16" if torch.cuda.get_device_capability(number) >= (8, 0) else "no fast bfloat16, use float16"
        name = torch.cuda.get_device_name(number)
        yield Fact("machine", f"cuda:{number}", f"{name}, {_gigabytes(free)} of {_gigabytes(total)} free, {half}")
    if torch.cuda.device_count():
        return
    if torch.backends.mps.is_available():
        yield Fact("machine", "mps", "Apple GPU, which shares the memory above")
    elif Path("/proc/driver/nvidia/version").exists():
        plain = torch.version.cuda is None and torch.version.hip is None
        why, fix = ("is a CPU build", _CUDA_BUILD) if plain else ("finds no GPU", _NO_GPU)
        found = f"there is an NVIDIA driver, but torch {torch.__version__} {why}"
        yield Fact("machine", "GPU", found, "wrong", fix)
    else:
        yield Fact("machine", "GPU", "none, so models run on the CPU", "absent")


def _disk() -> Iterator[Fact]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for name, folder, fix in (
        ("models (HF_HOME)", home, "free some space, or set HF_HOME to another folder"),
        ("runs (./runs)", Path("runs").absolute(), "free some space, or write runs elsewhere with --out"),
    ):
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        free = shutil.disk_usage(there).free
        found = f"{_gigabytes(free)} free at {folder}"
        if not os.access(there, os.W_OK):
            yield Fact("disk", name, f"{there} cannot be written", "wrong", fix)
        elif free < _LITTLE_DISK:
            yield Fact("disk", name, found, "wrong", fix)
        else:
            yield Fact("disk", name, found)


def _hub() -> Iterator[Fact]:
    from huggingface_hub import constants, get_token

    token = "with a token" if get_token() else "without a token"
    host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        yield Fact(
            "hub", "hub", f"offline, because HF_HUB_OFFLINE is set; {token}", "absent", "only cached models load"
        )
        return
    if _reached(constants.ENDPOINT):
        fix = "" if get_token() else "gated models need one: run hf auth login"
        yield Fact("hub", "hub", f"{host} can be reached, {token}", "ok", fix)
        return
    yield Fact("hub", "hub", f"{host} cannot be reached, {token}", "absent", "only cached models and folders load")


def _reached(address: str) -> bool:
    """Whether a server answers soon; looking up its name may take longer than any timeout of a connection."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=_WAIT):
                answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code < 500 and error.code != 407)  # 407: a proxy refuses
        except (OSError, ValueError):
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_WAIT)
    return answers == [True]


def _without_password(value: str) -> str:
    """A value without the user and password of an address."""
    parts: Any = urlsplit(value)
    return value if "@" not in parts.netloc else value.replace(parts.netloc, parts.netloc.rpartition("@")[2])
