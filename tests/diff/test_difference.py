"""The mean difference is that of plain passes, and says on tiny-rl what training added; one model has none."""

from dataclasses import replace

import pytest
import torch

import probe
from probe.diff import PairDiff, activation_difference, direction_transfer, risen_behaviour, steer_with_difference
from probe.errors import NotApplicable, ProbeError
from probe.models import ModelConfig, Pair, Sampling, load_model
from probe.reports.diff.page import reading_rows
from tests.circuits.conftest import drawn_pairs

N, LIMIT, LAYER = 24, 170, 1


@pytest.fixture(scope="module")
def bundled():
    return probe.load_pair("tiny-rl", device="cpu")


@pytest.fixture(scope="module")
def story():
    return probe.load_problems("story")


@pytest.fixture(scope="module")
def problems(story):
    return story.take("train", N)


@pytest.fixture(scope="module")
def traces(bundled, story, problems):
    return probe.generate_traces(bundled.thinking, story, problems, max_new_tokens=LIMIT)


@pytest.fixture(scope="module")
def found(bundled, story, problems, traces):
    check = probe.find_behaviour("check", problem_set=story)
    return activation_difference(bundled, traces, problems, layer=LAYER, behaviour=check, n_random=200)


def ends_of(trace, before):
    return [before + each.token_start - 1 for each in trace.sentences if each.token_start]


