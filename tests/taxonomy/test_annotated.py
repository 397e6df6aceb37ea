"""Behaviours over traces, counted as plain loops count them."""

import numpy as np
import pytest
import torch
from discovered import annotated, trace_of

from probe.activations import SentenceActivations
from probe.errors import ProbeError
from probe.html import behaviour_colour
from probe.taxonomy.annotated import AnnotatedTraces, annotate
from probe.taxonomy.edits import BehaviourEdit, Edits
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.taxonomy import Taxonomy
from probe.traces import Traces


class Planted(Taxonomy):
    """The behaviour of an activation is its largest entry."""

    def __init__(self, edits: Edits | None = None) -> None:
        self.site = "resid_post.1"
        self.labels, self.titles = ["zero", "one", "two"], [None] * 3
        self.edits = edits or Edits.none(3)
        self.scores = {}
        self.normaliser = Normaliser(torch.zeros(3), limit=100.0)

    @property
    def n_behaviours(self) -> int:
        return 3

    def behaviour(self, x):
        assert x.isfinite().all(), "what is not finite has no behaviour"
        return x.argmax(-1)


def given(*rows: tuple[int | None, ...], correct: bool = True, names: int = 3) -> AnnotatedTraces:
    traces = [
        trace_of([f" Sentence {i}." for i in range(len(row))], correct, name=f"p/{n}") for n, row in enumerate(rows)
    ]
    return AnnotatedTraces(Traces("m", "p", traces), rows, tuple(f"name {i}" for i in range(names)))


@pytest.fixture
def harvested() -> tuple[Traces, SentenceActivations]:
    """Two traces; their sentences are 2 0 1 and 1 0; not in the order of the traces, and one was not harvested."""
    traces = Traces("m", "p", [trace_of([" A a.", " B b.", " C c."]), trace_of([" D d.", " E e."])])
    vectors = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
    index, texts = [(1, 0), (0, 0), (0, 1), (1, 1)], [" D d.", " A a.", " B b.", " E e."]
    return traces, SentenceActivations({"resid_post.1": vectors}, index, texts)


def test_annotate(harvested):
    found = annotate(Planted(), *harvested)
    assert found.behaviours == ((2, 0, None), (1, 0))
    assert found.names == ("zero", "one", "two")


def test_outliers_and_what_is_not_finite_have_no_behaviour(harvested):
    traces, activations = harvested
    activations.vectors["resid_post.1"][0] *= 1000
    activations.vectors["resid_post.1"][2] = float("nan")
    assert annotate(Planted(), traces, activations).behaviours == ((2, None, None), (None, 0))


def test_edits_rename_and_merge(harvested):
    edits = Edits((BehaviourEdit(name="nil"), BehaviourEdit(), BehaviourEdit(merge_into=1)))
    found = annotate(Planted(edits), *harvested)
    assert found.behaviours == ((1, 0, None), (1, 0))
    assert found.names == ("nil", "one", "two")


def test_other_site_or_other_traces_are_refused(harvested):
    traces, activations = harvested
    with pytest.raises(ProbeError, match=r"reads resid_post\.1, but the traces were harvested at resid_post\.0"):
        annotate(Planted(), traces, SentenceActivations({"resid_post.0": torch.zeros(0, 3)}, [], []))
    for others in (Traces("m", "p", traces.traces[::-1]), traces[:1]):
        with pytest.raises(ProbeError, match="other traces"):
            annotate(Planted(), others, activations)


def test_behaviours_must_fit_the_traces():
    traces = Traces("m", "p", [trace_of([" A."])])
    for rows, message in (((), "fit together"), (((0, 0),), "fit together"), (((1,),), "0 to 0"), (((-1,),), "0 to 0")):
        with pytest.raises(ProbeError, match=message):
            AnnotatedTraces(traces, rows, ("only",))


def test_transitions_by_hand():
    found = given((0, 1, 1, None, 0, 2), (None, 2), (1,))
    assert found.transitions().tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert found.starts().tolist() == [1, 1, 0], "a trace that begins with no behaviour begins with none"
    assert found.ends().tolist() == [0, 1, 2]


def test_counts_are_those_of_plain_loops():
    found = annotated(40)
    counts = {}
    for row in found.behaviours:
        for i in range(1, len(row)):
            if row[i - 1] is not None and row[i] is not None:
                counts[row[i - 1], row[i]] = counts.get((row[i - 1], row[i]), 0) + 1
    table = found.transitions()
    assert {tuple(at): table[tuple(at)] for at in np.argwhere(table).tolist()} == counts

    usage = found.usage()
    for group, wanted in ((usage.correct, True), (usage.incorrect, False)):
        rows = [
            row
            for trace, row in zip(found.traces, found.behaviours, strict=True)
            if trace.correct is wanted and not trace.failed
        ]
        flat = [behaviour for row in rows for behaviour in row if behaviour is not None]
        assert (group.traces, group.sentences) == (len(rows), len(flat))
        assert group.share == pytest.approx([flat.count(i) / len(flat) for i in range(7)])
    assert usage.all.traces == 40 == usage.correct.traces + usage.incorrect.traces + 1, "one could not be graded"


