"""Finding heads by what they attend to in random texts: induction, previous-token and duplicate-token heads."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.heads.attention import NEAR, Attention, receiver_heads
from probe.circuits.heads.table import HeadScores, HeadTable
from probe.errors import NotApplicable, ProbeError
from probe.hooks import Apply, edit
from probe.models import Model, all_sites, check_frequencies

_SHUFFLES = 20
"""How often a text's attention between sentences is shuffled for the null of receiver heads."""
_MEANINGS = {
    "induction": "attention to the token after the same token earlier, in repeated random tokens; "
    "null: the same distance without a repeat",
    "previous token": "attention to the token before, in random tokens; null: to the one before that",
    "duplicate token": "attention to the same token earlier, in repeated random tokens; "
    "null: the same distance without a repeat",
    "receiver": "kurtosis of the attention that sentences get from later ones; "
    "null: each later sentence's attention shuffled",
}


@torch.no_grad()
def find_heads(model: Model, *, n_texts: int = 16, length: int = 48, seed: int = 0) -> HeadTable:
    """Score every head as an induction, a previous-token and a duplicate-token head.

    A text is a row of random tokens, all different, that is read twice (Olsson et al., *In-context Learning and
    Induction Heads*, 2209.11895). The null has other random tokens in place of the first copy, so that a head that
    always attends so far back scores no higher than its null.

    Args:
        model: any model whose attention patterns can be read.
        n_texts: number of random texts. The smallest p value is 2 to the power of minus this number, times the heads.
        length: number of random tokens that are repeated.
        seed: seeds the tokens.

    Returns:
        A table with the kinds ``induction``, ``previous token`` and ``duplicate token``. Only blocks with attention
        patterns can have scores above 0.

    Raises:
        ProbeError: if the model has fewer ordinary tokens than two texts need, or no room for a text.
        NotApplicable: if no attention pattern of the model can be read.
    """
    if n_texts < 1 or length < 3:
        raise ProbeError(f"n_texts is {n_texts} and length {length}; give at least 1 text and 3 tokens")
    rows = random_texts(model, n_texts, length, seed)
    start = len(model.start_ids)
    second = slice(start + length, start + 2 * length)
    after, same = length - 1, length
    found: list[dict[str, Tensor]] = []
    for repeated, other in rows:
        mine, theirs = (
            _by_block(
                model, ids, lambda pattern: torch.stack([_back(pattern, back, second) for back in (after, same, 1, 2)])
            )
            for ids in (repeated, other)
        )
        found.append(
            {
                "induction": torch.stack([mine[:, 0], theirs[:, 0]]),
                "previous token": theirs[:, 2:].movedim(1, 0),
                "duplicate token": torch.stack([mine[:, 1], theirs[:, 1]]),
            }
        )
    kinds = []
    for kind in found[0]:
        values, nulls = torch.stack([each[kind] for each in found], 1)
        kinds.append(HeadScores.of(kind, _MEANINGS[kind], values, nulls, seed=seed))
    return HeadTable(model.name, tuple(kinds))


def random_texts(
    model: Model, n_texts: int, length: int, seed: int = 0
) -> list[tuple[Int[Tensor, " pos"], Int[Tensor, " pos"]]]:
    """Random texts of two equal halves, and the same with another first half; both begin with the start tokens.

    Args:
        model: its ordinary tokens are used.
        n_texts: number of texts.
        length: number of tokens of a half, all different.
        seed: seeds the tokens.
    """
    special = {*model.tokenizer.all_special_ids, *model.start_ids, *model.eos_ids}
    known = torch.tensor([i for i in range(min(len(model.tokenizer), model.n_embeddings)) if i not in special])
    if len(known) < 2 * length:
        raise ProbeError(
            f"{model.name} has {len(known)} ordinary tokens, and a text needs {2 * length}; make length smaller"
        )
    generator, begin = torch.Generator().manual_seed(seed), torch.tensor(model.start_ids, dtype=torch.long)
    found = []
    for _ in range(n_texts):
        half, other = known[torch.randperm(len(known), generator=generator)[: 2 * length]].view(2, length)
        found.append((torch.cat([begin, half, half]), torch.cat([begin, other, half])))
    model.check_ids([found[0][0].tolist()])
    check_frequencies(model.hf, len(found[0][0]))
    return found


