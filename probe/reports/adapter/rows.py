"""The rows of the tables of an adapter and of a study, the same on pages, on the card and on the terminal."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from probe.reports.html.numbers import estimate, interval, number, percent, value_and_interval

LEAST_TEXTS = 6
"""With fewer texts no latent can be found to move."""


def verification_rows(
    history: Sequence[Mapping[str, float]],
    cost: Mapping[str, float],
    found: Mapping[str, Any] | None,
    *,
    converged: bool = True,
) -> dict[str, str]:
    """Write what is known of an adapter, one row for each figure.

    Args:
        history: evaluations during training, of :class:`~probe.adapters.Tuned`.
        cost: cost of the training, of :class:`~probe.adapters.Tuned`.
        found: what ``verification.json`` holds; None without an SAE.
        converged: whether the validation loss stopped falling before the maximum number of steps.

    Returns:
        The name of each row and its text.
    """
    best = min(history, key=lambda check: check["loss"])
    rows = {"validation loss": f"{history[0]['loss']:.4f} → {best['loss']:.4f} at step {best['step']:.0f}"}
    if not converged:
        last = history[-1]["step"]
        rows["not converged"] = f"the validation loss was still falling; raise tune.steps, which is {last:.0f}"
    found = with_current_keys(found)
    if found is not None:
        reached = [block for block, share in found["reach"].items() if share]
        rows |= {
            "blocks reached": ", ".join(map(str, reached)) or "none",
            "state at the SAE's site changed": _share(found["site_changed"]),
            **({"test texts": number(found["texts"], 0)} if found.get("texts") is not None else {}),
            "latents moved": _moved(found),
            "KL(base ‖ adapter), nats a token": _nats(found["effect"]),
            **_both("share of it that ablation removes", found["necessity"], _share),
            **_both("share of it that raising reproduces", found["sufficiency"], _share),
            **_both("alignment with decoder rows", found["alignment"], number),
        }
        for texts, damage in found["damage"].items():
            kind = "test texts" if texts == "like" else "other texts"
            rows[f"change of cross-entropy, {kind}"] = _nats(damage["ce"])
        rows |= {
            "KL with the SAE inserted": _nats(found["insertion"]["sae"]),
            "KL with the SAE and the adapter": _nats(found["insertion"]["sae and adapter"]),
        }
        counted = found.get("behaviour") or {}
        for name, each in counted.items():
            share = name.startswith("taken back")
            rows[f"behaviour, {name}"] = _share(each) if share else _nats(each, 2)
    rows["cost"] = f"{number(cost['tokens'], 0)} tokens, {cost['flops']:.2g} FLOPs, {number(cost['seconds'], 0)} s"
    return rows


def study_rows(rows: Mapping[str, Any], what: str = "measures") -> dict[str, Any]:
    """Write the cells of a study's table.

    Args:
        rows: ``rows`` of ``study.json`` or ``foreign.json``.
        what: ``measures``; or ``difference``, the difference of each row from its control.

    Returns:
        ``measures``, the names of those that occur; and ``rows``, each with ``name``, ``against`` and ``cells``. A name
        ends in ``*`` if an adapter of the row has not converged.
    """
    some = {name: row for name, row in rows.items() if what in row}
    shown = list(dict.fromkeys(measure for row in some.values() for measure in row[what]))
    return {
        "measures": shown,
        "rows": [
            {
                "name": name + _mark(row),
                "against": row.get("against", ""),
                "cells": [cell(each, row[what]) for each in shown],
            }
            for name, row in some.items()
        ],
    }


def cell(measure: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Write a value and its interval: problems solved in percent, everything else in nats a token.

    Args:
        values: all measures of a row; ("", "") is returned if this one is missing.
    """
    if measure not in values:
        return "", ""
    write = partial(percent, digits=1) if measure == "solved" else partial(number, digits=3)
    value, ci = value_and_interval(values[measure])
    return write(value), interval(ci, write)


def _moved(found: Mapping[str, Any]) -> str:
    if (found.get("texts") or LEAST_TEXTS) < LEAST_TEXTS:
        return f"not tested: fewer than {LEAST_TEXTS} texts"
    return f"{len(found['moved'])}: {', '.join(map(str, found['moved'][:8]))}" if found["moved"] else "none"


def _mark(row: Mapping[str, Any]) -> str:
    return " *" if row.get("converged") is False else ""


def _both(what: str, by_latents: Mapping[str, Any], write: Callable[[Any], str]) -> dict[str, str]:
    """A row for the claimed latents, and one for random latents if there are any."""
    return {f"{what}, {name} latents": write(value) for name, value in by_latents.items()}


def with_current_keys(found: Any) -> Any:
    """Read a verification of an earlier version, in which the random latents have the key ``drawn``."""
    if not isinstance(found, Mapping):
        return found
    return {str(key).replace("drawn", "random"): with_current_keys(value) for key, value in found.items()}


def _nats(measured: Mapping[str, Any], digits: int = 4) -> str:
    return estimate(measured, partial(number, digits=digits))


def _share(measured: Mapping[str, Any]) -> str:
    return estimate(measured, partial(percent, digits=1))
