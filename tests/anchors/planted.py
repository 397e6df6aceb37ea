"""Traces whose one wrong step is known."""

import random
import re

from probe.organisms.documents import join, slipped
from probe.problems import Problem, load_problems
from probe.problems.story.sentences import COMPUTE, parse
from probe.problems.story.story import draw_story
from probe.traces import make_trace

_EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def planted_traces(model, n, *, changes=4, seed=0):
    """(problem, trace, types of its sentences, number of the wrong one, first wrong token) of random stories."""
    rng, problems, found = random.Random(seed), load_problems("story"), []
    for i in range(n):
        story = draw_story(rng, changes)
        written = slipped(story, rng, check=i % 2 == 1)
        problem = Problem(f"planted-{i}", story.question(), str(story.answer))
        trace = make_trace(model, problems, problem, model.tokenizer(join(written)).input_ids, False)
        wrong = next(
            at for at, (kind, text) in enumerate(written) if kind == COMPUTE and parse(text).equation_true is False
        )
        left, symbol, right, stated = _EQUATION.search(written[wrong][1]).groups()
        truth = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[symbol]
        sentence = trace.sentences[wrong]
        ids = [model.tokenizer(f" {number}").input_ids for number in (stated, truth)]
        same = next((k for k, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), min(map(len, ids)))
        start = sentence.token_end - 1 - len(ids[0])
        assert list(trace.tokens[start : start + len(ids[0])]) == ids[0]
        found.append((problem, trace, [kind for kind, _ in written], wrong, start + same))
    return found


def says_the_same(one, other):
    """Equations are the same if their numbers are; other sentences if their words are."""
    equations = [_EQUATION.search(text) for text in (one, other)]
    if all(equations):
        return parse(one).type == parse(other).type and equations[0][0] == equations[1][0]
    return one.strip() == other.strip()
