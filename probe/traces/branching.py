"""Samples that continue one text from many of its places, as a tree: what several samples share is run once.

The samples are those of :func:`~probe.traces.sampling.stream_samples`, token by token, because each has random numbers
of its own; only the work differs. The text is run once for all places. A sample that writes what the text says runs
nothing, for the text has been run there. Samples that have written the same tokens so far are one row.

With ``reuse``, fewer samples are needed too. A sample of one place that writes the text as far as the next place is,
from there on, a sample of that place: what comes next depends on nothing but the tokens so far. It counts for both.
"""

from collections import deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from probe.hooks import Branches, TokenForwards, can_branch, check_prompts, likeliest, not_finite
from probe.models import Model, Sampling, halving
from probe.traces.sampling import PLAIN, sample_keys, stream_draws, tokens_at, uniform

_MOST = 512
"""The largest number of samples that are decoded at once."""
_ADMIT_SHARE = 8
"""New rows are taken in once one slot in this many is free, so that they begin together."""

Sampled = tuple[int, int, list[int], bool]
"""The index of a prompt, the number of a sample, its tokens without the end token, and whether the limit stopped it."""


@dataclass(frozen=True)
class _Use:
    """One of the samples that are wanted: its prompt, its number, and the number of tokens before its first."""

    prompt: int
    number: int
    begin: int


@dataclass
class _Entry:
    """Samples with the same tokens so far: the first ones of the text that is continued, and others after them."""

    cut: int
    more: list[int]
    samples: list[int]

    def __len__(self) -> int:
        return self.cut + len(self.more)

    def parts(self, samples: list[int], most: int) -> "list[_Entry]":
        """The same with other samples, divided into entries of at most so many."""
        return [_Entry(self.cut, self.more, samples[first : first + most]) for first in range(0, len(samples), most)]


@dataclass
class _Row:
    """A row of the batch: the entry that it began as, all its tokens, and the samples that it stands for."""

    place: int
    entry: _Entry
    text: list[int]
    samples: list[int]


