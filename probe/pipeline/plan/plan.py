"""A plan: the stages of a run with what each takes, whether they fit, and which setting would make them fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError
from probe.html import html_table
from probe.models import PairConfig, find_pair, shares_weights
from probe.pipeline.plan.devices import Device, devices_of
from probe.pipeline.plan.fit import (
    Planned,
    advice_of,
    each_device,
    planned_stages,
    wanted_rows,
    weights_lack,
    weights_on,
)
from probe.pipeline.plan.shapes import Shape, shape_of
from probe.pipeline.plan.speeds import Range, Speed, measure, speed_of
from probe.pipeline.plan.stages import Setup
from probe.pipeline.plan.units import said_bytes, said_count, said_seconds
from probe.pipeline.plan.work import ROLES, Texts
from probe.pipeline.run.config import RunConfig


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
        weights = weights_lack(self.setup, self.devices)
        return weights or next((each.lack for each in self.stages if each.lack), None)

    def weights(self, device: str) -> int:
        """The bytes of all weights on a device."""
        return weights_on(self.setup, self.devices, device)

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
        """The cells of the table: tokens through each model, bytes besides the weights, bytes on disk, and time."""
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
        found = [_said_weights(self.setup.shape(role), role, self.devices[role]) for role in ROLES]
        if self.setup.shared and len(each_device(self.devices)) == 1:
            found[1:] = ["The thinking model shares them."]
        for device in each_device(self.devices):
            of = "" if device.memory is None else f" of {said_bytes(device.memory)}"
            free = " free now" if device.measured and of else ""
            found.append(f"Peak on {device.name}: {said_bytes(self.peak(device.name))}{of}{free}.")
        how = "measured on both models" if self.measured else "from a table of devices; --calibrate measures"
        found.append(f"Time: {_said_range(self.seconds)} ({how}). Disk: {said_bytes(self.disk)}.")
        short = [each for each in self.stages if 0 < each.rows < wanted_rows(each.stage)]
        if short and self.fits:
            least = min(short, key=lambda each: each.rows)
            found.append(
                f"In the stage with the least room ({least.stage.name}), only {least.rows} of "
                f"{wanted_rows(least.stage)} rows are decoded at a time."
            )
        if self.lack is None:
            known = all(device.memory is not None for device in self.devices.values())
            found.append("It fits." if known else "The memory of the device is unknown; give it with --device-memory.")
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
                    "path": (shape := self.setup.shape(role)).name,
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
                for device in each_device(self.devices)
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
    calibrate: bool = False,
) -> Plan:
    """Compute what a run will need, from its settings and the configs of its models; no weights are read.

    Args:
        config: the settings of the run.
        tokens: the expected number of emitted tokens of a trace; None takes the limit, ``max_new_tokens``.
        memory: bytes of each device; None measures what is free on the devices of this machine.
        calibrate: load both models and measure how fast they are; this takes about half a minute.

    Raises:
        ProbeError: for a pair, model or device that does not exist, or fewer than one token.
    """
    pair = pair_of(config)
    limit = config.decoding.max_new_tokens or pair.max_new_tokens
    if tokens is not None and tokens < 1:
        raise ProbeError(f"tokens is {tokens}; a trace has at least 1")
    base = shape_of(pair.base, config.dtype)
    shared = shares_weights(pair)
    thinking = base if shared else shape_of(pair.thinking, config.dtype)
    there = devices_of(config, memory)
    setup = Setup(config, base, thinking, Texts(tokens or limit), shared)
    speeds = {role: speed_of(setup.shape(role), there[role].kind) for role in ROLES}
    if calibrate:
        members = {"base": pair.base, "thinking": pair.thinking}
        rows = min(planned.rows for planned in planned_stages(setup, there, speeds) if planned.rows)
        speeds = {
            role: measure(
                member,
                getattr(config, f"{role}_device") or config.device,
                config.dtype,
                rows=min(rows, 64),
                tokens=min(setup.texts.whole, 1024),
            )
            for role, member in members.items()
        }
    return plan_of(setup, there, speeds)


def pair_of(config: RunConfig) -> PairConfig:
    """The pair that the settings name."""
    if config.pair is not None:
        return find_pair(config.pair)
    assert config.base is not None and config.thinking is not None  # the settings were checked
    return PairConfig(config.name, config.base, config.thinking)


def plan_of(setup: Setup, devices: Mapping[str, Device], speeds: Mapping[str, Speed]) -> Plan:
    """Make a plan from sizes that are known."""
    stages = planned_stages(setup, devices, speeds)
    measured = all(speed.measured for speed in speeds.values())
    lack = weights_lack(setup, devices) or next((each.lack for each in stages if each.lack), None)
    return Plan(setup, devices, stages, measured, None if lack is None else advice_of(setup, devices, speeds))


def _names(devices: Mapping[str, Device]) -> list[str]:
    return [device.name for device in each_device(devices)]


def _said_weights(shape: Shape, role: str, device: Device) -> str:
    count, times = said_count(sum(shape.parameters.values())), f", {device.pairs} times" if device.pairs > 1 else ""
    return (
        f"Weights of {role}: {said_bytes(shape.weights)} on {device.name}{times} "
        f"({shape.architecture}, {count} in {shape.dtype})."
    )


def _or_dash(amount: float) -> str:
    return said_bytes(amount) if amount else "–"


def _said_range(seconds: Range) -> str:
    low, high = map(said_seconds, seconds)
    if low == high:
        return low
    (first, unit), (_, other) = low.split(" "), high.split(" ")
    return f"{first}–{high}" if unit == other else f"{low}–{high}"
