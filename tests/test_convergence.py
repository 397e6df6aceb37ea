"""How long training takes: rates, evaluations and the end depend on the losses alone."""

import math

import pytest

from probe.convergence import Schedule


def run(schedule, loss):
    """Follow a schedule with a loss that depends on the step; return the rates and the evaluations."""
    rates, history, step = [], [], 0
    while True:
        if schedule.due(step):
            history.append({"step": step, "loss": loss(step)})
            schedule.update(step, loss(step))
        if schedule.ended(step):
            return rates, history
        rates.append(schedule.rate(step))
        step += 1


@pytest.mark.parametrize("time", [20, 60, 200])
def test_training_ends_soon_after_the_loss_has_stopped_falling(time):
    schedule = Schedule(10_000, 10, 30)
    rates, history = run(schedule, lambda step: 1 + math.exp(-step / time))
    assert schedule.converged
    assert 1 + math.exp(-len(rates) / time) < 1.05, "what is left to gain is little"
    assert len(rates) < 10 * time + 100
    assert history[-1]["step"] == len(rates), "the last state is evaluated"
    assert rates[0] < max(rates) == 1 and rates[-1] < 0.1


def test_a_loss_that_still_falls_at_the_ceiling_has_not_converged():
    schedule = Schedule(100, 10, 30)
    rates, _ = run(schedule, lambda step: 1 - step / 200)
    assert not schedule.converged and len(rates) == 100
    assert rates[75] == 1 and rates[-1] < 0.1, "the rate falls before the ceiling all the same"


def test_a_loss_close_to_zero_counts_by_itself_where_that_matters():
    def loss(step):
        return 2 * math.exp(-step / 10) + 0.2 * math.exp(-step / 200)

    short, long = (run(Schedule(10_000, 10, 30, of_loss=share), loss) for share in (None, 0.05))
    assert loss(len(short[0])) > 0.05 and loss(len(long[0])) < 0.01


@pytest.mark.parametrize("loss", [lambda _: 2.0, lambda step: 1 + step, lambda _: math.nan])
def test_a_loss_that_never_falls_ends_training(loss):
    schedule = Schedule(10_000, 5, 20)
    rates, _ = run(schedule, loss)
    assert schedule.converged and len(rates) <= 30


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 10, 11, 37])
@pytest.mark.parametrize("every", [1, 4, 100])
def test_any_ceiling_is_kept(steps, every):
    rates, history = run(Schedule(steps, every, 3), lambda step: 100.0 - step)
    assert len(rates) == steps and all(0 < rate <= 1 for rate in rates)
    assert history[0]["step"] == 0 and history[-1]["step"] == steps


@pytest.mark.parametrize("stop", range(0, 90, 7))
def test_a_training_that_resumes_has_the_same_rates(stop):
    def loss(step):
        return 1 + math.exp(-step / 15) + 0.01 * math.sin(step)

    schedule = Schedule(200, 5, 15)
    rates, history = run(schedule, loss)
    again = Schedule(200, 5, 15).replay(each for each in history if each["step"] <= stop)
    before = Schedule(200, 5, 15).replay(each for each in history if each["step"] <= stop)
    assert [again.rate(step) for step in range(stop, min(stop + 5, len(rates)))] == rates[stop : stop + 5]
    assert vars(again) == vars(before)
    assert schedule.replay(history).converged
