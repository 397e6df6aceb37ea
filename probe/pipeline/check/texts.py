"""The texts that a model is checked on: English prose, or the bundled story grammar where a tokenizer has no other."""

import random

from probe.models import Model
from probe.problems import CHECK, COMPUTE, CONCLUDE, PLAN, RESTATE, Work, draw_story, write

PROSE = (
    "The village lay at the foot of the hills, and every morning the baker was the first to light his lamp. He mixed "
    "the flour with water and salt, let the dough rest, and shaped it into loaves while the street was still dark. By "
    "six o'clock the smell of bread had reached the school at the end of the road, and the children who walked past "
    'stopped at his window. "How many loaves did you bake today?" one of them asked. "I bake twelve loaves on each '
    'tray, and I have three trays," said the baker, "so there are thirty-six loaves." The child thought for a moment. '
    '"Yesterday you sold twenty of them. If you sell twenty again, there will be sixteen left." The baker laughed and '
    "gave her a roll.\n\n"
    "Water boils at a lower temperature in the mountains than at the sea, because the pressure of the air falls as one "
    "climbs. At the sea it boils at one hundred degrees; at the top of a high mountain it may boil at eighty, and then "
    "an egg takes longer to cook, although the water is boiling just as hard. This is why cooks who live in the "
    "mountains use a pot with a tight lid: the steam cannot escape, the pressure in the pot rises, and the water "
    "becomes as hot as it does at the sea.\n\n"
    "In the evening the baker counted the loaves on the shelf, and there were sixteen, just as the child had said."
)
"""Prose with an everyday scene, an explanation and a little arithmetic, so that most language models predict it."""

PROBES = (
    "So 12 + 7 = 19. Wait, let me check: 19 - 7 = 12.",
    "Line one.\n\nLine two.\n\tIndented;  two spaces ",
    "   leading spaces, and a tab\tinside",
    "1234567890 3.14 1,000 50% $5",
    "café naïve 你好 Ω ≤ → 🙂",
    "cafe\N{COMBINING ACUTE ACCENT} 👩\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧 n\N{COMBINING TILDE}o",
    "\\boxed{\\frac{1}{2}} if x != y: return f(x)",
    " Lia loses 6 shells. Now 36 - 6 = 30. So the answer is 30.",
)
"""Texts that tokenizers are known to get wrong: line ends, spaces, combining characters, emoji. The last one is in the
grammar of the bundled models."""

Text = tuple[list[int], list[int]]
"""The ids of a prompt, and of the text after it that the model should predict."""


def own_texts(model: Model) -> list[Text]:
    """Return texts that a trained model predicts: prose, or solved stories if the tokenizer can write only those.

    Args:
        model: its tokenizer decides.

    Returns:
        The texts; none if the tokenizer can write neither.
    """
    if _writes(model, PROSE):
        ids = model.encode(PROSE)
        return [(ids[:1], ids[1:])]
    stories = [_story(random.Random(seed)) for seed in range(4)]
    if not _writes(model, " ".join(answer for _, answer in stories)):
        return []
    return [
        (model.encode(f"Problem: {question}\nSolution:"), model.encode(f" {answer}", start=False))
        for question, answer in stories
    ]


def _writes(model: Model, text: str) -> bool:
    """Whether a tokenizer has tokens for a text."""
    ids, unknown = model.encode(text, start=False), unknown_ids(model)
    return bool(ids) and sum(i in unknown for i in ids) * 50 < len(ids)


def unknown_ids(model: Model) -> set[int]:
    """The ids that stand for text that a tokenizer has no token for."""
    tokenizer = model.tokenizer
    named = getattr(tokenizer.backend_tokenizer.model, "unk_token", None)
    ids = (tokenizer.unk_token_id, None if named is None else tokenizer.convert_tokens_to_ids(named))
    return {i for i in ids if isinstance(i, int)}


def _story(rng: random.Random) -> tuple[str, str]:
    """A problem of the story grammar and its solution in good order."""
    story = draw_story(rng, 4, 0)
    work = Work(story)
    written = [write(PLAN, work, rng)]
    while not work.finished:
        written += [write(kind, work, rng) for kind in (RESTATE, COMPUTE, CHECK)]
    return story.question(), " ".join([*written, write(CONCLUDE, work, rng)])
