"""The formulas against what passes take, counted on fake tensors at the real width; and the page that they give."""

import pytest

from benchmarks.scaling.fakes import qwen, reading_peak, training_peak
from benchmarks.scaling.page import PAGE, page
from benchmarks.scaling.stages import Case, measure
from probe.pipeline.plan.costs import pass_bytes, training
from probe.pipeline.plan.shapes import shape_from


def test_the_page_is_what_the_formulas_give():
    assert PAGE.read_text() == page(), "write it again: python -m benchmarks.scale --docs"


@pytest.mark.parametrize("tokens", [500, 4000])
def test_passes_at_the_real_width_take_what_the_formulas_say(tokens):
    config = qwen("7B", layers=3)
    shape = shape_from(config, "bfloat16", "7B")
    need = training(shape, 1, tokens, blocks=shape.layers, gates=0.0)
    light = need.least - (20 + 4 * shape.size) * shape.vocab
    for peak, formula in (
        (reading_peak(config, tokens), pass_bytes(shape, tokens)),
        (training_peak(config, tokens, light=False), need.wanted),
        (training_peak(config, tokens, light=True), light),
    ):
        assert formula / 1.6 <= peak <= 1.1 * formula


@pytest.mark.slow
def test_stages_on_small_models_take_what_the_formulas_say():
    for each in measure(Case(896, 2, 100, 4), ("activations", "policy")):
        assert each.formula / 2 <= each.peak <= 1.2 * each.formula, each.stage
        assert each.formula_tokens is not None
        # A harvest first reads some texts up to the site, to find outliers.
        assert each.formula_tokens <= each.tokens <= 2 * each.formula_tokens, each.stage
