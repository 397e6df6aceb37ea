"""The curve of five parameters comes back from noise, its peak is where it says, and planted activations are found."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import minimize_scalar

from probe.diff import fit_rise, massive_activations
from probe.diff.massive import Rise, rise
from probe.errors import ProbeError
from probe.hooks import Apply, edit
from probe.models import ModelConfig, load_model

STEPS = np.linspace(1, 1000, 40)


TRUTHS = [
    (5.0, 0.08, 0.03, 1.2, 3.0),
    (40.0, 0.3, 0.02, 1.0, 10.0),
    (-4.0, 0.15, 0.05, 1.5, 20.0),
    (2.0, 1e-4, 0.02, 1.0, 1.0),
]


@pytest.mark.parametrize("truth", TRUTHS)
def test_parameters_come_back(truth):
    """The last one hardly decays: its peak lies far beyond the last step."""
    clean = rise(STEPS, *truth)
    noisy = clean + np.random.default_rng(0).normal(0, 0.002 * np.ptp(clean), len(STEPS))
    found = fit_rise(STEPS, noisy)
    assert found.r2 > 0.99
    np.testing.assert_allclose(found(STEPS), clean, atol=0.02 * np.ptp(clean))
    exact = fit_rise(STEPS, clean)
    if truth[1] > 1e-3:
        got = (exact.amplitude, exact.decay, exact.rate, exact.start, exact.level)
        np.testing.assert_allclose(got, truth, rtol=0.05)
        peak = Rise(*truth, 1.0).peak
        assert peak is not None and found.peak == pytest.approx(peak, rel=0.1, abs=10)


@given(st.floats(0.02, 2.0), st.floats(0.01, 1.0), st.floats(0.1, 1.2), st.floats(0.5, 50.0))
def test_the_peak_is_where_the_curve_is_highest(decay, rate, start, amplitude):
    found = Rise(amplitude, decay, rate, start, 0.0, 1.0)
    if found.peak is None:
        return
    best = minimize_scalar(lambda t: -float(found([t])[0]), bounds=(0, 2 * found.peak + 10), method="bounded")
    assert float(found([found.peak])[0]) >= -best.fun - 1e-6 * amplitude


def test_too_few_points_are_refused():
    with pytest.raises(ProbeError, match="give at least 6 points"):
        fit_rise([1, 2, 3], [1, 2, 3])


def test_a_planted_activation_is_found(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    texts = [[7, 8, 9, 10, 11], [12, 13, 14]]
    assert not massive_activations(model, texts).found

    def grow(state):
        state = state.clone()
        state[:, 0, 5] = 5000.0
        return state

    with edit(model, {"resid_post.1": Apply(grow)}):
        found = massive_activations(model, texts)
    assert found.dims[0] == () and found.dims[1] == (5,) and found.ratio[1] > 1000
    assert found.tokens[1] == pytest.approx(2 / 8) and "resid_post.1" in found._repr_html_()


def test_layers_of_a_long_text_are_read_in_turn(tiny_folder):
    """A budget that holds the states of one layer gives what a large one gives."""
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    texts = [list(range(7, 60)), [12, 13, 14]]
    whole = massive_activations(model, texts, threshold=3)
    model.memory = 1
    part = massive_activations(model, texts, threshold=3)
    assert part.dims == whole.dims and any(whole.dims)
    assert (part.ratio == whole.ratio).all() and (part.tokens == whole.tokens).all()
