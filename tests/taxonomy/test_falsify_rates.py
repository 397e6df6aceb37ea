"""Intervals against published and independent figures, and the verdict that follows from them."""

import numpy as np
import pytest
from scipy.stats import binomtest

from probe.statistics import Interval, share_difference, share_interval
from probe.taxonomy.falsify.card import Card, Trial, decide
from probe.taxonomy.falsify.config import FalsifyConfig
from probe.taxonomy.falsify.regenerate import Stability


def table(both, first, second, neither):
    return [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither


def test_newcombes_own_example():
    """Statistics in Medicine 17, 2635 (1998), method 10: 36 and 12, 2 and 0."""
    effect = share_difference(table(36, 12, 2, 0))
    assert (effect.value, effect.low, effect.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)


def test_the_interval_covers_the_truth():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        shared, own = rng.random(40) < 0.5, rng.random((40, 2))
        pairs = [(bool(s or a < 0.4), bool(s or b < 0.1)) for s, (a, b) in zip(shared, own, strict=True)]
        effect = share_difference(pairs)
        inside += effect.low <= 0.15 <= effect.high
    assert 0.92 <= inside / 300 <= 0.99


def test_a_share_has_wilsons_interval():
    rate = share_interval([True] * 7 + [False] * 13)
    interval = binomtest(7, 20).proportion_ci(method="wilson")
    assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high))
    assert share_interval([]) == Interval(0, None, None, None)
    assert share_difference([]) == Interval(0, None, None, None)


def trial(fired: int, control: int, n: int = 60) -> Trial:
    pairs = [(i < fired, i < control) for i in range(n)]
    return Trial(share_interval([a for a, _ in pairs]), share_interval([b for _, b in pairs]), share_difference(pairs))


@pytest.mark.parametrize(
    ("injection", "removal", "paraphrase", "content", "verdict", "first"),
    [
        (trial(0, 0), trial(60, 60), trial(60, 0), trial(60, 60), "state", "injection"),
        (trial(0, 0), trial(60, 60), None, trial(60, 60), "state", "injection"),
        (trial(60, 0), trial(60, 60), trial(60, 0), trial(60, 60), "cue", "injection"),
        (trial(60, 60), trial(60, 60), trial(60, 0), trial(60, 60), "state", "injection"),  # other words do as well
        (trial(0, 0), trial(0, 60), trial(60, 0), trial(60, 60), "cue", "removal"),
        (trial(0, 0), trial(0, 0), trial(60, 0), trial(60, 60), "undecided", "removal"),  # anything breaks it
        (trial(0, 0), trial(60, 60), trial(0, 0), trial(60, 60), "cue", "paraphrase"),
        (trial(0, 0), trial(60, 60), trial(60, 60), trial(60, 60), "undecided", "paraphrase"),  # fires in all of them
        (trial(0, 0), trial(60, 60), trial(60, 0), trial(10, 60), "undecided", "content"),
        (trial(15, 0), trial(60, 60), None, trial(60, 60), "undecided", "injection"),  # straddles
        (trial(0, 0, 3), trial(3, 3, 3), None, trial(3, 3, 3), "undecided", "injection"),  # too few
        (trial(0, 0, 0), trial(0, 0, 0), trial(0, 0, 0), trial(0, 0, 0), "undecided", "injection"),
    ],
)
def test_the_verdict_follows_the_rule(injection, removal, paraphrase, content, verdict, first):
    found, reasons = decide(injection, removal, paraphrase, content, FalsifyConfig())
    assert found == verdict
    assert reasons[0].startswith(first)
    assert len(reasons) == 3 + (paraphrase is not None)


def test_stability_counts_samples_and_prefixes():
    shown = np.zeros((4, 10), dtype=bool)
    shown[0], shown[1, :8], shown[2, :7] = True, True, True
    stability = Stability.of(shown, 0.8, 0.1, 0)
    assert stability.mean == pytest.approx(0.625)
    assert (stability.stable.n, stability.stable.value) == (4, 0.5)
    assert 0 <= stability.low < stability.mean < stability.high <= 1
    assert Stability.of(shown[:0], 0.8, 0.1, 0).mean is None


def test_a_card_survives_json():
    stability = Stability.of(np.ones((1, 2), bool), 1, 0, 0)
    tests = {"injection": trial(1, 2), "removal": trial(0, 0, 0), "paraphrase": None, "content": trial(1, 1)}
    card = Card(
        behaviour=0,
        label="l",
        sentences=3,
        share=0.1,
        cues=(),
        **tests,
        stability=stability,
        verdict="cue",
        reasons=("because",),
    )
    assert Card.from_dict(card.to_dict()) == card
    shown = card._repr_html_()
    assert "0. l: cue<br>3 sentences (10%); cues: none<br>because</caption>" in shown
    assert f"<td>cue words inserted into other sentences</td><td>{trial(1, 2).fired.value:.0%} [" in shown
    assert "another wording" not in shown, "it was not tried"


def test_a_tokenizer_that_cannot_write_the_changes_is_named():
    none, known = share_interval([]), trial(60, 60)
    unwritten = Trial(none, none, none, excluded=7, unwritten=7)
    verdict, reasons = decide(unwritten, unwritten, unwritten, known, FalsifyConfig())
    assert verdict == "undecided"
    for test in ("injection", "removal", "paraphrase"):
        assert f"{test}: not tried, the tokenizer can write none of 7 changed sentences exactly" in reasons
    _, reasons = decide(Trial(none, none, none), known, None, known, FalsifyConfig())
    assert any("there is no cue word" in reason for reason in reasons)
