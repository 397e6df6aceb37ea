"""The report of what training changed: a self-contained page, and a table for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.files import write_text
from probe.reports.diff.figures import difference_figure, latents_figure, series_figure, shift_figure, transfer_figure
from probe.reports.html.filling import fill, markup, whole
from probe.reports.html.numbers import MISSING, estimate, interval, number, percent
from probe.reports.html.terminal import terminal_table
from probe.statistics import write_p

if TYPE_CHECKING:
    from rich.table import Table

_FIGURES = ("heads", "series", "direction", "truth", "latents", "difference")
_KEYS = (
    *("heads", "direction", "truth", "knowledge", "latents", "difference", "steering", "dictionary"),
    *("effects", "series", "agreement", "chance"),
)


def write_diff_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """Write the report of a comparison as one HTML file.

    Args:
        results: ``results.json`` of ``probe diff``.
    """
    told = whole((*_KEYS, "pair", "behaviour", "chosen", "findings", "missing"), results)
    figures = {}
    if told["heads"]:
        figures["heads"] = shift_figure(told["heads"])
    if told["series"]:
        figures["series"] = series_figure(told["series"])
    if told["direction"]:
        figures["direction"] = transfer_figure(told["direction"], f"The direction of {told['behaviour']}")
    if told["truth"]:
        figures["truth"] = transfer_figure(told["truth"], "The direction of true equations")
    if told["latents"]:
        figures["latents"] = latents_figure(told["latents"])
    if told["difference"] and any(each["agrees"] is not None for each in told["difference"]["readings"]):
        figures["difference"] = difference_figure(told["difference"])
    page = fill(
        "diff/page.html.j2",
        None,
        results=told | {"findings": [each | {"answer": _ANSWERS[each["differs"]]} for each in told["findings"] or ()]},
        warning=told.get("cut"),
        prompts=told.get("prompts"),
        sentence=diff_headline(told),
        effects=effect_rows(told["effects"]),
        agreements=agreement_rows(told["agreement"], told["chance"]),
        features=feature_rows(told["dictionary"]),
        readings=reading_rows(told["difference"]),
        steered=steering_rows(told["steering"]),
        figures=whole(_FIGURES, {name: markup(figure, name) for name, figure in figures.items()}),
    )
    return write_text(Path(path), page)


_ANSWERS = {True: "differs", False: "same", None: "unknown"}


def diff_headline(results: Mapping[str, Any]) -> str:
    """Say how many parts differ, of those of which it can be said.

    Args:
        results: ``results.json`` of ``probe diff``.
    """
    known = [each["differs"] for each in results.get("findings") or () if each["differs"] is not None]
    if not known:
        return "No part could be compared"
    parts = "part differs" if len(known) == 1 else "parts differ"
    return f"{sum(known)} of {len(known)} compared {parts}"


def effect_rows(effects: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Rows for the effects of changing heads: way, measure, whole, changed, others, others minus changed.

    Args:
        effects: ``effects`` of the ``results.json`` of ``probe diff``; None for no rows.
    """
    if not effects:
        return []
    return [
        (
            "ablated (resample)" if way == "resample" else f"× {way}",
            measure,
            *(estimate(sides[side], number) for side in ("whole", "changed", "others", "more than others")),
        )
        for way, measures in effects["ways"].items()
        for measure, sides in measures.items()
    ]


def feature_rows(found: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Rows for the latents of an SAE that differ most: latent, how often and how much it is active in each model.

    Args:
        found: ``dictionary`` of the ``results.json`` of ``probe diff``; None for no rows.
    """
    return [
        (
            str(each["latent"]),
            *(percent(share, 2) for share in each["frequency"]),
            *(number(mean, 3) for mean in each["mean"]),
            number(each["ratio"]),
            each["only in"] or MISSING,
        )
        for each in (found or {}).get("latents", ())
    ]


def reading_rows(found: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Rows for what the mean difference says: place, size, tokens, correlation, both nulls, rank of the word.

    Args:
        found: ``difference`` of the ``results.json`` of ``probe diff``; None for no rows.
    """
    return [
        (
            each["place"],
            percent(each["size"], 1),
            " · ".join(map(repr, each["top"][:12])) or MISSING,
            number(each["agrees"]),
            *(
                f"{number(each['of_null'].get(null))}, {write_p(each['p'][null])}" if null in each["p"] else MISSING
                for null in ("random", "halves")
            ),
            MISSING if each["rank"] is None else str(each["rank"]),
        )
        for each in (found or {}).get("readings", ())
    ]


def steering_rows(found: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Rows for what a model writes with the mean difference added: strength, measure, plain, steered, random, more.

    Args:
        found: ``steering`` of the ``results.json`` of ``probe diff``; None for no rows.
    """
    sides = ("plain", "steered", "random", "more_than_random")
    return [
        (f"× {each['strength']:g}", each["measure"], *(estimate(each[side], lambda x: percent(x, 1)) for side in sides))
        for each in (found or {}).get("effects", ())
    ]


def agreement_rows(
    agreements: list[Mapping[str, Any]] | None, chance: list[Mapping[str, Any]] | None
) -> list[tuple[str, str, str]]:
    """Rows for whether training runs change the same heads: description, value, null.

    Args:
        agreements: ``agreement`` of the ``results.json`` of ``probe diff``.
        chance: ``chance`` of the same file.
    """
    rows = [
        (
            f"{' and '.join(each['runs'])}: correlation of heads' changes",
            number(each["value"]),
            ", ".join(each for each in (interval(each["null"], number), write_p(each["p"])) if each) or MISSING,
        )
        for each in agreements or ()
    ]
    rows += [
        (
            f"{each['name']}: heads that emerge in all {each['runs']} runs",
            f"{len(each['heads'])}" + "".join(f" a{layer}.h{head}" for layer, head in each["heads"]),
            f"{number(each['by_chance'])} on average, {write_p(each['p'])}".removesuffix(", "),
        )
        for each in chance or ()
    ]
    return rows


def diff_table(results: Mapping[str, Any]) -> "Table":
    """The findings as a table for the terminal.

    Args:
        results: ``results.json`` of ``probe diff``.
    """
    rows = [(each["part"], _ANSWERS[each["differs"]], each["said"]) for each in results["findings"]]
    rows += [(part, "–", why) for part, why in results["missing"].items()]
    rows += [
        ("series", value, f"{what}; null {null}")
        for what, value, null in agreement_rows(results.get("agreement"), results.get("chance"))
    ]
    effects = results.get("effects")
    for way, measure, *sides in effect_rows(effects):
        if measure != "count":
            names = ", ".join(effects["heads"]) if effects else ""
            rows.append(("effect", way, f"{names}: {measure} {sides[0]} → {sides[1]}, with random heads {sides[2]}"))
    if "latents" in results:
        share = percent(results["latents"]["variance_explained"])
        rows.append(("latents", share, "of the variance of both models' states explained by the shared SAE"))
    return terminal_table(("part", "result", "what was found"), rows, left=3)
