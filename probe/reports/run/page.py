"""The report of a run: one HTML page that needs nothing but a browser."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.files import write_text
from probe.reports.html.filling import fill, markup, whole
from probe.reports.run.arms import MEANING, gap_of, in_order, no_gap, sampling_sentence, seeds_of
from probe.reports.run.bits_figure import bits_figure, passes_figure
from probe.reports.run.figures import arms_figure, gap_figure
from probe.reports.run.files import read_behaviours, read_results, read_shown
from probe.reports.run.headline import headline
from probe.reports.run.look import found_answer, look_lines
from probe.reports.run.sections import counted_passes, effects_of, headings, price_rows, v1_rows, v1_sentence
from probe.reports.run.shown import compact, is_cut
from probe.reports.run.training import (
    convergence_sentences,
    curve_figure,
    curve_rows,
    not_converged,
    training_figure,
)


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into a run's folder.

    The page contains its style, scripts, figures and traces, so it can be mailed or put on a server as one file. It is
    made from ``results.json`` and, if they exist, ``behaviours.json`` and ``shown.json``.

    Args:
        run_folder: the folder that ``probe run`` wrote.

    Raises:
        ProbeError: if the folder holds no results, results of another schema version, or a damaged file.
    """
    folder = Path(run_folder).expanduser()
    page = render(read_results(folder), read_behaviours(folder), read_shown(folder))
    return write_text(folder / "report.html", page)


def render(results: Mapping[str, Any], behaviours: list[dict[str, Any]], shown: list[dict[str, Any]]) -> str:
    """Write the page as HTML, from the contents of the three files."""
    sentence, supporting = headline(results)
    traces = compact(shown)
    labels = {behaviour["behaviour"]: behaviour.get("label", "") for behaviour in behaviours}
    arms, prices, tests = _arm_rows(results), price_rows(results), results.get("tests") or {}
    trained = (results.get("training") or {}).get("parts") or {}
    sections = {name: whole(keys, results.get(name)) for name, keys in _SECTIONS.items()}
    return fill(
        "run/page.html.j2",
        "run/page.js",
        **sections,
        run=whole(("pair", "seed"), results),
        look=results.get("look"),
        look_lines=look_lines(results["look"]) if results.get("look") else [],
        found_answer=found_answer,
        warning=results.get("cut"),
        prompts=results.get("prompts"),
        settings=json.dumps(results.get("settings") or {}, indent=2, ensure_ascii=False),
        sentence=f"{sentence} The hybrid's vectors have not converged."
        if not_converged(results, "hybrid")
        else sentence,
        supporting=[*supporting, *convergence_sentences(results)],
        marked={name for name in results.get("arms") or {} if not_converged(results, name)},
        curve=curve_rows(results),
        curve_figure=markup(curve_figure(results), "curve") if results.get("curve") else "",
        training_figure=markup(training_figure(results), "training") if trained else "",
        arms=arms,
        sampled=sampling_sentence(results),
        headings=headings([arm["name"] for arm in arms]),
        prices=prices,
        reference=tests.get("reference"),
        detectable=tests.get("detectable_gap"),
        version_1=v1_rows(results),
        version_1_sentence=v1_sentence(results),
        effects=effects_of(results, labels),
        seed_rows=seeds_of(results),
        no_gap=no_gap(results),
        behaviours=[_card(behaviour) for behaviour in behaviours],
        most_shared=max((behaviour.get("share") or 0 for behaviour in behaviours), default=0) or 1,
        traces=traces,
        cut=any(is_cut(arm) for problem in traces for arm in problem["arms"]),
        left_out=len(shown) - len(traces),
        labels=labels,
        meaning=MEANING,
        arms_figure=markup(arms_figure(results), "arms"),
        gap_figure=markup(gap_figure(results), "gap"),
        bits_figure=markup(bits_figure(results), "bits") if prices else "",
        passes_figure=markup(passes_figure(results), "passes") if counted_passes(prices) else "",
    )


# Variables of the template; a key that a run did not write is None.
_SECTIONS = {
    "problems": ("name", "split", "n", "train", "validation", "note"),
    "oracle": (
        "bits_per_token",
        "bits_per_steered_token",
        "fitted_parameters",
        "fitted_parameters_single",
        "given_base",
    ),
    "taxonomy": ("site", "k", "variance_explained", "stability", "ami"),
    "seeds": ("mean", "sd", "gap_recovered"),
}
_ARM = (
    "accuracy",
    "ci",
    "n",
    "samples",
    "pass_at",
    "tokens_per_answer",
    "truncated",
    "repetition",
    "looping",
    "steered_fraction",
    "seconds",
)
_BEHAVIOUR = ("label", "share", "true_type", "true_share", "examples", "vector_norm", "mean_strength", "gates")


def _card(behaviour: Mapping[str, Any]) -> dict[str, Any]:
    card = whole(_BEHAVIOUR, behaviour)
    # Tiny models repeat sentences word for word; each is shown once.
    card["examples"] = list(dict.fromkeys(example.strip() for example in card["examples"] or []))
    return card


def _arm_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    arms = results.get("arms") or {}
    rows = []
    for name in in_order(arms):
        gap, low_high = gap_of(results, name)
        rows.append(
            whole(_ARM, arms[name]) | {"name": name, "meaning": MEANING.get(name, ""), "gap": gap, "gap_ci": low_high}
        )
    return rows
