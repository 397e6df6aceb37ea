"""The report of an adapter and of a study as self-contained HTML pages, and the card of an adapter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.files import write_text
from probe.reports.adapter.figures import study_figure, tuning_figure, verification_figure
from probe.reports.adapter.rows import LEAST_TEXTS, study_rows, verification_rows
from probe.reports.html.filling import fill, markup
from probe.reports.html.numbers import plural


def write_adapter_report(
    path: str | Path,
    *,
    card: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    cost: Mapping[str, float],
    found: Mapping[str, Any] | None,
    foreign: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report on one adapter.

    Args:
        card: what ``probe.json`` holds.
        history: evaluations during training, of :class:`~probe.adapters.Tuned`.
        cost: cost of the training, of :class:`~probe.adapters.Tuned`.
        found: what ``verification.json`` holds; None without an SAE.
        foreign: what ``foreign.json`` holds; None if the adapter was measured on no other model.
    """
    figures = {"tuning": markup(tuning_figure(history), "tuning")}
    if found is not None:
        figures["verification"] = markup(verification_figure(found), "verification")
    page = fill(
        "adapter/page.html.j2",
        None,
        card=card,
        rows=verification_rows(history, cost, found, converged=card.get("converged", True)),
        found=found,
        unmoved=None if found is None else _unmoved(found),
        foreign=None if foreign is None else {"model": foreign["model"], "table": study_rows(foreign["rows"])},
        figures=figures,
    )
    return write_text(Path(path), page)


def _unmoved(found: Mapping[str, Any]) -> str:
    """What it means that no latent moved: nothing, where texts were too few for the test."""
    texts = found.get("texts")
    if texts is not None and texts < LEAST_TEXTS:
        return f"{plural(texts, 'test text')} cannot show whether a latent moves; {LEAST_TEXTS} are needed."
    where = "on the same text" if texts is None else f"on {texts:,} texts (Wilcoxon tests, 5 % false discovery rate)"
    return f"It moves no latent of this SAE {where}, so these latents cannot explain its effect."


def write_study(study: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of a study.

    Args:
        study: what ``study.json`` holds.
    """
    page = fill(
        "adapter/study.html.j2",
        None,
        study=study,
        table=study_rows(study["rows"]),
        against=study_rows(study["rows"], "difference"),
        figure=markup(study_figure(study), "study"),
    )
    return write_text(Path(path), page)


def adapter_card(
    *,
    base: str,
    card: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    cost: Mapping[str, float],
    found: Mapping[str, Any] | None,
) -> str:
    """The README of an adapter's folder, which model hubs show: its objective and the verification table.

    Args:
        base: the base model's path or hub id.
        card: what ``probe.json`` holds.
        history: evaluations during training, of :class:`~probe.adapters.Tuned`.
        cost: cost of the training, of :class:`~probe.adapters.Tuned`.
        found: what ``verification.json`` holds; None without an SAE.
    """
    objective = card["objective"]
    what = objective["name"] + (f" ({objective['insert']})" if objective["insert"] not in (None, "sae") else "")
    figures = verification_rows(history, cost, found, converged=card.get("converged", True))
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    return f"""---
library_name: peft
base_model: {base}
base_model_relation: adapter
tags: [lora, sae-tuning, probe]
---
# LoRA of rank {card["plan"]["rank"]} for {base}

Trained by probe for the objective `{what}`. `probe.json` holds the settings and a fingerprint of the base model; probe
refuses to attach the adapter to another model.

| | |
|---|---|
{rows}

Figures are means over test texts, with 95 % intervals over texts; KL is in nats a token.

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```
"""
