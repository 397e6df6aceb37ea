"""What the tables of an adapter and of a study hold, the same for pages, the card and the terminal."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from probe.reports.html.numbers import estimate, interval, number, percent, value_and_interval


def verification_rows(
    history: Sequence[Mapping[str, float]], cost: Mapping[str, float], found: Mapping[str, Any] | None
) -> dict[str, str]:
    """Loss, reach, effect, necessity, sufficiency, alignment, damage, insertion, behaviour, cost: what, and how much.

    Args:
        history, cost: of :class:`~probe.adapters.Tuned`.
        found: ``verification.json``; None without an SAE.
    """
    best = min(history, key=lambda look: look["loss"])
    rows = {"validation loss": f"{history[0]['loss']:.4f} → {best['loss']:.4f} at step {best['step']:.0f}"}
    if found is not None:
        reached = [block for block, share in found["reach"].items() if share]
        rows |= {
            "blocks reached": ", ".join(map(str, reached)) or "none",
            "state at the SAE's site changed": _share(found["site_changed"]),
            "latents moved": f"{len(found['moved'])}: {', '.join(map(str, found['moved'][:8])) or '–'}",
            "KL(base ‖ adapter), nats a token": _nats(found["effect"]),
            **_both("of it gone without these latents", found["necessity"], _share),
            **_both("of it had by raising these latents", found["sufficiency"], _share),
            **_both("alignment with these decoder rows", found["alignment"], number),
        }
        for texts, damage in found["damage"].items():
            rows[f"cross-entropy changed, {'texts like those' if texts == 'like' else 'other texts'}"] = _nats(
                damage["ce"]
            )
        rows |= {
            "KL with the SAE in place": _nats(found["insertion"]["sae"]),
            "… and the adapter": _nats(found["insertion"]["sae and adapter"]),
        }
        counted = found.get("behaviour") or {}
        for name, each in counted.items():
            share = name.startswith("taken back")
            rows[f"behaviour, {name}"] = _share(each) if share else _nats(each, 2)
    rows["cost"] = f"{number(cost['tokens'], 0)} tokens, {cost['flops']:.2g} FLOPs, {number(cost['seconds'], 0)} s"
    return rows


def study_rows(rows: Mapping[str, Any], what: str = "measures") -> dict[str, Any]:
    """The cells of a study's table.

    Args:
        rows: of ``study.json`` or ``foreign.json``.
        what: ``measures``; or ``difference``, from each row's control.

    Returns:
        ``measures`` (those that occur), and ``rows``, of each its ``name``, ``against`` and ``cells``.
    """
    some = {name: row for name, row in rows.items() if what in row}
    shown = list(dict.fromkeys(measure for row in some.values() for measure in row[what]))
    return {
        "measures": shown,
        "rows": [
            {"name": name, "against": row.get("against", ""), "cells": [cell(each, row[what]) for each in shown]}
            for name, row in some.items()
        ],
    }


def cell(measure: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """A value and its interval; of problems solved in percent, of all others in nats a token."""
    if measure not in values:
        return "", ""
    write = partial(percent, digits=1) if measure == "solved" else partial(number, digits=3)
    value, ci = value_and_interval(values[measure])
    return write(value), interval(ci, write)


def _both(what: str, by_latents: Mapping[str, Any], write: Callable[[Any], str]) -> dict[str, str]:
    """A row for the claimed latents, and one for drawn ones where there are enough of them."""
    return {f"{what}, {name}": write(value) for name, value in by_latents.items()}


def _nats(measured: Mapping[str, Any], digits: int = 4) -> str:
    return estimate(measured, partial(number, digits=digits))


def _share(measured: Mapping[str, Any]) -> str:
    return estimate(measured, partial(percent, digits=1))
