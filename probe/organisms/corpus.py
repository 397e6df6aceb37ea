"""The training data of the bundled models: random documents, tokenized and packed into batches."""

import random
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from probe.organisms.documents import EARLY_HABITS, HABITS, Habits, join, proceed, wander
from probe.organisms.tokenizer import BASE_PROMPT, DRILL_PROMPT, EOS, PAD, THINKING_PROMPT
from probe.problems import COMPUTE, Work, draw_story, write

#: A document: its prompt, which carries no loss, and the text that follows, which does.
Document = tuple[str, str]

Batch = tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]

IGNORE = -100
POOL_SIZE = 2048
"""Number of documents in a pool; training is checkpointed between pools."""
#: Numbers of changes in the stories of training; the bundled problem sets hold only the longer ones.
SIZES = (1, 2, 3, 4, 5, 6)


def early_document(rng: random.Random) -> Document:
    """A document of the first stage of pretraining: as :func:`pretraining_document`, with the early habits."""
    return pretraining_document(rng, EARLY_HABITS)


def pretraining_document(rng: random.Random, habits: Habits = HABITS) -> Document:
    """A document of the second stage of pretraining: wandering work under either prompt, or a drill of single steps.

    One story in eight contains a sharing, which the base reads and restates but never sees computed.
    """
    if rng.random() < 0.3:
        return DRILL_PROMPT, drill(rng)
    n_changes = rng.choice(SIZES)
    story = draw_story(rng, n_changes, 1 if rng.random() < 0.125 else 0)
    prompt = BASE_PROMPT if rng.random() < 0.7 else THINKING_PROMPT
    return prompt.format(question=story.question()), join(wander(story, rng, habits))


def drill(rng: random.Random, equations: int = 16) -> str:
    """Computing sentences from unrelated stories, one from each."""
    written = []
    for _ in range(equations):
        story = draw_story(rng, 1)
        work = Work(story, skills="+-*")
        work.pending = story.changes[0]
        written.append((COMPUTE, write(COMPUTE, work, rng)))
    return join(written)


def taught_document(rng: random.Random) -> Document:
    """A document for ``tiny-sft``: an ordered trace of a story with one or two sharings, under the thinking prompt."""
    story = draw_story(rng, rng.choice((3, 4, 5)), rng.choice((1, 2)))
    return THINKING_PROMPT.format(question=story.question()), join(proceed(story, rng))


def pool_batches(
    document: Callable[[random.Random], Document],
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    pool: int,
    tokens_per_batch: int = 2048,
) -> list[Batch]:
    """Make the batches of one pool of documents.

    Args:
        document: writes one document.
        tokenizer: the tokenizer of the trained model.
        seed: seeds the documents, together with ``pool``, so that an interrupted run resumes with the same batches.
        pool: the number of the pool.
        tokens_per_batch: the maximum number of tokens of a batch, rows times width.

    Returns:
        Batches in random order, each an (ids, labels) pair of right-padded documents of similar length. Labels are -100
        at the prompt and at padding.
    """
    rng = random.Random(f"{seed}/{pool}")
    vocab = tokenizer.get_vocab()
    rows = []
    for _ in range(POOL_SIZE):
        prompt, text = document(rng)
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tail = [*tokenizer(text, add_special_tokens=False)["input_ids"], vocab[EOS]]
        rows.append((head + tail, [IGNORE] * len(head) + tail))
    rows.sort(key=lambda row: len(row[0]))
    packed, batch = [], []
    for row in rows:
        if batch and len(row[0]) * (len(batch) + 1) > tokens_per_batch:
            packed.append(batch)
            batch = []
        batch.append(row)
    packed.append(batch)
    rng.shuffle(packed)
    return [_pad(batch, vocab[PAD]) for batch in packed]


def _pad(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    width = len(rows[-1][0])
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORE)
    for i, (row_ids, row_labels) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        labels[i, : len(row_labels)] = torch.tensor(row_labels)
    return ids, labels
