"""The report of a behaviour's circuit: a self-contained page, and a table for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.files import write_text
from probe.reports.circuits.features_figures import features_figure, shares_figure
from probe.reports.circuits.figures import faithfulness_figure, heads_figure
from probe.reports.html.filling import fill, markup, numbers_behind
from probe.reports.html.numbers import estimate, number, p_value, percent
from probe.reports.html.terminal import listing

if TYPE_CHECKING:
    from rich.table import Table

    from probe.circuits import Circuit


def write_circuit_report(results: Mapping[str, Any], circuit: "Circuit", path: str | Path) -> Path:
    """Write the report of a circuit as one HTML file.

    Args:
        results: ``results.json`` of ``probe circuits``.
    """
    from markupsafe import Markup

    figures = {"heads": heads_figure(circuit), "faithfulness": faithfulness_figure(results)}
    share, curve = circuit.heads(), results["faithfulness"]
    tables = {
        "heads": numbers_behind(
            ["", *(f"h{head}" for head in range(share.shape[1]))],
            [(f"block {layer}", *(percent(float(each)) for each in row)) for layer, row in enumerate(share)],
        ),
        "faithfulness": numbers_behind(
            ["share of edges", "faithfulness"],
            [(percent(a), percent(b)) for a, b in zip(curve["shares"], curve["values"], strict=True)],
        ),
    }
    if latents := results.get("latents"):
        figures |= {"latents": features_figure(latents), "shares": shares_figure(latents)}
    page = fill(
        "circuits/page.html.j2",
        None,
        results=results,
        warning=results.get("cut"),
        prompts=results.get("prompts"),
        sentence=circuit_headline(results),
        rows=circuit_rows(results),
        latents=latent_rows(latents) if latents else None,
        drawing=Markup(circuit._repr_html_()),
        tables=tables,
        figures={name: markup(figure, name) for name, figure in figures.items()},
    )
    return write_text(Path(path), page)


def circuit_headline(results: Mapping[str, Any]) -> str:
    """Say how much of the behaviour's beginning the circuit keeps.

    Args:
        results: ``results.json`` of ``probe circuits``.
    """
    edges, kept = results["edges"], results["kept"]
    if not edges or kept is None:
        return f"No circuit of “{results['behaviour']}” sentences was measured in {results['model']}"
    share = percent(kept) if kept > 0 else f"nothing ({percent(kept)})"
    keep = "edge keeps" if results["of"] == 1 else "edges keep"
    return (
        f"{edges:,} of {results['of']:,} {keep} {share} of what makes {results['model']} begin a "
        f"“{results['behaviour']}” sentence"
    )


def circuit_rows(results: Mapping[str, Any]) -> dict[str, str]:
    """Rows of a table: the circuit's size and faithfulness, and the behaviour with heads ablated.

    Args:
        results: ``results.json`` of ``probe circuits``.
    """
    heads = results["heads"]
    names = ", ".join(heads["heads"]) or "any head"
    share = results["edges"] / results["of"] if results["of"] else None
    rows = {
        "edges": f"{results['edges']} of {results['of']} ({percent(share)})",
        "share of the metric kept": percent(results["kept"]),
        "CPR, CMD": f"{number(results['faithfulness']['cpr'])}, {number(results['faithfulness']['cmd'])}",
    }
    for name, what in (
        ("logit difference", "logit difference"),
        ("count", f"{results['behaviour']} per rollout"),
        ("share", f"{results['behaviour']}, share of sentences"),
        ("solved", "solved"),
    ):
        if name not in heads:  # pairs of texts alone were measured, or the results are of an earlier version
            continue
        for side, said in (
            ("whole", "whole model"),
            ("changed", f"without {names}"),
            ("others", "without random heads of the same layers"),
            ("more than others", "random heads minus these"),
        ):
            rows[f"{what}, {said}"] = estimate(heads[name][side], number)
    return rows


def latent_rows(latents: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row for each of the top latents, with the sentence in which it is strongest.

    Args:
        latents: ``latents`` of ``results.json``.
    """
    examples = {(each["dictionary"], each["latent"]): each for each in latents["examples"] or ()}
    rows = []
    for each in latents["top"]:
        shown = examples.get((each["dictionary"], each["latent"]))
        first = shown["examples"][0] if shown and shown["examples"] else None
        told = {side: shown[side] if shown else None for side in ("inside", "ahead")}
        rows.append(
            {
                "name": f"{each['latent']} of {each['dictionary']}",
                "score": estimate(each["score"], number),
                "p": p_value(each["p"]),
                **{side: estimate(one["auroc"], number) if one else "" for side, one in told.items()},
                "before": first["before"] if first else "",
                "token": first["token"] if first else "",
                "after": first["after"] if first else "",
            }
        )
    return rows


def circuit_table(results: Mapping[str, Any]) -> "Table":
    """The same rows as a table for the terminal.

    Args:
        results: ``results.json`` of ``probe circuits``.
    """
    caption = (
        "metric: the logit difference between a text with the behaviour and one without it\n"
        "CPR: mean share kept by circuits of all sizes · CMD: its mean distance from 1\n"
        "Intervals are 95%."
    )
    return listing(circuit_rows(results).items(), caption=caption)