@torch.no_grad()
def test_the_difference_is_that_of_plain_passes(bundled, problems, traces, found):
    means = []
    for model in (bundled.base, bundled.thinking):
        per_text = []
        for problem, trace in list(zip(problems, traces, strict=True))[: N // 2]:
            prompt = bundled.thinking.prompt_ids(problem.question)
            ids = torch.tensor([[*prompt, *trace.tokens]])
            states = model.hf(ids, output_hidden_states=True).hidden_states[LAYER + 1][0]
            per_text.append(states[ends_of(trace, len(prompt))].mean(0))
        means.append(torch.stack(per_text).mean(0))
    torch.testing.assert_close(found.vectors["sentence ends"], means[1] - means[0], atol=1e-4, rtol=1e-3)


def test_what_training_added_is_read_where_sentences_end(found):
    """Its checks begin with Is and Check, and each is followed by what follows a check."""
    assert found.word in (" Is", " Check") and {" Is", " Check"} <= set(found.favoured)
    ends = next(each for each in found.readings if each.place == "sentence ends")
    assert found.clearest == "sentence ends" and ends in found.readable
    assert max(ends.p.values()) < 0.02 and ends.agrees > max(ends.of_null.values())
    assert {" Is", " Check"} <= set(ends.top[:6]) and ends.rank <= 6
    assert "sentence ends" in found._repr_html_() and "tensor" not in repr(found)


def test_few_texts_have_few_halves_and_a_p_that_says_so(bundled, problems, traces):
    """Two texts have one half each way in either model, so no p is below 1 / 5, however many vectors are asked for."""
    few = activation_difference(bundled, traces[:5], problems[:5], layer=LAYER, n_random=200)
    ends = next(each for each in few.readings if each.place == "sentence ends")
    assert ends.texts == 2 and ends.vectors == {"random": 200, "halves": 4}
    assert ends.floor == 0.2 <= ends.least and not few.readable
    finding = PairDiff("p", difference=replace(few, readings=(ends,))).findings[0]
    assert finding.differs is None and "p is 0.2 or more" in finding.said
    one = activation_difference(
        bundled, traces[:4], problems[:4], layer=LAYER, n_random=50, unrelated=["Tom has a card."]
    )
    alone = next(each for each in one.readings if each.place == "unrelated")
    assert alone.texts == 1 and alone.p["halves"] == 1 and "halves" not in alone.of_null and alone.least == 1
    assert reading_rows(one.to_dict()) and "nan" not in one._repr_html_()


def test_half_precision_reads_the_same(problems, traces, found):
    half = probe.load_pair("tiny-rl", device="cpu", dtype="bfloat16")
    other = activation_difference(half, traces, problems, layer=LAYER, n_random=50)
    first, second = (next(r for r in each.readings if r.place == "sentence ends").top[:6] for each in (found, other))
    assert len({*first} & {*second}) >= 4 and other.clearest == "sentence ends"


def test_a_model_and_itself_have_no_difference(bundled, problems, traces):
    itself = Pair(bundled.config, bundled.thinking, bundled.thinking)
    found = activation_difference(itself, traces[:8], problems[:8], layer=LAYER, n_random=10)
    assert found.clearest is None and not found.readable and not found.favoured
    assert all(each.size == 0 and each.agrees is None for each in found.readings)


def test_the_difference_steers_and_at_strength_0_changes_nothing(bundled, story, problems, traces, found):
    check = probe.find_behaviour("check", problem_set=story)
    some = problems[N // 2 :][:6]
    made = steer_with_difference(
        bundled.base, found, story, some, place="sentence ends", ends=traces[: N // 2],
        strengths=(0.0, 5.0), behaviour=check, max_new_tokens=70, n_random=1,
    )  # fmt: skip
    effects = {(each.strength, each.measure): each for each in made.effects}
    none, strong = effects[0.0, "behaviour"], effects[5.0, "behaviour"]
    assert none.steered == none.plain == none.random and none.more_than_random.value == 0
    assert strong.steered.value > strong.plain.value and strong.more_than_random.value > 0
    plain = probe.generate_traces(bundled.base, story, some[:1], max_new_tokens=70)[0]
    assert made.texts[0]["plain"] == plain.text != made.texts[0]["steered"]
    for empty in ({"strengths": ()}, {"n_random": 0}):
        with pytest.raises(ProbeError, match=f"{next(iter(empty))} is empty"):
            steer_with_difference(bundled.base, found, story, some, **empty)
    with pytest.raises(ProbeError, match="problems is empty"):
        steer_with_difference(bundled.base, found, story, [])
    with pytest.raises(ProbeError, match="give traces as ends="):
        steer_with_difference(bundled.base, found, story, some, place="sentence ends")


def test_models_of_other_widths_are_not_compared(bundled, problems, traces, tiny_folder):
    other = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    assert other.d_model != bundled.thinking.d_model
    with pytest.raises(NotApplicable, match="differ in width"):
        activation_difference(Pair(bundled.config, other, bundled.thinking), traces, problems)
    pairs = drawn_pairs(rows=12)
    with pytest.raises(NotApplicable, match="differ in width"):
        direction_transfer(Pair(bundled.config, other, bundled.thinking), pairs, pairs)


def test_a_habit_is_chosen_where_sentences_have_no_types(bundled, story, problems, traces):
    plain = replace(story, sentence_type=None)
    some = slice(0, 10)
    found = risen_behaviour(bundled, plain, problems[some], traces[some], max_new_tokens=LIMIT)
    assert found.behaviour.name == "habits:verification" and found.behaviour.source == "counter"
    before, after = found.shares["habits:verification"]
    assert after > before and "rose most" in found.said
    with pytest.raises(NotApplicable, match="name a behaviour"):
        risen_behaviour(bundled, plain, problems[:1], traces[:1].__class__("m", "s", []), max_new_tokens=4)


def test_the_base_is_sampled_as_it_is_said(bundled, story, problems, tmp_path):
    sampling = Sampling(temperature=0.7)
    written = probe.generate_traces(
        bundled.thinking, story, problems[:3], max_new_tokens=90, sampling=sampling, seed=5
    )  # fmt: skip
    folder = tmp_path / "base"
    risen_behaviour(
        bundled, story, problems[:3], written, max_new_tokens=90, sampling=sampling, seed=5, folder=folder
    )  # fmt: skip
    again = {"max_new_tokens": 90, "folder": folder}
    probe.generate_traces(bundled.base, story, problems[:3], sampling=sampling, seed=5, **again)
    with pytest.raises(ProbeError, match=r"sampling|greedy"):
        probe.generate_traces(bundled.base, story, problems[:3], **again)
