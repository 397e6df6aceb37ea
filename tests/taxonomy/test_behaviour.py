"""A behaviour marks the same sentences as what defines it: a type, a counter or a category."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from discovered import trace_of

from probe.activations import harvest
from probe.counters import SCHEMES, count_behaviours
from probe.errors import ProbeError
from probe.models import Model, load_model
from probe.organisms.documents import join, wander
from probe.problems import Problem, ProblemSet, load_problems
from probe.problems.story.story import draw_story
from probe.taxonomy import Behaviour, Edits, Normaliser, Taxonomy, annotate, find_behaviour, show_behaviours
from probe.taxonomy.edits import BehaviourEdit
from probe.taxonomy.sae.weights import Weights
from probe.traces import Traces, make_trace


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return load_model(str(tiny_folder("llama")), device="cpu")


@pytest.fixture(scope="module")
def story() -> ProblemSet:
    return load_problems("story", sizes={"train": 10, "validation": 10, "test": 10})


@pytest.fixture(scope="module")
def traces(model, story) -> Traces:
    rows = []
    for i in range(6):
        rng = random.Random(i)
        ids = model.tokenizer(join(wander(draw_story(rng, 3), rng)), add_special_tokens=False)["input_ids"]
        rows.append(make_trace(model, story, Problem(str(i), "Q", "1"), ids, False))
    return Traces(model.name, "story", rows)


@pytest.fixture(scope="module")
def taxonomy(model, traces) -> Taxonomy:
    """Three random directions, called plans, checks and "six:deduction"."""
    encoder = torch.randn(model.d_model, 3, generator=torch.Generator().manual_seed(0))
    weights = Weights(encoder, torch.nn.functional.normalize(encoder.T, dim=1), 1)
    normaliser = Normaliser.fit(harvest(model, traces, "resid_post.1").vectors["resid_post.1"], 10.0)
    return Taxonomy("resid_post.1", normaliser, weights, labels=["plans", "checks", "six:deduction"])


def edited(taxonomy: Taxonomy, *edits: BehaviourEdit) -> Taxonomy:
    return Taxonomy(
        taxonomy.site,
        taxonomy.normaliser,
        Weights(taxonomy.sae.W_enc.data, taxonomy.directions, 1),
        labels=taxonomy.labels,
        edits=Edits(edits),
    )


def test_a_type_is_what_the_grammar_says(story, traces):
    for name in story.sentence_types:
        behaviour = Behaviour.of_type(story, name)
        assert behaviour.marks(traces) == [[story.sentence_type(s) == name for s in t.sentence_texts] for t in traces]
        assert behaviour.marks(traces.traces) == behaviour.marks(traces)
        assert find_behaviour(name, problem_set=story).marks(traces) == behaviour.marks(traces)
    sentence = traces[0].sentence_texts[0]
    assert Behaviour.of_type(story, story.sentence_type(sentence)).shows(sentence)
    assert repr(Behaviour.of_type(story, "check")) == "Behaviour('check', type)"


def test_types_that_are_not_there(story):
    with pytest.raises(ProbeError, match="no type of sentence is called 'chekc'; did you mean 'check'"):
        Behaviour.of_type(story, "chekc")
    with pytest.raises(ProbeError, match=r"have no types; name a counter \(SCHEME:NAME\) or a category"):
        Behaviour.of_type(replace(story, sentence_type=None, sentence_types=()), "check")


@pytest.mark.parametrize("scheme", [name for name, rules in SCHEMES.items() if rules.mark is not None])
def test_marks_of_a_counter_add_up_to_its_counts(scheme, traces):
    counted = count_behaviours(traces, scheme)
    found = [[sum(row) for row in find_behaviour(f"{scheme}:{name}").marks(traces)] for name in SCHEMES[scheme].names]
    assert np.array_equal(np.asarray(found).T, counted.counts)


def test_a_counter_in_text_alone():
    behaviour = find_behaviour("habits:verification")
    assert behaviour.shows(" Let me double-check that.")
    assert not behaviour.shows(" So it is four.")
    assert (behaviour.name, behaviour.source) == ("habits:verification", "counter")


def test_a_counter_whose_marks_depend_on_order_needs_the_trace():
    behaviour = find_behaviour("story:backtracking")
    with pytest.raises(ProbeError, match=r"'story:backtracking' depends on its trace; use marks\(traces\)"):
        behaviour.shows(" Redo that: 2 + 2 = 4.")
    wrong, now = " Check that 5 + 3 = 9: wrong.", " Now 5 + 3 = 8."
    assert behaviour.marks([trace_of([wrong, now, now]), trace_of([now, wrong])]) == [[False, True, False], [False] * 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("habit:verification", r"write SCHEME:NAME; did you mean 'habits'\?"),
        ("habits:verfication", r"the scheme habits has no counter 'verfication'; did you mean 'verification'\?"),
        ("countdown:verification", "counts in whole answers, not in sentences"),
        (3, "behaviour 3 is the number of a category; give the run or the taxonomy"),
        ("check", "write SCHEME:NAME, or give the problem set or taxonomy that has it"),
    ],
)
def test_names_that_nothing_has(name, message):
    with pytest.raises(ProbeError, match=message):
        find_behaviour(name)


def test_a_category_by_number_and_by_name(model, taxonomy, traces):
    rows = annotate(taxonomy, traces, harvest(model, traces, taxonomy.site)).behaviours
    assert len({behaviour for row in rows for behaviour in row}) > 1
    for number, name in enumerate(taxonomy.names):
        expected = [[behaviour == number for behaviour in row] for row in rows]
        for which in (number, str(number), name):
            behaviour = find_behaviour(which, taxonomy=taxonomy, model=model)
            assert behaviour.marks(traces) == expected
            assert (behaviour.name, behaviour.source) == (name, "category")
        many = list(traces) * 12  # more than are read at once
        assert behaviour.marks(many) == expected * 12
    with pytest.raises(ProbeError, match="depends on its trace"):
        behaviour.shows(" Now.")


def test_names_and_merges_of_people_count(model, taxonomy, traces):
    said = edited(taxonomy, BehaviourEdit(name="sets out"), BehaviourEdit(), BehaviourEdit(merge_into=0))
    merged = Behaviour.of_category(said, "sets out", model).marks(traces)
    parts = [Behaviour.of_category(taxonomy, i, model).marks(traces) for i in (0, 2)]
    assert merged == [[a or b for a, b in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]
    into = Behaviour.of_category(said, 2, model)
    assert into.name == "sets out"
    assert into.marks(traces) == merged
    with pytest.raises(ProbeError, match="the taxonomy has no behaviour 'plans'"):
        Behaviour.of_category(said, "plans", model)


def test_categories_that_are_not_there(model, taxonomy):
    with pytest.raises(ProbeError, match=r"no behaviour 'cheks'; did you mean 'checks'\?"):
        find_behaviour("cheks", taxonomy=taxonomy, model=model)
    for number in (3, -1):
        with pytest.raises(ProbeError, match=f"no behaviour {number}; its numbers are 0 to 2"):
            Behaviour.of_category(taxonomy, number, model)
    with pytest.raises(ProbeError, match="'checks' is a category of a taxonomy; give the model"):
        find_behaviour("checks", taxonomy=taxonomy)


def test_what_a_name_stands_for_where_several_could_have_it(model, story, taxonomy):
    given = {"problem_set": story, "taxonomy": taxonomy, "model": model}
    assert find_behaviour("six:deduction", **given).source == "category"
    assert find_behaviour("six:backtracking", **given).source == "counter"
    assert find_behaviour("check", **given).source == "type"
    assert find_behaviour("check", problem_set=story, taxonomy=taxonomy).source == "type", "no model is needed for it"


def test_empty_traces(model, story, taxonomy, traces):
    empty = replace(traces[0], tokens=(), text="", sentences=())
    for behaviour in (
        find_behaviour("check", problem_set=story),
        find_behaviour("story:verification"),
        find_behaviour("checks", taxonomy=taxonomy, model=model),
    ):
        assert behaviour.marks([]) == []
        assert behaviour.marks([empty]) == [[]]
        whole = behaviour.marks(traces[:1])
        assert behaviour.marks([empty, *traces[:1]]) == [[], *whole]
        with pytest.raises(ProbeError, match=f"no sentence of these 1 traces shows '{behaviour.name}'"):
            behaviour.marks([empty], required=True)


def test_a_pattern_is_searched_for_in_each_sentence(traces):
    pattern = re.compile(r"\d+ [-+] \d+ =")
    behaviour = Behaviour.of_pattern(pattern.pattern)
    marks = behaviour.marks(traces, required=True)
    assert marks == [[bool(pattern.search(s)) for s in t.sentence_texts] for t in traces]
    assert find_behaviour(pattern).marks(traces) == marks
    shown = show_behaviours(traces, [pattern])
    assert [[k == 0 for k in row] for row in shown.behaviours] == marks and shown.names == (pattern.pattern,)
    assert behaviour.shows("so 3 + 4 = 7") and not behaviour.shows("so 3 * 4 = 12")
    for wrong, said in (("(", "is no regular expression"), ("", "the pattern is empty")):
        with pytest.raises(ProbeError, match=said):
            Behaviour.of_pattern(wrong)
    for wrong, said in ((r"\dx\d", "no sentence of these 6 traces shows"), ("", "every sentence of these 6 traces")):
        with pytest.raises(ProbeError, match=said):
            Behaviour.of_pattern(re.compile(wrong)).marks(traces, required=True)


def test_sentences_have_the_first_behaviour_that_they_show(story, traces):
    names = ["check", "story:verification", Behaviour.of_type(story, "compute")]
    shown = show_behaviours(traces, names, problem_set=story)
    assert shown.names == ("check", "story:verification", "compute")
    marks = [
        find_behaviour(each, problem_set=story).marks(traces) for each in ("check", "story:verification", "compute")
    ]
    for row, *each in zip(shown.behaviours, *marks, strict=True):
        for i, k in enumerate(row):
            assert k == next((at for at, mark in enumerate(each) if mark[i]), None)
    assert {0, 2, None} <= {k for row in shown.behaviours for k in row}
    with pytest.raises(ProbeError, match="no behaviour to show; name at least one"):
        show_behaviours(traces, [])
