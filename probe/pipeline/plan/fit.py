"""Stages on devices: what each takes there, whether it fits, and which setting would make it fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from probe.config import byte_size
from probe.pipeline.plan.arms import arms
from probe.pipeline.plan.devices import Device
from probe.pipeline.plan.speeds import Range, Speed, seconds_of
from probe.pipeline.plan.stages import Setup, before_arms
from probe.pipeline.plan.units import said_bytes
from probe.pipeline.plan.work import ROLES, Stage, Texts


@dataclass(frozen=True)
class Planned:
    """A stage on the devices of a plan.

    Attributes:
        stage: what it does.
        peak: bytes besides the weights, by device.
        rows: rows that are decoded together; 0 if none are.
        seconds: the least and the most time; None if it is not estimated.
        lack: what does not fit, in words; None if all fits.
    """

    stage: Stage
    peak: Mapping[str, float]
    rows: int
    seconds: Range | None
    lack: str | None


def planned_stages(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> tuple[Planned, ...]:
    """Put every stage on its devices."""
    return tuple(_place(setup, stage, devices, speeds) for stage in (*before_arms(setup), *arms(setup)))


def _place(setup: Setup, stage: Stage, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> Planned:
    peak, lack, share = {}, None, 1.0
    for device in each_device(devices):
        roles = {role for role in ROLES if devices[role].name == device.name}
        need, weights = stage.need(roles), weights_on(setup, devices, device.name)
        # A run takes at most half of what is free besides the weights or what it is given, or what its smallest part
        # needs.
        room = float("inf")
        if device.memory is not None:
            room = (device.memory - weights) / 2 / device.workers / device.parts
        if (given := byte_size(setup.config.memory)) is not None:
            room = given
        taken = need.given(room)
        peak[device.name] = taken * device.workers
        if need.all:
            share = min(share, taken / need.all)
        least = need.least * device.workers + (stage.host if device.is_host and stage.needs else 0.0)
        # The smallest part has to fit beside the weights of one device, also where those are divided over several.
        fits = device.memory is None or least <= (device.memory - weights) / device.parts
        if device.memory is not None and not fits and device.memory >= weights and lack is None:
            lack = (
                f"{stage.name} needs {said_bytes(least)} on {device.name} in addition to {said_bytes(weights)} of "
                f"weights, but only {said_bytes(device.memory)} is {'free' if device.measured else 'there'}"
            )
    wanted = wanted_rows(stage)
    rows = max(1, int(wanted * share)) if wanted else 0
    return Planned(stage, peak, rows, seconds_of(stage, speeds, max(1, rows)), lack)


def wanted_rows(stage: Stage) -> int:
    """The rows that a stage would decode together; 0 if it decodes none."""
    return max((passes.rows for passes in stage.passes.values() if passes.decoded), default=0)


def weights_on(setup: Setup, devices: Mapping[str, Device], name: str) -> int:
    """The bytes of all weights on a device."""
    each = [device.pairs * setup.shape(role).weights for role, device in devices.items() if device.name == name]
    return max(each, default=0) if setup.shared else sum(each)


def weights_lack(setup: Setup, devices: Mapping[str, Device]) -> str | None:
    """Say on which device the weights alone do not fit; None if they fit."""
    for device in each_device(devices):
        weights = weights_on(setup, devices, device.name)
        if device.memory is not None and weights > device.memory:
            free = " free" if device.measured else ""
            has = f"it has {said_bytes(device.memory)}{free}"
            return f"the weights take {said_bytes(weights)} on {device.name}, and {has}"
    return None


def advice_of(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> str:
    """The setting that would make the run fit."""
    alone = {role: replace(device, pairs=1) for role, device in devices.items()}
    if alone != devices and _fits(setup, alone, speeds):
        return "Set engine to here, or to fewer processes"
    if setup.config.dtype == "float32" and _fits(_halved(setup), devices, speeds):
        return "Set dtype to bfloat16 (--dtype bfloat16)"
    if weights_lack(setup, devices) is None:
        fewer = _most(lambda tokens: _fits(_with_tokens(setup, tokens), devices, speeds), setup.texts.tokens)
        if fewer:
            return f"Set decoding.max_new_tokens to at most {fewer}"
    apart = {
        role: Device(f"{devices[role].name} of {role}", devices[role].memory, devices[role].kind) for role in ROLES
    }
    if devices["base"].name == devices["thinking"].name and _fits(setup, apart, speeds):
        return "It would fit with one such device for each model"
    return "Use a device with more memory, or smaller models"


def _halved(setup: Setup) -> Setup:
    base, thinking = (replace(shape, dtype="bfloat16", size=2) for shape in (setup.base, setup.thinking))
    return replace(setup, base=base, thinking=thinking)


def _with_tokens(setup: Setup, tokens: int) -> Setup:
    return replace(setup, texts=Texts(tokens, setup.texts.prompt, setup.texts.sentence))


def _fits(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> bool:
    if weights_lack(setup, devices):
        return False
    return not any(each.lack for each in planned_stages(setup, devices, speeds))


def _most(fits: Callable[[int], bool], below: int, least: int = 32) -> int:
    """The largest number below another that fits, in two digits; 0 if none does."""
    low, high = least, below
    if not fits(low):
        return 0
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    digits = 10 ** max(0, len(str(low)) - 2)
    return low // digits * digits


def each_device(devices: Mapping[str, Device]) -> Sequence[Device]:
    """Every device once."""
    return list({device.name: device for device in devices.values()}.values())
