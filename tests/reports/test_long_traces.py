"""Traces of thousands of tokens: the page shows every problem and arm in few bytes, and ``shown.json`` is small."""

import json
import random

import pytest
from jinja2.utils import htmlsafe_json_dumps

from probe.errors import ProbeError
from probe.reports import to_columns
from probe.reports.run.columns import page_sizes, page_tokens
from probe.reports.run.files import read_shown
from probe.reports.run.page import render
from probe.reports.run.shown import BUDGET, compact, is_cut

WORDS = [f" {a}{b}" for a in ("ca", "to", "mi", "su", "re") for b in ("t", "n", "ll", "d", "x", "st", "p")]


def tokens(n, steered=0.1, asked=True, seed=0):
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        text, steer = rng.choice(WORDS), rng.random() < steered
        found.append(
            {
                "text": text,
                "steered": steer,
                "behaviour": rng.randrange(5) if steer else None,
                "strength": round(rng.random(), 3) if steer else None,
                "base": rng.choice(WORDS) if steer else text,
                "thinking": (rng.choice(WORDS) if rng.random() < 0.1 else text) if asked else None,
            }
        )
    return found


def long_run(n_tokens, arms=20, problems=12):
    """Two arms of one model each, and others token by token; the same trace in several, to be made quickly."""
    text = "".join(token["text"] for token in tokens(n_tokens))
    made = [to_columns(tokens(n_tokens, seed=seed)) for seed in range(3)]
    found = {"base": {"text": text, "correct": False}, "thinking": {"text": text, "correct": True}}
    found |= {f"hybrid-{i}": {"correct": True, "tokens": made[i % 3]} for i in range(arms - 2)}
    return [{"problem_id": f"p{i}", "question": "How many?", "answer": "7", "arms": found} for i in range(problems)]


@pytest.mark.parametrize("asked", [True, False])
def test_columns_say_what_tokens_said(asked):
    some = tokens(50, steered=0.4, asked=asked)
    some[3]["thinking"] = None
    for token, shown in zip(some, page_tokens(to_columns(some)), strict=True):
        agree = token["base"] == token["text"] and (token["thinking"] == token["text"] or not asked)
        plain = agree and not token["steered"]
        assert shown == (token["text"] if plain else [*token.values()])
    if asked:
        assert page_tokens(to_columns(some))[3][5] is None, "there the thinking model did not run"


def test_columns_take_a_tenth():
    some = tokens(2000)
    assert len(json.dumps(to_columns(some))) < 0.12 * len(json.dumps(some))


@pytest.mark.parametrize("asked", [True, False])
def test_sizes_are_those_of_the_tokens(asked):
    some = to_columns([*tokens(50, steered=0.4, asked=asked), *tokens(3, steered=1)])
    some["steered"]["strength"][:3] = [1, 1.0, None]
    assert page_sizes(some, lambda value: len(json.dumps(value)) + 2).tolist() == [
        len(json.dumps(token)) + 2 for token in page_tokens(some)
    ]
    assert page_tokens(some, [4, 9]) == [page_tokens(some)[4], page_tokens(some)[9]]


@pytest.fixture(scope="module")
def long():
    """20 arms and 12 problems of 8,000 tokens, and what a page has of them."""
    shown = long_run(8000)
    return shown, compact(shown)


def test_every_problem_and_arm_is_shown_and_the_page_stays_small(long, contents):
    shown, found = long
    assert len(found) == 12 and all(len(problem["arms"]) == 20 for problem in found)
    data = str(htmlsafe_json_dumps(found, sort_keys=True))
    assert BUDGET * 0.95 < len(data) <= BUDGET, "no room is wasted"
    page = render(contents["results"], contents["behaviours"], shown)
    assert f'"problems": {data}' in page
    assert len(page.encode()) < 2_200_000, "without the plotting library"
    assert "shown in part" in page
    assert "shown in part" not in render(contents["results"], contents["behaviours"], contents["shown"][:1])


def test_what_is_kept_is_what_was_there(long):
    shown, found = long
    for arm in found[0]["arms"]:
        answer = shown[0]["arms"][arm["name"]]
        if "tokens" not in arm:
            assert answer["text"].startswith(arm["text"]) and answer["text"].endswith(arm["end"])
            assert arm["left_out"] == len(answer["text"]) - len(arm["text"]) - len(arm["end"])
            assert len(arm["text"]) > 2000 and len(arm["end"]) > 2000
            continue
        whole, at = page_tokens(answer["tokens"]), 0
        for token in arm["tokens"]:
            assert isinstance(token, int) or token == whole[at]
            at += token if isinstance(token, int) else 1
        assert at == 8000
        assert arm["steered"] == sum(isinstance(token, list) and token[1] for token in whole)
        gaps = [i for i, token in enumerate(arm["tokens"]) if isinstance(token, int)]
        assert gaps[0] > 20 and gaps[-1] < len(arm["tokens"]) - 20, "both ends are kept"
        kept = arm["tokens"][gaps[0] + 1 : gaps[-1]]
        assert len(gaps) > 3 and any(isinstance(token, list) and token[1] for token in kept), "steered stretches too"
        assert max(arm["tokens"][i] for i in gaps) < 2000, "evenly over the trace"


def test_an_arm_that_is_steered_throughout_shows_parts_of_its_middle():
    arm = {"correct": True, "tokens": to_columns(tokens(4000, steered=1))}
    (problem,) = compact([{"arms": {"hybrid": arm}}], budget=40_000)
    shown = problem["arms"][0]["tokens"]
    gaps = [token for token in shown if isinstance(token, int)]
    assert len(gaps) > 3 and max(gaps) < 2000
    assert 38_000 < len(htmlsafe_json_dumps([problem])) <= 40_000


