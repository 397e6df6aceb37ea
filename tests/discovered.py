"""A made-up discovery: story traces, behaviours with cards, and a grid of candidates."""

import random
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

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
from probe.problems.story.story import draw_story
from probe.taxonomy.annotated import AnnotatedTraces
from probe.taxonomy.map import behaviour_map
from probe.traces import Sentence, Trace, Traces

NAMES = {
    PLAN: "Let us, plan, story",
    RESTATE: "Next, Then, more, sells",
    COMPUTE: "That makes, Now, =",
    CHECK: "Check that, right, wrong",
    REDO: "Again, Redo it",
    CONCLUDE: "</think> The answer is",
    CHAT: "It is fun, weather, likes",
}


def trace_of(sentences: list[str], correct: bool = True, failed: bool = False, name: str = "story/test/0") -> Trace:
    """A trace made of these sentences, a token each."""
    edges = np.cumsum([0, *map(len, sentences)]).tolist()
    spans = tuple(Sentence(edges[i], edges[i + 1], i, i + 1) for i in range(len(sentences)))
    tokens = tuple(range(len(sentences)))
    return Trace(name, "Q:", tokens, "".join(sentences), spans, None, None, correct, truncated=False, failed=failed)


def annotated(n: int = 24, seed: int = 0) -> AnnotatedTraces:
    """Story traces whose behaviours are nearly the true types; every fifth is hasty and mostly wrong."""
    rng = random.Random(seed)
    traces, behaviours = [], []
    for number in range(n):
        hasty = number % 5 == 4
        story = draw_story(rng, rng.randint(2, 6))
        work, texts = Work(story), [" " + write(PLAN, Work(story), rng)]
        while len(texts) < 30 and not texts[-1].startswith(" </think>"):
            kinds = work.available()
            kind = next((k for k in (REDO, CHECK, COMPUTE, RESTATE) if k in kinds), CONCLUDE)
            if kind == CHECK and rng.random() < 0.5:
                kind = RESTATE if RESTATE in kinds else CONCLUDE
            kind = CHAT if rng.random() < (0.2 if hasty else 0.06) else kind
            texts.append(" " + write(kind, work, rng, hasty=0.7 if hasty else 0.15))
        right = texts[-1].rstrip(".").endswith(f" {story.answer}")
        traces.append(trace_of(texts, right, failed=number == 7, name=f"story/test/{number}"))
        types = [TYPES.index(parse(text).type or CHAT) for text in texts]
        noisy = [rng.randrange(7) if rng.random() < 0.04 else kind for kind in types]
        behaviours.append(tuple(None if rng.random() < 0.02 else kind for kind in noisy))
    return AnnotatedTraces(Traces("tiny-rl", "story", traces), tuple(behaviours), tuple(NAMES[kind] for kind in TYPES))


def card(verdict: str, rng: random.Random) -> dict[str, Any]:
    def rate(value: float, control: float, n: int = 100) -> dict[str, Any]:
        value = min(0.99, max(0.01, value + rng.uniform(-0.03, 0.03)))
        return {
            "n": n,
            "rate": value,
            "ci": [max(0, value - 0.07), min(1, value + 0.07)],
            "control": control,
            "examples": ["Again, it is fun."],
        }

    state = verdict == "state"
    reasons = {
        "state": "fires in 2% [0, 7] of other sentences that its cue was put into, and in 94% [87, 97] without it",
        "cue": "fires in 81% [72, 88] of other sentences that its cue was put into, against 3% for other words",
        "undecided": "only 9 sentences, where 20 are needed",
    }
    return {
        "verdict": verdict,
        "reasons": [reasons[verdict]],
        "injection": rate(0.02 if state else 0.8, 0.02),
        "removal": rate(0.94 if state else 0.2, 0.97),
        "paraphrase": None if verdict == "undecided" else rate(0.9 if state else 0.3, 0.95) | {"control": None},
        "stability": {"n": 80, "mean": 0.86, "ci": [0.8, 0.9], "stable": 0.7, "expected": 0.2},
        "content": rate(0.97, 0.0) | {"control": None},
    }


