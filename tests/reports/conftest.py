"""A run folder as ``probe run`` writes it, made up but alike: story problems, behaviours, every arm."""

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probe.problems.story.sentences import (
    CHAT,
    CHECK,
    COMPUTE,
    CONCLUDE,
    PLAN,
    REDO,
    RESTATE,
    TYPES,
    Work,
    parse,
    write,
)
from probe.problems.story.story import Story, draw_story

ACCURACY = {
    "base": (0.213, 0.0),
    "thinking": (0.937, 0.0),
    "hybrid": (0.803, 0.182),
    "single-vector": (0.493, 0.214),
    "random-category": (0.357, 0.231),
    "random-vectors": (0.187, 0.246),
    "random-positions": (0.23, 0.182),
    "rerank-only": (0.413, 0.2),
    "force-token": (0.937, 0.17),
}
LABELS = {
    PLAN: "Let us, plan, story",
    RESTATE: "Next, Then, more, sells",
    COMPUTE: "That makes, Now, =",
    CHECK: "Check that, right, wrong",
    REDO: "Again, Redo it",
    CONCLUDE: "</think> The answer is",
    CHAT: "It is fun, weather, likes",
}
N = 300


def results() -> dict[str, Any]:
    base, thinking = ACCURACY["base"][0], ACCURACY["thinking"][0]

    def gap(accuracy: float) -> dict[str, Any]:
        value = (accuracy - base) / (thinking - base)
        return {"value": value, "ci": [value - 0.06, value + 0.06]}

    return {
        "schema": 1,
        "pair": "tiny-rl",
        "problems": {"name": "story", "split": "test", "n": N},
        "seed": 0,
        "arms": {
            name: {
                "accuracy": accuracy,
                "ci": [max(0.0, accuracy - 0.045), min(1.0, accuracy + 0.045)],
                "n": N,
                "tokens_per_answer": 120 + 40 * accuracy,
                "truncated": 0.01 if name == "random-vectors" else 0.0,
                "steered_fraction": steered,
                "seconds": 4.2 + 20 * steered,
            }
            for name, (accuracy, steered) in ACCURACY.items()
        },
        "gap_recovered": {
            name: gap(accuracy) for name, (accuracy, _) in ACCURACY.items() if name not in ("base", "thinking")
        },
        "seeds": {
            "values": [0, 1, 2],
            "hybrid": [{"accuracy": a, "gap_recovered": gap(a)} for a in (0.803, 0.783, 0.82)],
            "mean": 0.817,
            "sd": 0.026,
        },
        "oracle": {
            "bits_per_token": 0.94,
            "bits_per_steered_token": 5.16,
            "fitted_parameters": 17_671,
            "fitted_parameters_single": 9_345,
        },
        "taxonomy": {"site": "resid_post.2", "k": 8, "variance_explained": 0.71, "stability": 0.94, "ami": 0.88},
        "settings": {"steering_site": "resid_post.1", "device": "cpu", "dtype": "float32"},
    }


def sentences(story: Story, rng: random.Random, *, hasty: float, stop: float) -> list[str]:
    """A trace by the grammar that may conclude too early, one string a sentence."""
    work, found = Work(story), [" " + write(PLAN, Work(story), rng)]
    while len(found) < 30:
        kinds = set(work.available()) - {CONCLUDE}
        kind = next((k for k in (REDO, CHECK, COMPUTE, RESTATE) if k in kinds), CONCLUDE)
        if kind == CHECK and rng.random() < 0.5:
            kind = RESTATE if RESTATE in kinds else CONCLUDE
        if rng.random() < stop:
            kind = rng.choice([CHAT, CONCLUDE])
        found.append(" " + write(kind, work, rng, hasty=hasty))
        if kind == CONCLUDE:
            break
    return found


def trace(story: Story, name: str, rng: random.Random) -> dict[str, Any]:
    accuracy, steered = ACCURACY[name]
    right = rng.random() < accuracy
    written = sentences(story, rng, hasty=0.0 if right else 0.6, stop=0.0 if right else 0.15)
    text = "".join(written)
    arm: dict[str, Any] = {"text": text, "correct": text.endswith(f" {story.answer}.")}
    if name in ("base", "thinking"):
        return arm
    arm["tokens"] = []
    for sentence in written:
        kind = parse(sentence).type or CHAT
        for i, token in enumerate(re.findall(r"</think>| ?[A-Za-z]+| ?\d|[^\w]", sentence)):
            steer = rng.random() < steered * (3.4 if i < 2 else 0.6)
            other = rng.choice([" So", " It", " By", " The", " Roughly", "7", " Let"])
            arm["tokens"].append(
                {
                    "text": token,
                    "steered": steer,
                    "behaviour": TYPES.index(kind) if steer else None,
                    "strength": round(rng.lognormvariate(0, 0.5), 3) if steer else None,
                    "base": other if steer else token,
                    "thinking": token if rng.random() < 0.9 else " Then",
                }
            )
    return arm


def shown(n: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(n):
        rng = random.Random(i)
        story = draw_story(rng, 5)
        rows.append(
            {
                "problem_id": f"story/test/{i}",
                "question": story.question(),
                "answer": str(story.answer),
                "arms": {name: trace(story, name, rng) for name in ACCURACY},
            }
        )
    return rows


def behaviours() -> list[dict[str, Any]]:
    rng = random.Random(0)
    members: dict[str, list[str]] = {kind: [] for kind in TYPES}
    for _ in range(40):
        for sentence in sentences(draw_story(rng, 5), rng, hasty=0.5, stop=0.1):
            members[parse(sentence).type or CHAT].append(sentence)
    total = sum(map(len, members.values()))
    cards = [
        {
            "behaviour": i,
            "label": LABELS[kind],
            "share": len(members[kind]) / total,
            "true_type": kind,
            "true_share": 0.99 - 0.02 * i,
            "examples": members[kind][:6],
            "vector_norm": 2.1 + 0.3 * i,
            "mean_strength": 0.8 + 0.1 * i,
            "gates": len(members[kind]) * 12,
        }
        for i, kind in enumerate(TYPES)
    ]
    dead = {"behaviour": 7, "label": "", "share": 0.0, "true_type": None, "true_share": None, "examples": []}
    return [*cards, {**dead, "vector_norm": 1.9, "mean_strength": None, "gates": 0}]


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """Pages without the plotting library, which is 4.8 MB and takes seconds to parse; one test of each page has it."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "plotting")


WriteRun = Callable[..., Path]


@pytest.fixture(scope="session")
def example() -> dict[str, Any]:
    """The contents of the three files of a run, by name; do not change them, copy them."""
    return {"results": results(), "behaviours": behaviours(), "shown": shown(12)}


@pytest.fixture
def contents(example: dict[str, Any]) -> dict[str, Any]:
    """The same, to be changed at will."""
    return copy.deepcopy(example)


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """``write_run(contents) -> Path``: a folder with one JSON file for each key."""

    def make(contents: dict[str, Any]) -> Path:
        for name, content in contents.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return make
