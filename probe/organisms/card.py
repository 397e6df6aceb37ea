"""The cards of the bundled models: what each is, made by which command, measured how, under which licence."""

from pathlib import Path

from probe.files import write_text

_WHAT = {
    "tiny-base": """\
The base model of both bundled pairs: a Llama of 1.1 M parameters pretrained on story arithmetic in which every type of
sentence occurs and each is written competently, but *when* it occurs is nearly random, and conclusions often come too
early. One story in eight holds a sharing (exact division), which the base meets and restates but never sees computed.
Three documents in ten are drills of single computing sentences.""",
    "tiny-rl": """\
`tiny-base` after reinforcement learning with the final answer as the only reward: no demonstration, no reward for form
or length. It learned *when*.""",
    "tiny-sft": """\
`tiny-base` after supervised training on well-ordered traces that contain one operation, sharing equally (exact
division), whose computing sentence the base has never seen. It learned *how* (and the order).""",
}

_HOW = """\
Made by `probe organism --seed {seed}` (recipe: `probe/organisms/`). The data are drawn from seeds by
`probe/problems/story/story.py` and `probe/organisms/documents.py`. Licence: Apache-2.0.

## Measured

Computed by the same command (`probe/organisms/verify.py`). Accuracy: greedy, 500 test problems of the bundled sets,
drawn from seeds that training does not use. Computing accuracy: greedy result of 1,000 computing sentences given the
same prefix. Types: 300 problems sampled at temperature 1.
"""


def write_cards(out: Path, figures: dict, *, seed: int) -> None:
    """Write ``README.md`` beside each model from the figures of :func:`~probe.organisms.verify.verify`.

    What holds for one build and not for the recipe is written by hand, in ``remarks.md`` beside the model; where it is
    there the card ends with it.
    """
    for name, what in _WHAT.items():
        remarks = out / name / "remarks.md"
        added = "\n" + remarks.read_text(encoding="utf-8") if remarks.exists() else ""
        write_text(out / name / "README.md", card(name, what, figures, seed) + added)


def card(name: str, what: str, figures: dict, seed: int) -> str:
    """One card, in Markdown."""
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
