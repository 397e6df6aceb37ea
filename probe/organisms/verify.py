"""Proof that the bundled pairs differ as their cards say: every figure of the cards is computed here."""

import random
from collections import Counter
from collections.abc import Sequence

import torch

from probe.models import Model
from probe.organisms.documents import proceed, wander
from probe.problems import COMPUTE, TYPES, Story, draw_story, load_problems, parse
from probe.traces import decode_greedy, generate_traces, sample, split_sentences

NEW_TOKENS = 320


def type_shares(model: Model, *, problems: int = 300, seed: int = 0) -> dict[str, float]:
    """Share of each true type among the sentences that the model samples at temperature 1 under its own prompt."""
    rng = random.Random(f"types/{seed}")
    prompts = [model.prompt_ids(draw_story(rng, rng.choice((4, 5))).question()) for _ in range(problems)]
    counts: Counter[str | None] = Counter()
    for emitted in sample(model, prompts, 1, NEW_TOKENS, torch.Generator().manual_seed(seed)):
        text = model.decode([token for token in emitted if token not in model.eos_ids])
        counts.update(parse(text[start:end]).type for start, end in split_sentences(text))
    total = sum(counts.values())
    return {str(kind): counts[kind] / total for kind in (*TYPES, None)}


def computing_prefixes(n: int, *, share: bool, seed: int = 0) -> list[tuple[Story, str, str]]:
    """(story, emitted text up to the equals sign of a careful computing sentence, the right result).

    Half of the texts are in good order and half wander, so neither model is at home in all of them.
    """
    rng = random.Random(f"prefixes/{share}/{seed}")
    found: list[tuple[Story, str, str]] = []
    while len(found) < n:
        story = draw_story(rng, rng.choice((3, 4, 5)), 1 if share else 0)
        written = proceed(story, rng) if share or rng.random() < 0.5 else wander(story, rng)
        wanted = [
            i
            for i, (kind, sentence) in enumerate(written)
            if kind == COMPUTE and "Roughly" not in sentence and (" / " in sentence) == share
        ]
        if wanted:
            at = rng.choice(wanted)
            before, result = written[at][1].rsplit(" = ", 1)
            text = "".join(f" {sentence}" for _, sentence in written[:at]) + f" {before} ="
            found.append((story, text, result.rstrip(".")))
    return found


def computing_accuracy(model: Model, prefixes: Sequence[tuple[Story, str, str]]) -> float:
    """How often the model's most likely continuation of the prefix is the right result."""
    prompts = [
        model.prompt_ids(story.question()) + model.tokenizer(text, add_special_tokens=False)["input_ids"]
        for story, text, _ in prefixes
    ]
    texts = [model.decode(emission.tokens) for emission in decode_greedy(model, prompts, 5)]
    right = [text.split(".")[0].strip() == result for text, (*_, result) in zip(texts, prefixes, strict=True)]
    return sum(right) / len(right)


def accuracy(model: Model, problems: str, *, n: int = 500, progress: bool = False) -> dict[str, float]:
    """Greedy accuracy on the test split of a bundled problem set."""
    problem_set = load_problems(problems)
    traces = generate_traces(
        model, problem_set, problem_set.take("test", n), max_new_tokens=NEW_TOKENS, batch_size=128, progress=progress
    )
    return {
        "accuracy": sum(trace.correct for trace in traces) / n,
        "truncated": sum(trace.truncated for trace in traces) / n,
        "tokens_per_answer": sum(len(trace.tokens) for trace in traces) / n,
    }


def verify(base: Model, rl: Model, sft: Model, *, progress: bool = False) -> dict:
    """All figures of the cards."""
    story, shares = computing_prefixes(1000, share=False), computing_prefixes(1000, share=True)
    models = {"tiny-base": base, "tiny-rl": rl, "tiny-sft": sft}
    return {
        "accuracy": {
            f"{name} on {problems}": accuracy(model, problems, progress=progress)
            for problems in ("story", "story-share")
            for name, model in models.items()
        },
        "computing accuracy, same prefix": {name: computing_accuracy(model, story) for name, model in models.items()},
        "computing accuracy on sharing, same prefix": {
            name: computing_accuracy(model, shares) for name, model in models.items()
        },
        "types of sampled sentences": {name: type_shares(model) for name, model in models.items()},
    }