def found() -> dict[str, Any]:
    """The contents of a ``discover.json``."""
    rng, example = random.Random(0), annotated()
    records = example.records(sentence_type=lambda text: parse(text).type)
    rows = [sentence for record in records for sentence in record["sentences"]]
    texts, given = [row["text"] for row in rows], [row["behaviour"] for row in rows]
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 16, generator=generator)
    kinds = torch.tensor([0 if each is None else each for each in given])
    vectors = centres[kinds] + 0.35 * torch.randn(len(rows), 16, generator=generator)
    usage = example.usage()
    verdicts = ["state", "state", "state", "state", "undecided", "cue", "cue"]
    behaviours = [
        {
            "behaviour": i,
            "name": "checks a result" if i == 3 else NAMES[kind],
            "label": NAMES[kind],
            "description": "Goes over a result that was just computed and says whether it is right."
            if i == 3
            else None,
            "note": "only arithmetic is ever checked" if i == 3 else None,
            "merged_into": None,
            "share": usage.all.share[i],
            "true_type": kind,
            "true_share": 0.99 - 0.02 * i,
            "examples": list(dict.fromkeys(text for text, each in zip(texts, given, strict=True) if each == i))[:6],
            "terms": NAMES[kind].split(", "),
            "decodability": 0.99 - 0.01 * i,
            "centroid_f1": 0.98 - 0.02 * i,
            "text_f1": 0.97 - 0.01 * i,
            "card": card(verdicts[i], rng),
        }
        for i, kind in enumerate(TYPES)
    ]
    grid = [
        {
            "site": site,
            "family": family,
            "size": size,
            "seeds": [0, 1, 2],
            "score": 0.8 - 0.02 * abs(size - 6) - 0.02 * abs(j - 2) - 0.03 * k,
            "variance_explained": (0.45 + 0.035 * size**0.7 * (1 + j / 9)) if "sae" not in family else None,
            "stability": max(0.3, 0.96 - 0.03 * abs(size - 7) - 0.05 * k + rng.uniform(-0.03, 0.03)),
            "agreement": max(0.3, 0.93 - 0.04 * abs(size - 7) - 0.04 * k + rng.uniform(-0.03, 0.03)),
            "silhouette": 0.5 - 0.02 * size,
            "decodability": 0.99 - 0.004 * size - 0.01 * k,
            "centroid_f1": 0.97 - 0.006 * size - 0.01 * k,
            "ami": 0.8 - 0.02 * abs(size - 7),
            "passes": size in (6, 8) and k < 3,
            "chosen": (site, family, size) == ("resid_post.2", "topk", 6),
        }
        for j, site in enumerate(("resid_post.0", "resid_post.1", "resid_post.2", "resid_post.3"))
        for k, family in enumerate(("topk", "batch-topk", "spherical-kmeans", "gaussian-mixture", "delimiter-sae"))
        for size in (4, 6, 8, 10, 12)
    ]
    return {
        "schema": 1,
        "model": "tiny-rl",
        "problems": {"name": "story", "train": 400, "validation": 120},
        "taxonomy": {
            "site": "resid_post.2", "family": "topk", "n_behaviours": 7, "seed": 0,
            "rule": "the smallest size that explains at least 85% of what the best size explains and is stable",
            "variance_explained": 0.7, "stability": 0.85, "agreement": 0.9, "silhouette": 0.5, "decodability": 0.97,
            "centroid_f1": 0.95, "ami": 0.85,
        },
        "grid": grid,
        "behaviours": behaviours,
        "usage": asdict(usage),
        "transitions": {
            "counts": example.transitions().tolist(),
            "start": example.starts().tolist(),
            "end": example.ends().tolist(),
        },
        "traces": records,
        "falsify": {"rule": "cue: it follows its words. state: it does not. undecided: all else"},
        "map": behaviour_map(vectors, given).record(texts),
        "counters": {
            "scheme": "story",
            "names": ["verification", "backtracking", "subgoal setting", "backward chaining"],
            "mean": [1.62, 0.71, 1.0, 0.0],
            "ci": [[1.4, 1.8], [0.5, 0.9], [1.0, 1.0], None],
        },
        "judge": {
            "name": "scripted", "consistency": 0.91, "completeness": 0.83, "independence": 0.95, "asked": 640,
            "failed": 12,
        },
    }  # fmt: skip
