"""Pairs of prefixes: equally long, near in length and place, cut after their first tokens, and halved by problem."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from probe.circuits import Pairs, behaviour_pairs
from probe.errors import NotApplicable, ProbeError
from probe.problems import Problem
from probe.taxonomy import Behaviour
from probe.traces import Sentence, Trace

DOES = 7
"""The token that begins a sentence of the behaviour."""
behaviour = Behaviour(
    "does", "type", lambda traces: [[t.tokens[s.token_start] == DOES for s in t.sentences] for t in traces]
)


def trace(problem, *lengths, does=(), like=0):
    """A trace of sentences with these numbers of tokens, some of which show the behaviour."""
    tokens, sentences = [], []
    for at, length in enumerate(lengths):
        begin = len(tokens)
        tokens += [DOES if at in does else 8 + like + at, *range(20, 19 + length)]
        sentences.append(Sentence(begin, begin + length, begin, begin + length))
    return Trace(problem, "", tuple(tokens), "x" * len(tokens), tuple(sentences), None, None, False, False)


def problems(traces):
    return [Problem(each.problem_id, "Mia has 2 .", "1") for each in traces]


class Lazy(Sequence):
    """Traces that are read one at a time."""

    def __init__(self, traces):
        self.traces, self.passes, self.read = traces, 0, 0

    def __len__(self):
        return len(self.traces)

    def __iter__(self):
        self.passes += 1
        return iter(self.traces)

    def __getitem__(self, at):
        self.read += 1
        return self.traces[at]


@pytest.fixture(scope="module")
def many():
    return [trace(str(i), 5 + i % 3, 9, 4 + i % 5, 6, 8, does=(2, 4) if i % 4 else (3,)) for i in range(12)]


def test_prefixes_of_a_pair_end_where_the_sentences_begin(llama, many):
    lazy = Lazy(many)
    pairs = behaviour_pairs(llama, lazy, problems(many), behaviour, n_pairs=9)
    prompt = llama.prompt_ids("Mia has 2 .")
    ends = {True: set(), False: set()}
    for each in many:
        for sentence in each.sentences[1:]:
            text = (*prompt, *each.tokens[: sentence.token_start])
            after = each.tokens[sentence.token_start]
            ends[after == DOES].add((text, after))
    for clean, corrupt, right, wrong in pairs:
        for row in zip(clean, corrupt, right, wrong, strict=True):
            a, b, after, other = (each.tolist() for each in row)
            assert after == DOES != other
            for ids, token, showing in ((a, after, True), (b, other, False)):
                same = [
                    text for text, said in ends[showing] if said == token and list(text[-len(ids) + 4 :]) == ids[4:]
                ]
                assert same and ids[:4] == prompt[:4]
    assert len(pairs) == 9
    assert lazy.passes == 2 and lazy.read < 40, "traces are gone over, not kept"
    again = behaviour_pairs(llama, many, problems(many), behaviour, n_pairs=9)
    assert all(torch.equal(a, b) for one, two in zip(pairs, again, strict=True) for a, b in zip(one, two, strict=True))
    assert pairs.about["pairs"] == 9 and pairs.about["first sentences, which no text precedes"] == 12
    assert "9 pairs of" in repr(pairs) and "other prefixes" in pairs._repr_html_()


def test_lengths_never_equal_before_are_cut_on_the_left(llama):
    """No two prefixes have equally many tokens, so that matching by length alone found nothing."""
    traces = [trace("1", 30, 5, does=(1,)), trace("2", 33, 5), trace("3", 60, 5), trace("4", 45, 5, does=(1,))]
    pairs = behaviour_pairs(llama, traces, problems(traces), behaviour, n_pairs=1)
    ((clean, corrupt, *_),) = pairs
    prompt = llama.prompt_ids("Mia has 2 .")
    own = [*prompt, *traces[0].tokens[:30]] if clean.shape[1] == len(prompt) + 30 else [*prompt, *traces[3].tokens[:45]]
    other = [*prompt, *traces[1].tokens[:33]] if len(own) < 40 + len(prompt) else [*prompt, *traces[2].tokens[:60]]
    kept = min(len(own), len(other))
    for ids, whole in ((clean[0].tolist(), own), (corrupt[0].tolist(), other)):
        assert ids == [*whole[:4], *whole[len(whole) - kept + 4 :]]
    assert pairs.about["cut on the left"] == 1


def test_a_context_limits_every_prefix(llama, many):
    pairs = behaviour_pairs(llama, many, problems(many), behaviour, n_pairs=8, context=12)
    assert {group[0].shape[1] for group in pairs} == {12} and len(pairs) == 8
    assert pairs.about["cut on the left"] == 8
    with pytest.raises(ProbeError, match="give at least 8"):
        behaviour_pairs(llama, many, problems(many), behaviour, context=5)


def test_the_nearest_other_prefix_is_chosen(llama):
    """Of prefixes that are equally long, the one nearest in place, and then the one of the same problem."""
    mine = trace("1", 10, 10, 10, does=(2,))
    near, far = trace("2", 10, 10, 10, like=30), trace("2", 20, 80, like=60)
    same = replace(near, problem_id="1", tokens=tuple(token + 1 if token > 37 else token for token in near.tokens))
    for others, right in (([far, near], near), ([near, same], same), ([same, near], same)):
        traces = [mine, *others]
        pairs = behaviour_pairs(llama, traces, problems(traces), behaviour, n_pairs=1)
        assert pairs.wrong[0].tolist() == [right.tokens[20]]
        assert pairs.about["of one problem"] == (right is same)


def test_halves_share_no_problem(llama, many):
    marked = [replace(each, tokens=(40 + i, *each.tokens[1:])) for i, each in enumerate(many * 2)]
    where = {40 + i: each.problem_id for i, each in enumerate(many * 2)}
    pairs = behaviour_pairs(llama, marked, problems(marked), behaviour, n_pairs=12, context=None)
    halves = pairs.split()
    assert [len(each) for each in halves] == [6, 6] and pairs.about["halves of other problems"]
    seen = [
        {
            where[t]
            for clean, corrupt, *_ in half
            for ids in (clean, corrupt)
            for t in ids.flatten().tolist()
            if t in where
        }
        for half in halves
    ]
    assert all(seen) and not seen[0] & seen[1]
    alone = [each for each in marked if each.problem_id == "1"]
    pairs = behaviour_pairs(llama, alone, problems(alone), behaviour, n_pairs=4)
    assert not pairs.about["halves of other problems"] and [len(each) for each in pairs.split()] == [2, 2]


def test_pairs_are_saved_and_read_again(llama, many, tmp_path):
    pairs = behaviour_pairs(llama, many, problems(many), behaviour, n_pairs=6)
    again = Pairs.load(pairs.save(tmp_path / "pairs.safetensors"))
    for one, two in zip(pairs.split(), again.split(), strict=True):
        assert all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))
    assert again.about == pairs.about and repr(again) == repr(pairs)


@pytest.mark.parametrize(
    ("traces", "said"),
    [
        ([trace("1", 5, 5)], "no sentence after the first of a trace shows 'does'; give more traces"),
        ([trace("1", 5, 5, does=(1,))], "every sentence after the first of a trace shows 'does'; name another"),
        ([trace("1", 5, 95, 5, does=(2,))], "1 prefixes precede a sentence that shows 'does' and 1 another"),
    ],
)
def test_why_there_are_no_pairs(llama, traces, said):
    with pytest.raises(NotApplicable, match=said):
        behaviour_pairs(llama, traces, problems(traces), behaviour)
