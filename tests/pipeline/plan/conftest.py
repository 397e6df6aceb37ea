"""Shapes of models that are planned and never made."""

import pytest

from benchmarks.scaling.fakes import SIZES, qwen
from probe.pipeline.plan.shapes import shape_from


@pytest.fixture(scope="session")
def shapes():
    return {name: shape_from(qwen(name), "bfloat16", name) for name in SIZES}
