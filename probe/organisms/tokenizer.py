"""The bundled models' tokenizer: whole words and single digits, each with the space before it.

Joining the pieces gives back the text exactly, so character and token offsets agree without clean-up.
"""

import random
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from probe.organisms.documents import join, proceed, wander
from probe.problems import CLOSE, ORDINALS, draw_story

PAD, EOS, UNK, OPEN = "<pad>", "<eos>", "<unk>", "<think>"
_PIECE = r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s"

BASE_PROMPT = "Problem: {question}\nSolution:"
THINKING_PROMPT = f"Question: {{question}}\nThink first, then answer.\n{OPEN}"
DRILL_PROMPT = "Drill:"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of the story grammar, which knows every word that the grammar can write.

    Every call returns an equal tokenizer.
    """
    rng = random.Random(0)
    texts = [BASE_PROMPT, THINKING_PROMPT, DRILL_PROMPT]
    for _ in range(4000):
        story = draw_story(rng, len(ORDINALS), 1)
        texts += [" " + story.question(), join(proceed(story, rng)), join(wander(story, rng))]
    words = {piece for text in texts for piece in re.findall(_PIECE, text.replace(CLOSE, "").replace(OPEN, ""))}
    words |= {f"{space}{digit}" for space in ("", " ") for digit in range(10)} | {" /", "\n", " "}
    vocab = {piece: i for i, piece in enumerate([PAD, EOS, UNK, OPEN, CLOSE, " " + CLOSE, *sorted(words)])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf" ?{CLOSE}|{_PIECE}"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[OPEN],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
