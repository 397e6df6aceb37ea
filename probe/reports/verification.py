"""An adapter's training and verification as a table for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.reports.numbers import number, percent

if TYPE_CHECKING:
    from rich.table import Table


def verification_table(
    history: Sequence[Mapping[str, float]], cost: Mapping[str, float], found: Mapping[str, Any] | None
) -> "Table":
    """Loss, reach, effect, necessity, sufficiency, alignment, damage, insertion, cost.

    Args:
        history, cost: of :class:`~probe.adapters.Tuned`.
        found: ``verification.json``; None without an SAE.
    """
    from rich import box
    from rich.table import Table

    best = min(history, key=lambda look: look["loss"])
    rows = {"validation loss": f"{history[0]['loss']:.4f} → {best['loss']:.4f} at step {best['step']:.0f}"}
    if found is not None:
        reached = [block for block, share in found["reach"].items() if share]
        rows |= {
            "blocks reached": ", ".join(reached) or "none",
            "state at the SAE's site changed": _share(found["site_changed"]),
            "latents moved": f"{len(found['moved'])}: {', '.join(map(str, found['moved'][:8])) or '–'}",
            "KL(base ‖ adapter), nats a token": _nats(found["effect"]),
            **_both("of it gone without these latents", found["necessity"], _share),
            **_both("of it had by raising these latents", found["sufficiency"], _share),
            **_both("alignment with these decoder rows", found["alignment"], number),
            "cross-entropy changed": _nats(found["damage"]["like"]["ce"]),
            "KL with the SAE in place": _nats(found["insertion"]["sae"]),
            "… and the adapter": _nats(found["insertion"]["sae and adapter"]),
        }
    rows["cost"] = f"{number(cost['tokens'], 0)} tokens, {cost['flops']:.2g} FLOPs, {number(cost['seconds'], 0)} s"
    table = Table("", "", box=box.SIMPLE, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _both(what: str, by_latents: Mapping[str, Any], write: Callable[[Any], str]) -> dict[str, str]:
    """A row for the claimed latents, and one for drawn ones where there are enough of them."""
    return {f"{what}, {name}": write(value) for name, value in by_latents.items()}


def _nats(measured: Mapping[str, Any]) -> str:
    low, high = measured["ci"]
    return f"{number(measured['value'], 4)} [{number(low, 4)}, {number(high, 4)}]"


def _share(measured: Mapping[str, Any]) -> str:
    low, high = measured["ci"]
    return f"{percent(measured['value'], 1)} [{percent(low, 1)}, {percent(high, 1)}]"
