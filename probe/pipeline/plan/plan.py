"""A plan: the stages of a run with what each takes, whether they fit, and which setting would make them fit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.html import html_table
from probe.models import PairConfig, find_pair
from probe.pipeline.plan.arms import arms
from probe.pipeline.plan.devices import Device, device_of
from probe.pipeline.plan.shapes import Shape, shape_of
from probe.pipeline.plan.speeds import Range, Speed, measure, seconds_of, speed_of
from probe.pipeline.plan.stages import Setup, before_arms
from probe.pipeline.plan.units import said_bytes, said_count, said_seconds
from probe.pipeline.plan.work import ROLES, Stage, Texts
from probe.pipeline.run.config import RunConfig


@dataclass(frozen=True)
class Planned:
    """A stage on the devices of a plan.

    Attributes:
        stage: what it does.
        peak: bytes beside the weights, by device.
        rows: rows that are decoded together; 0 if none are.
        seconds: the least and the most time; None if it is not estimated.
        lack: what does not fit, in words; None if all fits.
    """

    stage: Stage
    peak: Mapping[str, float]
    rows: int
    seconds: Range | None
    lack: str | None


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run will need; Jupyter shows it as a table, and ``str`` gives it as text.

    Attributes:
        setup: the settings, the sizes of the models and the lengths of the texts.
        devices: the device of each model, by role.
        stages: all stages in order.
        measured: whether times follow from a measurement.
        advice: what would make it fit, in one sentence; None if it fits.
    """

    setup: Setup
    devices: Mapping[str, Device]
    stages: tuple[Planned, ...]
    measured: bool
    advice: str | None

    @property
    def fits(self) -> bool:
        """Whether every stage fits, as far as the memory is known."""
        return self.lack is None

    @property
    def lack(self) -> str | None:
        """The first thing that does not fit, in words."""
        weights = _weights_lack(self.setup, self.devices)
        return weights or next((each.lack for each in self.stages if each.lack), None)

    def weights(self, device: str) -> int:
        """The bytes of all weights on a device."""
        return _weights(self.setup, self.devices, device)

    def peak(self, device: str) -> float:
        """The bytes of the weights on a device and of its largest stage."""
        return self.weights(device) + max(each.peak.get(device, 0.0) for each in self.stages)

    @property
    def disk(self) -> float:
        """The bytes on disk of the whole run."""
        return sum(each.stage.disk for each in self.stages)

    @property
    def host(self) -> float:
        """The most bytes in the memory of the machine, beside weights on a device of its own."""
        return max(each.stage.host for each in self.stages)

    @property
    def seconds(self) -> Range:
        """The least and the most time of all stages that are estimated."""
        known = [each.seconds for each in self.stages if each.seconds is not None]
        return sum(low for low, _ in known), sum(high for _, high in known)

    @property
    def columns(self) -> tuple[str, ...]:
        """The headings of the table."""
        return ("stage", "base", "thinking", *_names(self.devices), "RAM", "disk", "time")

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of the table: tokens through each model, bytes beside the weights, bytes on disk, and time."""
        for each in self.stages:
            stage = each.stage
            yield (
                stage.name + ("" if each.lack is None else " ✗"),
                *(said_count(stage.passes[role].tokens if role in stage.passes else 0) for role in ROLES),
                *(_or_dash(each.peak.get(name, 0.0)) for name in _names(self.devices)),
                _or_dash(stage.host),
                _or_dash(stage.disk),
                "–" if each.seconds is None else _said_range(each.seconds),
            )

    def sentences(self) -> list[str]:
        """What the table means: the weights, the peak, the time, and whether the run fits."""
        found = [_said_weights(self.setup, self.devices)]
        for device in _each(self.devices):
            of = "" if device.memory is None else f" of {said_bytes(device.memory)}"
            free = " free now" if device.measured and of else ""
            found.append(f"Peak on {device.name}: {said_bytes(self.peak(device.name))}{of}{free}.")
        how = "measured on both models" if self.measured else "from a table of devices; --calibrate measures"
        found.append(f"Time: {_said_range(self.seconds)} ({how}). Disk: {said_bytes(self.disk)}.")
        short = [each for each in self.stages if 0 < each.rows < _wanted_rows(each.stage)]
        if short and self.fits:
            least = min(short, key=lambda each: each.rows)
            found.append(
                f"{least.stage.name} decodes {least.rows} of {_wanted_rows(least.stage)} rows at a time, "
                "because no more fit."
            )
        if self.lack is None:
            known = all(device.memory is not None for device in self.devices.values())
            found.append("It fits." if known else "How much memory there is, is unknown; give it (--memory).")
        else:
            found.append(f"It does not fit: {self.lack}. {self.advice or ''}".strip())
        return found

    def as_dict(self) -> dict[str, Any]:
        """The plan for JSON; bytes, tokens and seconds are numbers."""
        return {
            "fits": self.fits,
            "lack": self.lack,
            "advice": self.advice,
            "texts": {"tokens": self.setup.texts.tokens, "prompt": self.setup.texts.prompt},
            "models": {
                role: {
                    "path": (shape := _shape(self.setup, role)).name,
                    "architecture": shape.architecture,
                    "dtype": shape.dtype,
                    "parameters": shape.parameters,
                    "weights": shape.weights,
                    "device": self.devices[role].name,
                }
                for role in ROLES
            },
            "devices": {
                device.name: {
                    "memory": device.memory,
                    "measured": device.measured,
                    "weights": self.weights(device.name),
                    "peak": round(self.peak(device.name)),
                }
                for device in _each(self.devices)
            },
            "disk": round(self.disk),
            "host": round(self.host),
            "seconds": [round(each, 1) for each in self.seconds],
            "measured": self.measured,
            "stages": [
                {
                    "name": each.stage.name,
                    "tokens": {role: round(passes.tokens) for role, passes in each.stage.passes.items()},
                    "peak": {name: round(peak) for name, peak in each.peak.items()},
                    "rows": each.rows,
                    "host": round(each.stage.host),
                    "disk": round(each.stage.disk),
                    "seconds": each.seconds and [round(second, 1) for second in each.seconds],
                    "lack": each.lack,
                    "setting": each.stage.setting,
                    "assumes": each.stage.says,
                }
                for each in self.stages
            ],
        }

    def __repr__(self) -> str:
        return f"Plan({self.setup.config.name}: {'fits' if self.fits else self.lack})"

    def __str__(self) -> str:
        rows = [self.columns, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join([*lines, "", *self.sentences()])

    def _repr_html_(self) -> str:
        return html_table(self.columns, self.rows()) + html_table((), [[each] for each in self.sentences()])


def plan(
    config: RunConfig,
    *,
    tokens: int | None = None,
    memory: int | None = None,
    devices: tuple[str, str] | None = None,
    calibrate: bool = False,
) -> Plan:
    """Compute what a run will need, from its settings and the configs of its models; no weights are read.

    Args:
        config: the settings of the run.
        tokens: the expected number of emitted tokens of a trace; None takes the limit, ``max_new_tokens``.
        memory: bytes of each device; None measures what is free on the devices of this machine.
        devices: the devices of the base and of the thinking model; None puts both on ``config.device``.
        calibrate: load both models and measure how fast they are; this takes about half a minute.

    Raises:
        ProbeError: for a pair, model or device that does not exist, or fewer than one token.
    """
    pair = _pair(config)
    limit = config.decoding.max_new_tokens or pair.max_new_tokens
    if tokens is not None and tokens < 1:
        raise ProbeError(f"tokens is {tokens}; a trace has at least 1")
    base = shape_of(pair.base, config.dtype)
    thinking = base if pair.thinking.path == pair.base.path else shape_of(pair.thinking, config.dtype)
    named = devices or (config.device, config.device)
    there = {role: device_of(name, memory) for role, name in zip(ROLES, named, strict=True)}
    setup = Setup(config, base, thinking, Texts(tokens or limit))
    speeds = {role: speed_of(_shape(setup, role), there[role].kind) for role in ROLES}
    if calibrate:
        members = {"base": pair.base, "thinking": pair.thinking}
        rows = min(planned.rows for planned in planned_stages(setup, there, speeds) if planned.rows)
        speeds = {
            role: measure(
                member, there[role].name, config.dtype, rows=min(rows, 64), tokens=min(setup.texts.whole, 1024)
            )
            for role, member in members.items()
        }
    return plan_of(setup, there, speeds)


def plan_of(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> Plan:
    """Make a plan from sizes that are known."""
    stages = planned_stages(setup, devices, speeds)
    measured = all(speed.measured for speed in speeds.values())
    lack = _weights_lack(setup, devices) or next((each.lack for each in stages if each.lack), None)
    return Plan(setup, devices, stages, measured, None if lack is None else _advice(setup, devices, speeds))


def check_room(config: RunConfig, out: Path, pair: PairConfig | None = None) -> None:
    """Refuse a run that cannot fit on its devices, before it loads a model; stages that are finished do not count.

    Args:
        config: the settings.
        out: the folder of the run.
        pair: the pair, if it is not the one that the settings name.

    Raises:
        ProbeError: if the weights, or the smallest part of a stage, are larger than the memory that is free now.
    """
    pair = pair or _pair(config)
    base, thinking = (shape_of(member, config.dtype) for member in (pair.base, pair.thinking))
    device = device_of(config.device, None)
    texts = Texts(config.decoding.max_new_tokens or pair.max_new_tokens)
    setup = Setup(config, base, thinking, texts)
    devices = dict.fromkeys(ROLES, device)
    speeds = {role: speed_of(_shape(setup, role), device.kind) for role in ROLES}
    lacking = [each for each in planned_stages(setup, devices, speeds) if each.lack and not _finished(each.stage, out)]
    lack = _weights_lack(setup, devices) or next((each.lack for each in lacking), None)
    if lack is not None:
        raise ProbeError(f"this run does not fit: {lack}. {_advice(setup, devices, speeds)}")


def planned_stages(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> tuple[Planned, ...]:
    """Put every stage on its devices."""
    return tuple(_place(setup, stage, devices, speeds) for stage in (*before_arms(setup), *arms(setup)))


def _place(setup: Setup, stage: Stage, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> Planned:
    peak, lack, share = {}, None, 1.0
    for device in _each(devices):
        roles = {role for role in ROLES if devices[role].name == device.name}
        need, weights = stage.need(roles), _weights(setup, devices, device.name)
        # A run takes at most half of what is free beside the weights, unless the smallest part needs more.
        room = float("inf") if device.memory is None else (device.memory - weights) / 2
        taken = need.given(room)
        peak[device.name] = taken
        if need.wanted:
            share = min(share, taken / need.wanted)
        beside = stage.host if device.is_host else 0.0
        if device.memory is not None and need.least + beside > device.memory - weights >= 0 and lack is None:
            lack = (
                f"{stage.name} needs {said_bytes(need.least + beside)} on {device.name} beside {said_bytes(weights)} "
                f"of weights, and it has {said_bytes(device.memory)}"
            )
    wanted = _wanted_rows(stage)
    rows = max(1, int(wanted * share)) if wanted else 0
    return Planned(stage, peak, rows, seconds_of(stage, speeds, max(1, rows)), lack)


def _wanted_rows(stage: Stage) -> int:
    return max((passes.rows for passes in stage.passes.values() if passes.decoded), default=0)


def _shape(setup: Setup, role: str) -> Shape:
    return setup.base if role == "base" else setup.thinking


def _weights(setup: Setup, devices: Mapping[str, Device], name: str) -> int:
    return sum(_shape(setup, role).weights for role in ROLES if devices[role].name == name)


def _weights_lack(setup: Setup, devices: Mapping[str, Device]) -> str | None:
    for device in _each(devices):
        weights = _weights(setup, devices, device.name)
        if device.memory is not None and weights > device.memory:
            return f"the weights take {said_bytes(weights)} on {device.name}, and it has {said_bytes(device.memory)}"
    return None


def _advice(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> str:
    """The setting that would make the run fit."""
    if setup.config.dtype == "float32" and _fits(_halved(setup), devices, speeds):
        return "Set dtype to bfloat16 (--dtype bfloat16)"
    if _weights_lack(setup, devices) is None:
        fewer = _most(lambda tokens: _fits(_with_tokens(setup, tokens), devices, speeds), setup.texts.tokens)
        if fewer:
            return f"Set decoding.max_new_tokens to at most {fewer}"
    apart = {
        role: Device(f"{devices[role].name} of {role}", devices[role].memory, devices[role].kind) for role in ROLES
    }
    if devices["base"].name == devices["thinking"].name and _fits(setup, apart, speeds):
        return "With a device of that size for each model it would fit"
    return "Use a device with more memory, or smaller models"


def _halved(setup: Setup) -> Setup:
    from dataclasses import replace

    base, thinking = (replace(shape, dtype="bfloat16", size=2) for shape in (setup.base, setup.thinking))
    return Setup(setup.config, base, thinking, setup.texts)


def _with_tokens(setup: Setup, tokens: int) -> Setup:
    return Setup(setup.config, setup.base, setup.thinking, Texts(tokens, setup.texts.prompt, setup.texts.sentence))


def _fits(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> bool:
    if _weights_lack(setup, devices):
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


def _finished(stage: Stage, out: Path) -> bool:
    if stage.name == "models":
        return False
    return bool(stage.folders) and all((out / folder / "manifest.json").is_file() for folder in stage.folders)


def _pair(config: RunConfig) -> PairConfig:
    if config.pair is not None:
        return find_pair(config.pair)
    assert config.base is not None and config.thinking is not None  # the settings were checked
    return PairConfig(config.name, config.base, config.thinking)


def _each(devices: Mapping[str, Device]) -> Sequence[Device]:
    return list({device.name: device for device in devices.values()}.values())


def _names(devices: Mapping[str, Device]) -> list[str]:
    return [device.name for device in _each(devices)]


def _said_weights(setup: Setup, devices: Mapping[str, Device]) -> str:
    parts = [
        f"{role} {said_bytes(_shape(setup, role).weights)} on {devices[role].name} "
        f"({_shape(setup, role).architecture}, {said_count(sum(_shape(setup, role).parameters.values()))} weights, "
        f"{_shape(setup, role).dtype})"
        for role in ROLES
    ]
    return f"Weights: {'; '.join(parts)}."


def _or_dash(amount: float) -> str:
    return said_bytes(amount) if amount else "–"


def _said_range(seconds: Range) -> str:
    low, high = map(said_seconds, seconds)
    if low == high:
        return low
    (first, unit), (_, other) = low.split(" "), high.split(" ")
    return f"{first}–{high}" if unit == other else f"{low}–{high}"
