"""An adapter's training and verification, and a study of objectives, as tables for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.numbers import number, percent

if TYPE_CHECKING:
    from rich.table import Table


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


def verification_table(
    history: Sequence[Mapping[str, float]], cost: Mapping[str, float], found: Mapping[str, Any] | None
) -> "Table":
    """The same as a table for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table("", "", box=box.SIMPLE, show_header=False)
    for name, value in verification_rows(history, cost, found).items():
        table.add_row(name, value)
    return table


def study_table(study: Mapping[str, Any]) -> "Table":
    """A study for the terminal: of every row the measures with their intervals.

    Args:
        study: ``study.json``.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from probe.reports.adapter_page import study_rows

    found = study_rows(study["rows"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for name in found["measures"]:
        table.add_column(name, justify="right")
    for row in found["rows"]:
        table.add_row(Text(row["name"]), *(Text("\n".join(each)) for each in row["cells"]))
    return table


def _both(what: str, by_latents: Mapping[str, Any], write: Callable[[Any], str]) -> dict[str, str]:
    """A row for the claimed latents, and one for drawn ones where there are enough of them."""
    return {f"{what}, {name}": write(value) for name, value in by_latents.items()}


def _nats(measured: Mapping[str, Any], digits: int = 4) -> str:
    low, high = measured["ci"]
    return f"{number(measured['value'], digits)} [{number(low, digits)}, {number(high, digits)}]"


def _share(measured: Mapping[str, Any]) -> str:
    low, high = measured["ci"]
    return f"{percent(measured['value'], 1)} [{percent(low, 1)}, {percent(high, 1)}]"