def receiver_scores(model: Model, attentions: Sequence[Attention], *, seed: int = 0) -> HeadTable:
    """Score every head as a receiver head, which concentrates the attention of later sentences on a few earlier ones.

    The score is that of :func:`~probe.circuits.receiver_heads` (Bogdan et al., 2506.19143). In the null, the attention
    of each later sentence is shuffled over the sentences that count: a head whose sentences each attend to others
    concentrates no attention in common. About 16 texts are needed for a p value that survives the correction.

    Args:
        model: the model that the attention is of.
        attentions: attention by sentence over all blocks, one for each text, from
            :func:`~probe.circuits.sentence_attention`.
        seed: seeds the shuffles.

    Raises:
        ProbeError: if no text is long enough, or a text has not all blocks.
    """
    if any(each.layers != tuple(range(model.n_layers)) for each in attentions):
        raise ProbeError("receiver scores need the attention of all blocks; call sentence_attention without layers")
    generator = torch.Generator().manual_seed(seed)
    values, nulls = [], []
    for each in attentions:
        try:
            values.append(receiver_heads([each]).kurtosis)
        except ProbeError:  # too short to have a score
            continue
        shuffled = [_shuffled(each, generator) for _ in range(_SHUFFLES)]
        nulls.append(torch.stack([receiver_heads([one]).kurtosis for one in shuffled]).mean(0))
    if not values:
        raise ProbeError("no text has enough sentences for a receiver score; give longer texts")
    scores = HeadScores.of("receiver", _MEANINGS["receiver"], torch.stack(values), torch.stack(nulls), seed=seed)
    return HeadTable(model.name, (scores,))


def _shuffled(attention: Attention, generator: torch.Generator, near: int = NEAR) -> Attention:
    """The same attention with that of each sentence to those far before it in another order, for all heads alike."""
    patterns = attention.patterns.clone()
    for row in range(near + 1, patterns.shape[-1]):
        order = torch.randperm(row - near + 1, generator=generator)
        patterns[:, :, row, : row - near + 1] = patterns[:, :, row, order]
    return replace(attention, patterns=patterns)


def _back(pattern: Float[Tensor, "heads query key"], back: int, queries: slice) -> Float[Tensor, " heads"]:
    """The mean attention of some queries to the key a number of tokens before them."""
    at = torch.arange(queries.start, queries.stop, device=pattern.device)
    return pattern[:, at, at - back].float().mean(-1)


def _by_block(
    model: Model, ids: Int[Tensor, " pos"], reduce: Callable[[Tensor], Tensor]
) -> Float[Tensor, "layers *values heads"]:
    """Reduce the attention pattern of each block as soon as it is computed, in one pass; only one is held.

    Raises:
        NotApplicable: if the model has no attention pattern that can be read.
    """
    sites = [site for site in all_sites(model.hf, "pattern") if site.layer is not None]
    if not sites:
        raise NotApplicable(f"the attention patterns of {model.name} cannot be read")
    found: dict[int, Tensor] = {}

    def read(layer: int) -> Apply:
        def keep(pattern: Tensor) -> Tensor:
            found[layer] = reduce(pattern[0]).cpu()
            return pattern

        return Apply(keep)

    with edit(model, {site: read(site.layer) for site in sites if site.layer is not None}):
        model.hf(ids.to(model.device)[None], use_cache=False, logits_to_keep=1)
    some = next(iter(found.values()))
    return torch.stack([found.get(layer, torch.zeros_like(some)) for layer in range(model.n_layers)])
