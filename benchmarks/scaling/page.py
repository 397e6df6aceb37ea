"""The page ``docs/scale.md``: what runs of three sizes need, computed by ``probe plan``, beside what was measured."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.scaling.fakes import SIZES, qwen
from probe.pipeline import Plan, RunConfig, SizesConfig
from probe.pipeline.plan.devices import Device
from probe.pipeline.plan.plan import plan_of
from probe.pipeline.plan.shapes import Shape, shape_from
from probe.pipeline.plan.speeds import speed_of
from probe.pipeline.plan.stages import Setup
from probe.pipeline.plan.units import said_bytes
from probe.pipeline.plan.work import ROLES, Texts

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
TOKENS, MEMORY, TRACES = 2000, 80 * 10**9, (400, 10_000)
_SETTINGS = [(name, train) for name in SIZES for train in TRACES]


def planned(shape: Shape, train: int, *, apart: bool = False) -> Plan:
    """Plan a run with default settings in bfloat16.

    Args:
        train: the number of train traces.
        apart: give each model a device of its own.
    """
    config = RunConfig(pair=shape.name, dtype="bfloat16", sizes=SizesConfig(train=train))
    devices = {role: Device(f"cuda:{i if apart else 0}", MEMORY, "GPU") for i, role in enumerate(ROLES)}
    setup = Setup(config, shape, shape, Texts(TOKENS))
    return plan_of(setup, devices, dict.fromkeys(ROLES, speed_of(shape, "GPU")))


def page() -> str:
    """The text of the page."""
    shapes = {name: shape_from(qwen(name), "bfloat16", name) for name in SIZES}
    plans = {(name, train): planned(shapes[name], train) for name, train in _SETTINGS}
    return "\n".join([*_head(), *_whole(shapes, plans), *_stages(plans), *_measured(), ""])


def _head() -> Iterator[str]:
    yield "# What a run needs"
    yield ""
    yield (
        "This page shows what a run needs in memory and disk for pairs of 1.5, 7 and 32 billion parameters, computed "
        "and measured; [larger models](larger.md) explains how a run is divided over devices."
    )
    yield ""
    yield (
        f"Two models of the sizes of Qwen2.5 in bfloat16, traces of {TOKENS:,} tokens, default settings, devices of "
        f"{said_bytes(MEMORY)}. This page is written by `python -m benchmarks.scale --docs`; `probe plan` computes the "
        "same for your models. A stage takes at most half of what is free besides the weights, and works in smaller "
        "pieces if it would need more."
    )


def _whole(shapes: dict[str, Shape], plans: dict[tuple[str, int], Plan]) -> Iterator[str]:
    yield from ("", "## Computed: whole runs", "")
    yield from _row("pair", "traces", "weights", "one device", "two devices", "disk", "RAM")
    yield from _rule(7)
    for (name, train), one in plans.items():
        two = planned(shapes[name], train, apart=True)
        peaks = [two.peak(f"cuda:{i}") for i in (0, 1)]
        yield from _row(
            name,
            f"{train:,}",
            f"2 × {said_bytes(shapes[name].weights)}",
            f"fits, peak {said_bytes(one.peak('cuda:0'))}" if one.fits else "does not fit",
            f"fits, peaks {said_bytes(peaks[0])} and {said_bytes(peaks[1])}" if two.fits else "does not fit",
            said_bytes(one.disk),
            said_bytes(one.host),
        )


def _stages(plans: dict[tuple[str, int], Plan]) -> Iterator[str]:
    yield from ("", "## Computed: stages", "")
    yield "Memory besides the weights: what the smallest part of a stage takes, and what it takes if memory allows."
    yield ""
    some = {name: plans[name, TRACES[-1]] for name in SIZES}
    yield from _row("stage", *(f"{name}: least" for name in some), *(f"{name}: with room" for name in some), "7B: disk")
    yield from _rule(8)
    for each in zip(*(made.stages for made in some.values()), strict=True):
        needs = [one.stage.need(set(ROLES)) for one in each]
        if not any(need.all for need in needs):
            continue
        disk = some["7B"].stages[[one.stage.name for one in some["7B"].stages].index(each[1].stage.name)].stage.disk
        least, most = ([said_bytes(value) for value in values] for values in _columns(needs))
        yield from _row(each[0].stage.name, *least, *most, said_bytes(disk) if disk else "–")


def _columns(needs: list[Any]) -> tuple[list[float], list[float]]:
    return [need.least for need in needs], [need.all for need in needs]


def _measured() -> Iterator[str]:
    yield from ("", "## Measured against computed", "")
    told = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    yield "Bytes of living tensors besides the weights, counted by `benchmarks/peak.py`."
    yield ""
    yield from _row("what", "measured", "computed", "ratio")
    yield from _rule(4)
    for row in told.get("measured", []):
        yield from _row(
            row["what"], said_bytes(row["bytes"]), said_bytes(row["formula"]), f"{row['bytes'] / row['formula']:.2f}"
        )
    yield from ("", "The same peak with more traces, of a small model (d 128, 2 layers, 48 tokens a trace):", "")
    yield from _row("what", "against", "ratio")
    yield from _rule(3)
    for row in told.get("rows", []):
        if row["against"].endswith("traces"):
            yield from _row(row["what"], row["against"], f"{row['ratio']:.2f}")


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


def _rule(n: int) -> Iterator[str]:
    yield "|" + "---|" * n