def test_intervals_are_over_traces():
    """Sentences of a trace are not independent: with all of one kind in each trace intervals are wide."""
    found = given(*[(0,) * 30, (1,) * 30] * 10, names=2)
    rng = np.random.default_rng(1)
    draws = [np.mean(rng.integers(0, 2, 20)) for _ in range(4000)]
    group = found.usage().all
    assert group.share == (0.5, 0.5)
    assert group.ci[0] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.051), "a step is one trace of 20"
    assert group.ci[0][1] - group.ci[0][0] > 0.3, "over sentences it would be 0.08"
    assert found.usage(seed=0) == found.usage(seed=0)


def test_longer_traces_weigh_more():
    share = given((0, 0, 0), (1,)).usage().all.share
    assert share == (0.75, 0.25, 0.0)


def test_positions():
    zero, one, two = given((0, 1), (0,), (1, None, None, 0)).positions()
    assert zero.tolist() == [0.25, 0.5, 0.875]
    assert one.tolist() == [0.75, 0.125]
    assert two.tolist() == []


def test_sentences_with_context():
    found = given((0, 1, 0), (1,))
    first, second = found.sentences(1)
    assert (first.trace, first.sentence, first.problem_id) == (0, 1, "p/0")
    assert (first.before, first.text, first.after) == (" Sentence 0.", " Sentence 1.", " Sentence 2.")
    assert (second.before, second.after, second.correct) == (None, None, True)
    assert found.sentences(2) == []
    with pytest.raises(ProbeError, match="0 to 2"):
        found.sentences(3)


def test_sentences_by_grade_and_drawn():
    found = annotated(40)
    for correct in (True, False):
        excerpts = found.sentences(1, 1000, correct)
        assert excerpts
        assert {excerpt.correct for excerpt in excerpts} == {correct}
    many = found.sentences(1, 1000)
    assert {excerpt.correct for excerpt in many} == {True, False, None}
    some = found.sentences(1, 15, seed=3)
    assert len(some) == len(set(some)) == 15
    assert set(some) < set(many)
    assert some == found.sentences(1, 15, seed=3) != found.sentences(1, 15, seed=4)
    assert some == sorted(some, key=lambda excerpt: (excerpt.trace, excerpt.sentence))


def test_records():
    found = annotated(10)
    records = found.records(8, lambda text: "plan" if "plan" in text else None)
    assert len(records) == 8
    assert records[7]["correct"] is None, "not graded"
    for record, trace, row in zip(records, found.traces, found.behaviours, strict=False):
        assert "".join(sentence["text"] for sentence in record["sentences"]) == trace.text
        assert tuple(sentence["behaviour"] for sentence in record["sentences"]) == row
    assert found.records(1)[0]["sentences"][0]["type"] is None


@pytest.mark.parametrize("rows", [(), ((),), ((0,),), ((None,),), ((0,), (0,), ())])
def test_little(rows):
    found = given(*rows, names=1)
    known = sum(behaviour == 0 for row in rows for behaviour in row)
    assert found.transitions().tolist() == [[0]]
    assert found.usage().all.share == ((1.0,) if known else (None,))
    assert found.usage().all.ci == (((1.0, 1.0),) if known > 1 else (None,))
    assert found.usage().incorrect.traces == 0
    assert found.positions()[0].tolist() == [0.5] * known
    assert found.starts().tolist() == [known]
    assert len(found.sentences(0)) == known
    assert found._repr_html_().count('<details class="trace"') == len(rows)


def test_html_escapes():
    traces = Traces("m", "p", [trace_of(['<script>x</script>" onmouseover="y'], name="<b>id</b>")])
    shown = AnnotatedTraces(traces, ((0,),), ("<i>name</i>",))._repr_html_()
    for raw in ("<script>x", "<b>id", "<i>"):
        assert raw not in shown
    assert f'<span data-i="0" style="background:{behaviour_colour(0)};color:#fff">0</span>' in shown, "a cell"
    assert "0</span> &lt;i&gt;name&lt;/i&gt;" in shown, "its key"


def test_some_of_them():
    found = annotated(6)
    assert found[4:].behaviours == found.behaviours[4:] and len(found[4:].traces) == len(found[4:]) == len(found) - 4
    assert found[-1].behaviours == found.behaviours[-1:]
    assert [each.behaviours[0] for each in found] == list(found.behaviours)
    assert '<details class="trace" data-trace' in found[0]._repr_html_() and " open><summary>" in found[0]._repr_html_()


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    found = annotated(6)
    found.usage()
    found.sentences(1, 2)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[union-attr,index]