def test_text_that_takes_many_bytes_fits():
    text = "<'>" * 2000 + "数" * 2000 + "".join(token["text"] for token in tokens(5000))
    (problem,) = compact([{"arms": {"base": {"text": text, "correct": None}}}], budget=20_000)
    (arm,) = problem["arms"]
    assert len(htmlsafe_json_dumps([problem])) <= 20_000
    assert len(arm["text"]) > 1000 and len(arm["end"]) > 8000, "each end has half of the bytes"
    assert arm["text"] + text[len(arm["text"]) : -len(arm["end"])] + arm["end"] == text


def test_the_page_stays_small_with_many_problems(contents):
    problem = contents["shown"][0]
    for arm in problem["arms"].values():
        arm |= {"tokens": to_columns(arm["tokens"])} if "tokens" in arm else {}
    found = compact([problem] * 100, budget=900_000)
    assert len(found) == 100, "all are shown"
    assert len(htmlsafe_json_dumps(found)) <= 900_000
    few = compact([problem] * 100, budget=200_000)
    assert 25 < len(few) < 100, "with even less of each, nothing could be read"
    assert len(htmlsafe_json_dumps(few)) <= 200_000


def test_short_traces_are_whole():
    run = long_run(60, arms=3, problems=2)
    for problem, whole in zip(compact(run), run, strict=True):
        for arm in problem["arms"]:
            assert "left_out" not in arm and not any(isinstance(token, int) for token in arm.get("tokens", ()))
            if "tokens" in arm:
                assert arm["tokens"] == page_tokens(whole["arms"][arm["name"]]["tokens"])


def test_one_long_trace_leaves_the_short_ones_whole():
    run = [*long_run(60, arms=3, problems=2), *long_run(3000, arms=3, problems=1)]
    found = compact(run, budget=30_000)
    assert len(json.dumps(found)) <= 30_000
    assert not any("left_out" in arm for problem in found[:2] for arm in problem["arms"])
    assert any("left_out" in arm for arm in found[2]["arms"])


@pytest.mark.parametrize(
    "change",
    [
        {"emitted": [99]},
        {"base": {"at": [0], "text": []}},
        {"steered": {"at": [7], "behaviour": [1], "strength": [0.5]}},
        {"thinking": {"at": [0], "text": [-2]}},
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, change):
    arm = {"correct": True, "tokens": to_columns(tokens(3)) | change}
    (tmp_path / "shown.json").write_text(json.dumps([{"arms": {"hybrid": arm}}]))
    with pytest.raises(ProbeError, match=r"shown\.json: problem 0, hybrid: the columns of its tokens do not fit"):
        read_shown(tmp_path)


def test_a_loop_takes_little_and_its_end_is_shown():
    columns = to_columns([*tokens(300), *tokens(9, seed=5) * 900])
    arm = {"correct": False, "answer": None, "truncated": True, "think_end": None, "samples": 4, "tokens": columns}
    text = "Well. " + "No, no, wait. " * 900
    (problem,) = compact([{"arms": {"base": {"correct": None, "text": text}, "hybrid": arm}}])
    base, hybrid = problem["arms"]
    assert is_cut(base) and is_cut(hybrid) and len(htmlsafe_json_dumps([problem])) < 30_000
    assert hybrid["loop"][0] == 9 and 899 <= hybrid["loop"][1] <= 900 and base["loop"] == [14, 900]
    gaps = [token for token in hybrid["tokens"] if isinstance(token, int)]
    assert len(gaps) == 1 and isinstance(hybrid["tokens"][-1], str | list), "the end is there"
    assert len(hybrid["tokens"]) - 1 + gaps[0] == 300 + 8100
    assert hybrid["steered"] == len(columns["steered"]["at"]), "of the whole trace"
    assert (hybrid["samples"], hybrid["truncated"], hybrid["answer"]) == (4, True, None)
    assert base["text"].startswith("Well. No, no, wait. No") and base["end"].endswith("No, no, wait. ")
    assert len(base["text"]) + base["left_out"] + len(base["end"]) == len(text)


@pytest.mark.parametrize("problems", [1, 3])
def test_something_of_every_arm_is_shown_whatever_the_sizes(problems):
    """A question that is larger than the page, and answers of which not even the least fits."""
    text = "".join(f"<'{token['text']}>" for token in tokens(2000))
    arms = {f"arm-{i}": {"correct": True, "answer": "<" * 5000, "text": text} for i in range(40)}
    arms |= {f"tok-{i}": {"correct": True, "tokens": to_columns(tokens(900, seed=i))} for i in range(2)}
    run = [{"problem_id": "p", "question": "q" * 1_000_000, "answer": "7", "arms": arms}] * problems
    (problem, *_) = found = compact(run, budget=5000)
    assert len(found) == 1 and len(problem["question"]) < 10_000 and len(problem["arms"]) == 42
    for arm in problem["arms"]:
        if "tokens" in arm:
            assert len(arm["tokens"]) > 10 and not isinstance(arm["tokens"][0], int)
        else:
            assert len(arm["text"]) > 20 and len(arm["end"]) > 20 and 0 < len(arm["answer"]) <= 201


def test_the_thinking_of_an_arm_ends_where_its_tag_does():
    some = [{"text": text, "base": text, "thinking": text} for text in ("a", " b", "</think>", " 42")]
    arms = {"hybrid": {"tokens": to_columns(some), "think_end": 11}, "base": {"text": "ab</think>c", "think_end": 10}}
    found = {arm["name"]: arm for arm in compact([{"arms": arms}])[0]["arms"]}
    assert found["hybrid"]["thinking"] == 3 and found["base"]["thinking"] == 10
