import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import bootstrap

from probe import ProbeError
from probe.counters import HABITS, BehaviourCounts, compare_counts, count_behaviours, count_story
from probe.organisms.documents import join, proceed, wander
from probe.problems.story.sentences import CHECK, PLAN, REDO
from probe.problems.story.story import draw_story
from probe.traces import Sentence, Trace, Traces, split_sentences


def trace(text: str, problem: str = "one", correct: bool = True, failed: bool = False) -> Trace:
    sentences = tuple(Sentence(start, end, 0, 0) for start, end in split_sentences(text))
    return Trace(problem, "Mia has 3 cards.", (), text, sentences, None, None, correct, False, failed)


def counts(rows: Sequence[Sequence[int]], sentences: Sequence[int], problems: Sequence[str] | None = None):
    return BehaviourCounts(
        "habits",
        ("verification", "backtracking"),
        np.asarray(rows),
        np.asarray(sentences),
        tuple(problems or map(str, range(len(rows)))),
        (True,) * len(rows),
    )


def test_story_counts_are_exact() -> None:
    rng = random.Random(0)
    traces, truth, written = [], [], 0
    for i in range(500):
        story = draw_story(rng, rng.randint(1, 5))
        document = wander(story, rng) if i % 2 else proceed(story, rng, check=0.5)
        kinds = Counter(kind for kind, _ in document)
        traces.append(trace(join(document), f"story/{i}"))
        truth.append([kinds[CHECK], kinds[REDO], kinds[PLAN], 0])
        written += len(document)
    found = count_behaviours(Traces("tiny", "story", traces), "story")
    assert found.names == HABITS
    assert found.counts.tolist() == truth
    assert found.sentences.sum() == written > 3000
    assert (np.asarray(truth)[:, :3].sum(0) > 40).all()


@pytest.mark.parametrize(
    ("sentences", "backtracking"),
    [
        # redone without a word; only what was found wrong is redone, and only once
        ([" Check that 5 + 3 = 9: wrong.", " Now 5 + 3 = 8.", " Now 5 + 3 = 8."], 1),
        ([" Check that 5 + 3 = 8: right.", " Now 5 + 3 = 8."], 0),
        ([" Check that 5 + 3 = 9: wrong.", " Now 9 + 3 = 12."], 0),
        ([" Check that 5 + 3 = 9: wrong.", " Second, Mia finds 3 more cards.", " Now 5 + 3 = 8."], 0),
        # the cue without the deed
        ([" Again, it is fun to have cards."], 0),
        ([" Check that 5 + 3 = 9: wrong.", " By the way, the weather is nice today.", " Redo it: 5 + 3 = 8."], 1),
    ],
)
def test_story_sees_what_is_done(sentences: list[str], backtracking: int) -> None:
    assert count_story(sentences)["backtracking"] == backtracking


def test_every_scheme_counts_sentences() -> None:
    text = " Okay, so I need to find the total. Let me check that. So 3 + 4 = 7. The answer is 7."
    for scheme, expected in {
        "habits": {"verification": 1},
        "six": {"initializing": 1, "uncertainty-estimation": 1, "deduction": 2},
        "eight": {"problem_setup": 1, "self_checking": 1, "active_computation": 1, "final_answer_emission": 1},
    }.items():
        found = count_behaviours([trace(text), trace("")], scheme)
        assert dict(zip(found.names, found.counts[0].tolist(), strict=True)) == dict.fromkeys(found.names, 0) | expected
        assert found.counts[1].sum() == 0
        assert found.sentences.tolist() == [4, 0]


def test_no_traces() -> None:
    found = count_behaviours([], "six")
    assert found.counts.shape == (0, 6)
    assert all(mean.value is None for mean in found.mean().values())
    assert found.to_dict()["mean"] == found.to_dict()["ci"] == [None] * 6
    assert "<td>deduction</td><td>0</td><td>none</td><td>none</td>" in found._repr_html_()


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(ProbeError, match=r"unknown scheme of behaviours 'habit'; did you mean 'habits'\?"):
        count_behaviours([], "habit")


