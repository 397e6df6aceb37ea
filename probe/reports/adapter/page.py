"""An adapter's report and a study of objectives, as pages that stand alone; and the table of an adapter's card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.files import write_text
from probe.reports.adapter.figures import study_figure, tuning_figure, verification_figure
from probe.reports.adapter.rows import study_rows, verification_rows
from probe.reports.html.filling import fill, markup


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
        card: ``probe.json``.
        history, cost: of :class:`~probe.adapters.Tuned`.
        found: ``verification.json``; None without an SAE.
        foreign: ``foreign.json``; None if it was measured on no other model.
    """
    figures = {"tuning": markup(tuning_figure(history), "tuning")}
    if found is not None:
        figures["verification"] = markup(verification_figure(found), "verification")
    page = fill(
        "adapter/page.html.j2",
        None,
        card=card,
        rows=verification_rows(history, cost, found),
        found=found,
        foreign=None if foreign is None else {"model": foreign["model"], "table": study_rows(foreign["rows"])},
        figures=figures,
    )
    return write_text(Path(path), page)


def write_study(study: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of a study.

    Args:
        study: ``study.json``.
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
    """The README of an adapter's folder, as model hubs show it: what it was trained for, and the verification table.

    Args:
        base: the base model's path or hub id.
        card, history, cost, found: as for :func:`write_adapter_report`.
    """
    objective = card["objective"]
    what = objective["name"] + (f" ({objective['insert']})" if objective["insert"] not in (None, "sae") else "")
    rows = "\n".join(f"| {name} | {value} |" for name, value in verification_rows(history, cost, found).items())
    return f"""---
library_name: peft
base_model: {base}
base_model_relation: adapter
tags: [lora, sae-tuning, probe]
---
# LoRA of rank {card["plan"]["rank"]} for {base}

Trained by probe for the objective `{what}`. `probe.json` says on what and how, and holds the fingerprint of the base
model: probe refuses to attach it to another.

| | |
|---|---|
{rows}

Figures are means over texts that it was not trained on, with 95 % intervals over texts; KL in nats a token.

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "this folder")
```
"""