def sample_branches(
    model: Model,
    trunk: Sequence[int],
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    slots: int = _MOST,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    spent: TokenForwards | None = None,
    reuse: bool = False,
    skip: Set[int] = frozenset(),
) -> Iterator[Sampled]:
    """Sample several continuations of prompts that begin as one text does.

    Without ``reuse``, each sample has the tokens that :func:`~probe.traces.sampling.stream_samples` gives it. Where the
    cache of a text cannot be cut (linear attention, or an open capture or edit that depends on tokens), that function
    makes all of them.

    Args:
        trunk: the token ids of the text, such as a question and a whole trace.
        prompts: token ids, one non-empty list for each prompt. What they share with the beginning of the text is not
            run again.
        samples: the number of samples of each prompt.
        max_new_tokens: the largest number of tokens of a sample.
        slots: how many samples are decoded at once, at most; fewer where memory says so.
        sampling: how tokens are chosen.
        seed: seeds the sampling.
        spent: counts the tokens that are run.
        reuse: let a sample of a prompt that reaches a longer prompt by itself count as one of that prompt too. Samples
            of different prompts then have parts in common, but those of one prompt remain independent.
        skip: indices of prompts whose samples are not wanted; those of the others do not change.

    Yields:
        The index of a prompt; the number of the sample; its token ids without the end token; and whether the limit on
        tokens stopped it. In no particular order.

    Raises:
        ProbeError: as :func:`~probe.traces.sampling.stream_samples`.
    """
    check_prompts(model, prompts, max_new_tokens)
    keys = sample_keys(prompts, samples, seed)
    spent = TokenForwards() if spent is None else spent
    if not prompts:
        return
    if can_branch(model):
        yield from _Tree(model, trunk, prompts, keys, max_new_tokens, sampling, spent, reuse, skip).run(slots)
        return
    left = [i for i in range(len(prompts)) if i not in skip]
    spent.prefix += sum(len(prompts[i]) for i in left)
    some = [keys[i] for i in left]
    for item, tokens, cut in stream_draws(
        model,
        [prompts[i] for i in left for _ in range(samples)],
        [key for each in some for key in each],
        max_new_tokens,
        slots=slots,
        sampling=sampling,
    ):
        spent.decoded += len(tokens) - cut  # the last token is not run
        yield left[item // samples], item % samples, tokens, cut


def shared(trunk: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens a prompt and a text have in common at their beginning."""
    both = zip(trunk, prompt, strict=False)
    return next((at for at, (one, other) in enumerate(both) if one != other), min(len(trunk), len(prompt)))


@dataclass
class _Found:
    """Samples that have ended, and those that go on, by their next token."""

    done: list[Sampled] = field(default_factory=list)
    going: dict[int, list[int]] = field(default_factory=dict)


class _Tree:
    """All samples of all prompts. The arguments are those of :func:`sample_branches`."""

    def __init__(
        self,
        model: Model,
        trunk: Sequence[int],
        prompts: Sequence[Sequence[int]],
        keys: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
        spent: TokenForwards,
        reuse: bool,
        skip: Set[int],
    ) -> None:
        self.reuse, self.skip = reuse, skip
        self.serves: dict[int, list[_Use]] = {}
        """What each sample is for, by its number among the samples of all prompts."""
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.n, self.limit = len(keys[0]), max_new_tokens
        self.cuts = [shared(trunk, prompt) for prompt in prompts]
        self.trunk = list(trunk[: max(self.cuts)])
        if any(len(prompt) == cut for prompt, cut in zip(prompts, self.cuts, strict=True)):
            self.trunk = list(trunk)  # samples may follow it to its end
        self.keys = torch.tensor([key for each in keys for key in each], dtype=torch.long, device=model.device)
        # Rows of a padded embedding are not tokens and must never be sampled.
        self.vocab = None if sampling.greedy else len(model.tokenizer)
        self.ends = set(model.eos_ids)
        longest = max(map(len, prompts)) + max_new_tokens
        self.branches = Branches(model, self.trunk, longest, spent)
        self.rows: list[_Row] = []
        self.queue: deque[_Entry] = deque()
        self.slots: int | None = None
        self.found: list[Sampled] = []

    def run(self, most: int) -> Iterator[Sampled]:
        """Decode everything."""
        entries = yield from self._follow()
        for i, prompt in enumerate(self.prompts):
            if len(prompt) > self.cuts[i] and i not in self.skip:
                entries.append(_Entry(self.cuts[i], list(prompt[self.cuts[i] :]), self._start(i, 0)))
        slots = self.branches.slots(most)
        for entry in sorted(entries, key=lambda entry: -len(entry)):
            self.queue += entry.parts(entry.samples, slots)
        while self.queue or self.rows:
            halving(self._advance, self.slots or slots, device=self.model.device, what="decoding")
            yield from self.found
            self.found = []

    def _follow(self) -> Iterator[Sampled]:
        """Run the text, and let samples follow it for as long as they write what it says.

        Returns:
            The samples that go on, by where they leave it and how.
        """
        starts: dict[int, list[int]] = {}
        for i, prompt in enumerate(self.prompts):
            if len(prompt) == self.cuts[i]:
                starts.setdefault(len(prompt), []).append(i)
        on: list[int] = []
        entries: list[_Entry] = []
        for start, logits in self.branches.run_trunk(min(starts, default=len(self.trunk) + 1) - 1):
            for at, row in enumerate(logits, start + 1):
                here = deque(on if self.reuse else ())
                for i in starts.get(at, []):
                    some = [here.popleft() for _ in range(min(self.n, len(here)))]
                    for number, sample in enumerate(some):
                        self.serves[sample].append(_Use(i, number, at))
                    on = on + self._start(i, len(some))
                if not on:
                    continue
                found = self._choose(row[None], [self.trunk[:at]], [on])[0]
                yield from found.done
                on = found.going.pop(self.trunk[at], []) if at < len(self.trunk) else []
                for token, some in found.going.items():
                    if wanted := [sample for sample in some if self._wanted(sample)]:
                        entries.append(_Entry(at, [token], wanted))
        return entries

    def _start(self, prompt: int, first: int) -> list[int]:
        """Begin the samples of a prompt from a number on."""
        begin, some = len(self.prompts[prompt]), range(prompt * self.n + first, (prompt + 1) * self.n)
        self.serves |= {sample: [_Use(prompt, sample % self.n, begin)] for sample in some}
        return list(some)

    def _wanted(self, sample: int) -> bool:
        """Forget what a sample is not wanted for, and say whether anything is left."""
        self.serves[sample] = [use for use in self.serves[sample] if use.prompt not in self.skip]
        return bool(self.serves[sample])

    def _choose(
        self, logits: Float[Tensor, "rows vocab"], texts: Sequence[list[int]], samples: Sequence[list[int]]
    ) -> list[_Found]:
        """Choose the next token of the samples of each row."""
        if self.sampling.greedy:
            chosen = [[token] * len(some) for token, some in zip(likeliest(logits).tolist(), samples, strict=True)]
        else:
            flat = torch.tensor([each for some in samples for each in some], device=self.keys.device)
            counts = [len(text) - self._begin(each) for text, some in zip(texts, samples, strict=True) for each in some]
            numbers = uniform(self.keys[flat], torch.tensor(counts, device=flat.device))
            lengths = [len(some) for some in samples]
            padded = torch.nn.utils.rnn.pad_sequence(list(numbers.split(lengths)), batch_first=True)
            chosen = tokens_at(logits[:, : self.vocab], padded, self.sampling).tolist()
        made = []
        for text, some, tokens in zip(texts, samples, chosen, strict=True):
            found = _Found()
            for each, token in zip(some, tokens, strict=False):
                if token < 0:
                    who = f"sample {each % self.n} of prompt {each // self.n}"
                    raise not_finite(f"a logit at new token {len(text) - self._begin(each)} of {who}", self.model)
                ended = token in self.ends
                now = len(text) + (not ended)
                uses = self.serves[each]
                over = [use for use in uses if ended or now - use.begin == self.limit]
                for use in over:
                    if use.prompt not in self.skip:
                        tokens_of = [*text[use.begin :], *([] if ended else [token])]
                        found.done.append((use.prompt, use.number, tokens_of, not ended))
                if over:
                    self.serves[each] = [use for use in uses if use not in over]
                if self.serves[each]:
                    found.going.setdefault(token, []).append(each)
            made.append(found)
        return made

    def _begin(self, sample: int) -> int:
        """The number of tokens before the first one of a sample."""
        return len(self.prompts[sample // self.n])

    @torch.no_grad()
    def _advance(self, slots: int) -> None:
        """Make one step; with fewer slots than before, the rows in work begin again."""
        if self.slots is not None and slots < self.slots:
            again: dict[int, tuple[_Entry, list[int]]] = {}
            for row in self.rows:
                again.setdefault(id(row.entry), (row.entry, []))[1].extend(row.samples)
            waiting = [*again.values(), *((entry, entry.samples) for entry in self.queue)]
            self.queue = deque(part for entry, some in waiting for part in entry.parts(some, slots))
            self.rows = []
            self.branches.drop(slots)
        self.slots = slots
        self._admit(slots)
        logits = self.branches.step([row.place for row in self.rows], [row.text[-1] for row in self.rows])
        found = self._choose(logits, [row.text for row in self.rows], [row.samples for row in self.rows])
        for each in found:
            self.found += each.done
        pairs = list(zip(self.rows, found, strict=True))
        more = [(row, token, each.going[token]) for row, each in pairs for token in list(each.going)[1:]]
        places = self.branches.copy([row.place for row, _, _ in more])  # nothing is changed before, if memory runs out
        rows = [
            _Row(place, row.entry, [*row.text, token], some)
            for place, (row, token, some) in zip(places, more, strict=True)
        ]
        for row, each in pairs:
            for token, some in list(each.going.items())[:1]:
                row.text.append(token)
                row.samples = some
        self.branches.end([row.place for row, each in pairs if not each.going])
        rows = [row for row, each in pairs if each.going] + rows
        self.rows = rows
        if not self.queue:
            for row, place in zip(rows, self.branches.pack([row.place for row in rows]), strict=True):
                row.place = place

    def _admit(self, slots: int) -> None:
        """Take in new entries where enough slots are free; a row may be divided into as many as it has samples."""
        taken = sum(len(row.samples) for row in self.rows)
        if self.rows and (slots - taken) * _ADMIT_SHARE < slots:
            return
        new: list[_Entry] = []
        for entry in self.queue:
            taken += len(entry.samples)
            if taken > slots:
                break
            new.append(entry)
        if new:
            texts = [[*self.trunk[: entry.cut], *entry.more] for entry in new]
            places = self.branches.admit(texts, [entry.cut for entry in new])
            for _ in new:  # they stay in the queue until they are in, since memory may run out
                self.queue.popleft()
            self.rows += map(_Row, places, new, texts, [entry.samples for entry in new])