def test_rates() -> None:
    table = counts([[2, 0], [1, 3], [0, 0]], [4, 5, 0])
    assert table.rates().tolist() == [[2, 0], [1, 3], [0, 0]]
    assert table.rates("sentence")[:2].tolist() == [[0.5, 0], [0.2, 0.6]]
    assert np.isnan(table.rates("sentence")[2]).all()
    assert table.mean("sentence")["verification"].value == pytest.approx(0.35)
    with pytest.raises(ProbeError, match="use answer or sentence"):
        table.rates("token")


def test_intervals_are_those_of_scipy() -> None:
    rows = np.random.default_rng(1).poisson((1.0, 4.0), (80, 2))
    table = counts(rows.tolist(), [10] * 80)
    for i, (name, mean) in enumerate(table.mean(seed=3).items()):
        other = bootstrap((rows[:, i],), np.mean, method="percentile", n_resamples=10_000, random_state=0)
        assert mean.value == rows[:, i].mean(), name
        assert (mean.low, mean.high) == pytest.approx(tuple(other.confidence_interval), abs=0.04)
    assert table.mean(seed=3) == table.mean(seed=3) != table.mean(seed=4)


def test_one_trace_has_no_interval() -> None:
    mean = counts([[2, 0]], [4]).mean()["verification"]
    assert mean.value == 2
    assert mean.low is None


def test_by_correct() -> None:
    text = " Let me check that."
    traces = [trace(text, "a"), trace("", "b", correct=False), trace(text, "c", failed=True), trace(text, "d")]
    parts = count_behaviours(traces).by_correct()
    assert parts["correct"].problem_ids == ("a", "d")
    assert parts["incorrect"].problem_ids == ("b",)
    assert parts["correct"].counts[:, 0].tolist() == [1, 1]


def test_comparison_is_paired() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 50, (60, 2))
    more = base + np.asarray([1, 0]) + rng.integers(0, 2, (60, 2))
    names = [f"p{i}" for i in range(60)]
    order = rng.permutation(60)
    before = counts(base.tolist(), [10] * 60, names)
    after = counts(more[order].tolist(), [10] * 60, [names[i] for i in order])
    found = compare_counts(before, after)
    change = found.difference["verification"]
    assert change.value == pytest.approx((more - base)[:, 0].mean())
    # Problems differ by tens; the difference within a problem is one or two.
    assert 1 <= change.low < change.value < change.high <= 2
    assert found.after["verification"] - found.before["verification"] == pytest.approx(change.value)
    assert found.problems == 60
    assert f"<td>{change}</td>" in found._repr_html_()


def test_comparison_averages_samples_of_a_problem() -> None:
    before = counts([[1, 0], [3, 0], [5, 0]], [10, 10, 10], ["a", "a", "b"])
    after = counts([[4, 0], [5, 0], [5, 0]], [10, 0, 10], ["a", "b", "b"])
    assert compare_counts(before, after).difference["verification"].value == pytest.approx(((4 - 2) + (5 - 5)) / 2)
    # Per sentence, the trace without sentences has no rate.
    by_sentence = compare_counts(before, after, per="sentence")
    assert by_sentence.difference["verification"].value == pytest.approx(((0.4 - 0.2) + (0.5 - 0.5)) / 2)
    assert by_sentence.problems == 2


def test_comparison_refuses_other_problems_and_schemes() -> None:
    one, two = counts([[1, 0]], [1], ["a"]), counts([[1, 0]], [1], ["b"])
    with pytest.raises(ProbeError, match="'a' is on one side only"):
        compare_counts(one, two)
    with pytest.raises(ProbeError, match="use one scheme"):
        compare_counts(one, count_behaviours([], "six"))


def test_shown_and_written() -> None:
    table = count_behaviours([trace(" Let me check that.", "a"), trace(" Wait.", "b")])
    assert repr(table).startswith("BehaviourCounts(habits, 2 traces: verification 1, backtracking 1")
    assert "<td>verification</td><td>1</td><td>0.5 [0, 1]</td>" in table._repr_html_()
    written = table.to_dict()
    assert written["names"] == list(HABITS)
    assert written["mean"] == [0.5, 0.5, 0, 0]
    assert written["ci"][2] == [0, 0]
