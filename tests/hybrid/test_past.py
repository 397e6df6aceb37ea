"""The history of each row, kept token by token, against what is read from the whole text."""

import torch

from probe.hybrid import Closing
from probe.hybrid.past import HistoryState

STEPS, ITEMS, VOCAB = 60, 9, 4
A, B = 1, 2
"""The letters of the tag "ab" among the tokens."""


def tag() -> Closing:
    """The tag "ab" in a vocabulary of single letters: states none, "a" and found; the last column is no token."""
    steps = torch.zeros(3, VOCAB + 1, dtype=torch.int16)
    steps[:2, A], steps[1, B], steps[2] = 1, 2, 2
    return Closing("ab", steps)


def test_history_is_that_of_the_whole_text_in_any_order_of_rows():
    random, close = torch.Generator().manual_seed(0), tag()
    state = HistoryState(ITEMS, [close], torch.device("cpu"))
    texts: list[list[int]] = [[] for _ in range(ITEMS)]
    gates: list[list[bool]] = [[] for _ in range(ITEMS)]
    found = 0
    for step in range(STEPS):
        items = torch.randperm(ITEMS, generator=random)[: int(torch.randint(1, ITEMS, (1,), generator=random))]
        if step == STEPS // 2:  # an item that is decoded again begins anew
            texts[int(items[0])], gates[int(items[0])] = [], []
        counts = torch.tensor([len(texts[item]) for item in items])
        last = torch.tensor([texts[item][-1] if texts[item] else -1 for item in items])
        history = state.advance(items, counts, last)
        for at, item in enumerate(items.tolist()):
            tokens, steered = texts[item], gates[item]
            ends = [end for end in range(2, len(tokens) + 1) if tokens[end - 2 : end] == [A, B]]
            assert history.closed[close][at] == (ends[0] if ends else 0)
            assert history.own[at] == max((end for end, each in enumerate(steered, 1) if not each), default=0)
            assert history.first[at] == (tokens[0] if tokens else -1)
            assert history.first_steered[at] == (steered[0] if tokens else False)
            found += bool(ends)
        gate = torch.rand(len(items), generator=random) < 0.5
        state.steer(items, counts, gate)
        for item, is_open in zip(items.tolist(), gate.tolist(), strict=True):
            texts[item].append(int(torch.randint(0, VOCAB, (1,), generator=random)))
            gates[item].append(is_open)
    assert found > 50
