"""Pairs of equations differ in the digits that they should, and in nothing else."""

import pytest

import probe
from probe.circuits import operand_pairs, statement_pairs
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from probe.problems import Problem, ProblemSet
from probe.traces import make_trace


@pytest.fixture(scope="module")
def written():
    pair, problems = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    train = problems.take("train", 6)
    return pair.thinking, probe.generate_traces(pair.thinking, problems, train, max_new_tokens=100), train


def rows(pairs):
    return [each for group in pairs for each in zip(*group, strict=True)]


def test_another_operand_gives_another_result(written):
    model, traces, problems = written
    found = rows(operand_pairs(model, traces, problems, n_pairs=6))
    assert len(found) == 6
    for clean, corrupt, right, wrong in found:
        assert model.decode(clean[-1:].tolist()) == " =" and right != wrong
        places = (clean != corrupt).nonzero()[:, 0].tolist()
        assert places[-1] == len(clean) - 2 and 1 <= len(places) <= 2, "in the equation, and where it was told"
        assert int(model.hf(clean[None]).logits[0, -1].argmax()) == right


def test_statements_end_with_their_sentence(written):
    model, traces, problems = written
    found = rows(statement_pairs(model, traces, problems, n_pairs=10))
    assert len(found) == 10
    for clean, corrupt, *_ in found:
        assert (clean != corrupt).sum() == 1
        text = model.decode(clean[-4:].tolist())
        assert text.endswith((".", ": right."))


def test_traces_without_equations_give_none(written):
    model, _, problems = written
    empty = probe.generate_traces(model, probe.load_problems("story"), problems[:2], max_new_tokens=3)
    with pytest.raises(ProbeError, match="no equation of the traces"):
        operand_pairs(model, empty, problems[:2])


def test_equations_as_people_write_them_are_found(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", "letters"))), device="cpu")
    text = "- 12 + 7 = 19.\n- So 3×4=12.\nWe pay $1,200 - $50 = $1,150.\nBut 1 + 2 + 3 = 6.\nAnd 2 + 2 = 5.\n"
    problem = Problem("own", "How many?", "19")
    trace = make_trace(model, ProblemSet("own", "numeric", {"train": (problem,)}), problem, model.encode(text), False)
    found = rows(statement_pairs(model, [trace], [problem], n_pairs=10))
    prompt = len(model.prompt_ids(problem.question))
    ends = sorted(model.decode(corrupt[prompt:].tolist()).strip().split("= ")[-1][-7:] for _, corrupt, *_ in found)
    assert ends == ["$1,152.", "11.", "3×4=14."]
