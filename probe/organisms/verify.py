"""Computes every figure of the model cards, which show how the bundled pairs differ."""

import random
from collections import Counter
from collections.abc import Sequence

from probe.models import Model
from probe.organisms.documents import proceed, wander
from probe.problems import COMPUTE, TYPES, Story, draw_story, load_problems, parse
from probe.traces import decode_greedy, generate_traces, sample_each, split_sentences

NEW_TOKENS = 320


def type_shares(model: Model, *, problems: int = 300, seed: int = 0) -> dict[str, float]:
    """Measure the share of each true type among sentences sampled at temperature 1.

    Args:
        model: samples under its own prompt.
        problems: number of random problems, with one sample each.
        seed: seeds problems and samples.

    Returns:
        The share of each type; "None" is the share of sentences that the grammar cannot write.
    """
    rng = random.Random(f"types/{seed}")
    prompts = [model.prompt_ids(draw_story(rng, rng.choice((4, 5))).question()) for _ in range(problems)]
    counts: Counter[str | None] = Counter()
    for (emitted,) in sample_each(model, prompts, 1, NEW_TOKENS, seed=seed):
        text = model.decode(emitted)
        counts.update(parse(text[start:end]).type for start, end in split_sentences(text))
    total = sum(counts.values())
    return {str(kind): counts[kind] / total for kind in (*TYPES, None)}


def computing_prefixes(n: int, *, share: bool, seed: int = 0) -> list[tuple[Story, str, str]]:
    """Make texts that end at the equals sign of a computing sentence that is no hasty guess.

    Without sharing, half of the texts are in good order and half wander, so that neither model is used to all of them.

    Args:
        n: number of texts.
        share: whether the computing sentence is a sharing.
        seed: seeds stories and texts.

    Returns:
        (story, emitted text, right result) for each text.
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
    """Share of prefixes whose greedy continuation is the right result.

    Args:
        model: continues the texts under its own prompt.
        prefixes: from :func:`computing_prefixes`.
    """
    prompts = [
        model.prompt_ids(story.question()) + model.tokenizer(text, add_special_tokens=False)["input_ids"]
        for story, text, _ in prefixes
    ]
    texts = [model.decode(emission.tokens) for emission in decode_greedy(model, prompts, 5)]
    right = [text.split(".")[0].strip() == result for text, (*_, result) in zip(texts, prefixes, strict=True)]
    return sum(right) / len(right)


def accuracy(model: Model, problems: str, *, n: int = 500, progress: bool = False) -> dict[str, float]:
    """Measure greedy accuracy on the test split of a bundled problem set.

    Args:
        model: answers under its own prompt.
        problems: name of the problem set.
        n: number of problems.
        progress: show a progress bar.

    Returns:
        ``accuracy``, ``truncated`` (share of answers cut at the token limit) and ``tokens_per_answer``.
    """
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
    """Compute all figures of the model cards, as ``artifacts/figures.json`` holds them."""
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
