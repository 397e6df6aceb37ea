"""Traces of thousands of tokens: the page shows every problem and arm in few bytes, and ``shown.json`` is small."""

import json
import random

import pytest

from probe.errors import ProbeError
from probe.reports import to_columns, write_report
from probe.reports.run.columns import page_tokens
from probe.reports.run.files import read_shown
from probe.reports.run.shown import BUDGET, compact

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


@pytest.mark.slow
def test_every_problem_and_arm_is_shown_and_the_page_stays_small(write_run, contents):
    contents["shown"] = long_run(8000)
    path = write_report(write_run(contents))
    assert path.stat().st_size < 2_200_000, "without the plotting library"
    found = compact(contents["shown"])
    assert len(found) == 12 and all(len(problem["arms"]) == 20 for problem in found)
    assert len(json.dumps(found)) <= BUDGET
    for arm in found[0]["arms"]:
        if "tokens" not in arm:
            assert arm["left_out"] + len(arm["text"]) + len(arm["end"]) == len(
                contents["shown"][0]["arms"]["base"]["text"]
            )
            continue
        whole = page_tokens(contents["shown"][0]["arms"][arm["name"]]["tokens"])
        shown = arm["tokens"]
        at = 0
        for token in shown:  # what is kept is what was there, in order
            assert isinstance(token, int) or token == whole[at]
            at += token if isinstance(token, int) else 1
        assert at == 8000
        assert not isinstance(shown[0], int) and not isinstance(shown[-1], int), "both ends are kept"
        inner = [i for i, token in enumerate(shown) if isinstance(token, int)]
        kept = shown[inner[0] + 1 : inner[-1]]
        assert len(inner) > 3 and any(isinstance(token, list) and token[1] for token in kept), "steered stretches too"


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
