"""How the memory of each stage grows, measured and compared with the formulas of ``probe plan``.

Passes at the real size of 1.5B, 7B and 32B are made of fake tensors; stages run on small random models of a realistic
vocabulary. ``--quick`` takes one length each. ``--docs`` writes ``docs/scale.md`` from the formulas and the last
measurement, and measures nothing.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.scaling.fakes import SIZES, qwen, reading_peak, training_peak
from benchmarks.scaling.page import PAGE, RESULTS, page
from benchmarks.scaling.stages import STAGES, Case, measure
from benchmarks.table import Row, report
from probe.pipeline.plan.costs import pass_bytes, training
from probe.pipeline.plan.shapes import shape_from

GOAL = 1.5
"""How much more than the formula may be measured."""
GROWTH = 1.1
"""How much the peak may grow with ten times the traces."""


def passes(names: tuple[str, ...], lengths: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Passes over one text at the real size."""
    for name in names:
        config = qwen(name)
        shape = shape_from(config, "bfloat16", name)
        for tokens in lengths:
            need = training(shape, 1, tokens, blocks=shape.layers, gates=0.0)
            light = need.least - (20 + 4 * shape.size) * shape.vocab
            for what, peak, formula in (
                ("a pass", reading_peak(config, tokens), pass_bytes(shape, tokens)),
                ("a training pass", training_peak(config, tokens, light=False), need.wanted),
                ("a training pass, checkpointed", training_peak(config, tokens, light=True), light),
            ):
                yield {"what": f"{what}, {name}, {tokens:,} tokens", "bytes": peak, "formula": round(formula)}


def stages(cases: list[Case]) -> Iterator[dict[str, Any]]:
    """Stages on small random models."""
    for case in cases:
        for each in measure(case, STAGES):
            told = {"what": f"{each.stage}, {case}", "bytes": each.peak, "formula": round(each.formula)}
            yield told | {"tokens": round(each.tokens), "formula_tokens": each.formula_tokens}


def growth(few: int, many: int) -> Iterator[Row]:
    """How much the peak of each stage grows with the number of traces; short ones, of a small model."""
    peaks = [
        {each.stage: each.peak for each in measure(Case(128, 2, 48, n, vocab=4_096, long=True), STAGES)}
        for n in (few, many)
    ]
    for stage in STAGES:
        ratio = peaks[1][stage] / peaks[0][stage]
        yield Row(f"{stage}, {many:,} traces", f"{few:,} traces", ratio, GROWTH, "lower")


def main() -> None:
    if "--docs" in sys.argv:
        PAGE.write_text(page())
        print(f"wrote {PAGE}")
        return
    quick = "--quick" in sys.argv
    measured = list(passes(("7B",) if quick else tuple(SIZES), (2000,) if quick else (500, 2000, 8000)))
    wide = [] if quick else [Case(896, 4, 500, 4), Case(896, 4, 1000, 4), Case(1792, 2, 500, 4)]
    measured += list(stages([Case(896, 2, 100, 4), *wide]))
    rows = [Row(row["what"], "formula", row["bytes"] / row["formula"], GOAL, "lower") for row in measured]
    report("scale", [*rows, *growth(400, 800 if quick else 4_000)])
    told = json.loads(RESULTS.read_text()) | {"measured": measured}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
