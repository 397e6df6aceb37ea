"""Writes the model cards of the bundled models: origin, command, measurements and licence."""

from pathlib import Path

from probe.files import write_text

_WHAT = {
    "tiny-base": """\
The base model of both bundled pairs: a Llama of 1.1 M parameters pretrained on story arithmetic. Every type of sentence
occurs in its training data and is written competently, but *when* it occurs is nearly random, and conclusions often
come too early. One story in eight contains a sharing (exact division), which the base reads and restates but never sees
computed. Three documents in ten are drills of single computing sentences.""",
    "tiny-rl": """\
`tiny-base` after reinforcement learning with the final answer as the only reward, without demonstrations and without a
reward for form or length. It learned *when*.""",
    "tiny-sft": """\
`tiny-base` after supervised training on well-ordered traces that contain an operation, sharing equally (exact
division), whose computing sentence the base has never seen. It learned *how* (and the order).""",
}

_HOW = """\
Made by `probe organism --seed {seed}` (recipe: `probe/organisms/`). The data are generated from seeds
by `probe/problems/story/story.py` and `probe/organisms/documents.py`. Licence: Apache-2.0.

## Measured

Computed by the same command (`probe/organisms/verify.py`). Accuracy: greedy, 500 test problems of the bundled sets,
whose seeds training does not use. Computing accuracy: greedy result of 1,000 computing sentences given the
same prefix. Types: 300 problems sampled at temperature 1.
"""


def write_cards(out: Path, figures: dict, *, seed: int) -> None:
    """Write ``README.md`` into the folder of each bundled model.

    Remarks that hold for one build and not for the recipe are written by hand in ``remarks.md`` beside the model, and
    are appended to its card.

    Args:
        out: the folder that holds one folder for each model.
        figures: from :func:`~probe.organisms.verify.verify`.
        seed: the seed of the build, which the card names.
    """
    for name, what in _WHAT.items():
        remarks = out / name / "remarks.md"
        added = "\n" + remarks.read_text(encoding="utf-8") if remarks.exists() else ""
        write_text(out / name / "README.md", card(name, what, figures, seed) + added)


def card(name: str, what: str, figures: dict, seed: int) -> str:
    """The text of one card, in Markdown.

    Args:
        what: a paragraph that says what the model is.
        figures: from :func:`~probe.organisms.verify.verify`.
        seed: the seed of the build.
    """
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: transformers",
        "---",
        "",
        f"# {name}",
        "",
        what,
        "",
        _HOW.format(seed=seed),
        "| | tiny-base | tiny-rl | tiny-sft |",
        "|---|---|---|---|",
    ]
    for problems in ("story", "story-share"):
        for what_, key in (
            ("accuracy", "accuracy"),
            ("truncated", "truncated"),
            ("tokens an answer", "tokens_per_answer"),
        ):
            cells = [figures["accuracy"][f"{model} on {problems}"][key] for model in _WHAT]
            shape = "{:.1f}" if key == "tokens_per_answer" else "{:.1%}"
            lines.append(f"| {what_} on `{problems}` | " + " | ".join(shape.format(cell) for cell in cells) + " |")
    for key in ("computing accuracy, same prefix", "computing accuracy on sharing, same prefix"):
        lines.append(f"| {key} | " + " | ".join(f"{figures[key][model]:.1%}" for model in _WHAT) + " |")
    shares = figures["types of sampled sentences"]
    lines += [
        f"| share of sampled sentences: {'no known type' if kind == 'None' else kind} | "
        + " | ".join(f"{shares[model][kind]:.1%}" for model in _WHAT)
        + " |"
        for kind in shares["tiny-base"]
    ]
    return "\n".join(lines) + "\n"
