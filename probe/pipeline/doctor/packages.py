"""Which versions are installed, and whether they are in the ranges that probe supports."""

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from probe import __version__
from probe.pipeline.doctor.diagnosis import Fact, State, guarded, said

_NAME = "probe-interp"
_SHOWN = ("torch", "transformers", "accelerate", "peft", "transformer-lens", "sae-lens", "nnsight")
"""The packages that are shown with their version; of the others, those that are wrong."""
_IMPORTED = ("torch", "transformers")
"""The packages that are imported, because they are often broken; the others would take too long."""
_NO_EXTRAS = ("all", "dev")


def packages() -> list[Fact]:
    """Python, probe, and what probe needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    facts = [Fact("packages", "python", f"{version} ({sys.executable})"), Fact("packages", "probe", __version__)]
    return [*facts, *guarded("packages", _NAME, _required)]


def extras() -> list[Fact]:
    """The optional packages, by extra."""
    return guarded("extras", "extras", _extras)


def _requirements() -> list[Any]:
    """The requirements of probe, as the installed package states them."""
    from packaging.requirements import Requirement

    try:
        stated = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        raise RuntimeError(f"the package {_NAME} is not installed; run: pip install -e . in its folder") from None
    return [Requirement(each) for each in stated]


def _required() -> Iterator[Fact]:
    needed = [each for each in _requirements() if each.marker is None or each.marker.evaluate({"extra": ""})]
    needed.sort(key=lambda each: _SHOWN.index(each.name) if each.name in _SHOWN else len(_SHOWN))
    fine = 0
    for each in needed:
        fact = _judged(each, "packages", f"pip install '{each.name}{each.specifier}'", optional=False)
        if each.name in _SHOWN or fact.state != "ok":
            yield fact
        else:
            fine += 1
    yield Fact("packages", "others", f"{fine} required packages are in their ranges")


def _judged(requirement: Any, group: str, install: str, *, optional: bool) -> Fact:
    """What is installed for a requirement."""
    name, wanted = requirement.name, str(requirement.specifier)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Fact(group, name, "not installed", "absent" if optional else "wrong", install)
    if not requirement.specifier.contains(version, prereleases=True):
        return Fact(group, name, f"{version}, outside the supported {wanted}", "wrong", install)
    try:
        if name in _IMPORTED:
            importlib.import_module(name)
        elif not any(find_spec(module) for module in _modules(name)):
            return Fact(group, name, f"{version}, but its files are missing", "wrong", f"{install} --force-reinstall")
    except Exception as error:  # a broken package may raise anything
        found = f"{version}, which cannot be imported: {said(error)}"
        return Fact(group, name, found, "wrong", f"{install} --force-reinstall")
    return Fact(group, name, version)


def _modules(name: str) -> list[str]:
    """The names under which an installed package is imported: `pillow` is `PIL`."""
    files = metadata.files(name) or []
    tops = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}
    # An editable installation lists no modules.
    return sorted(top for top in tops if top.isidentifier()) or [name.replace("-", "_")]


def _extras() -> Iterator[Fact]:
    asked = _requirements()
    for extra in metadata.metadata(_NAME).get_all("Provides-Extra") or []:
        if extra in _NO_EXTRAS:
            continue
        install = f"pip install '{_NAME}[{extra}]'"
        own = [each for each in asked if each.marker is not None and each.marker.evaluate({"extra": extra})]
        own = [each for each in own if not each.marker.evaluate({"extra": ""})]
        facts = [_judged(each, "extras", install, optional=True) for each in own]
        found: set[State] = {fact.state for fact in facts}
        state: State = "wrong" if "wrong" in found else "absent" if "absent" in found else "ok"
        told = ", ".join(f"{fact.name} {fact.found}" for fact in facts)
        yield Fact("extras", f"[{extra}]", told, state, "" if state == "ok" else install)
