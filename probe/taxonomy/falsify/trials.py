"""The tests of one behaviour: cues injected, cues removed, another wording, content projected out, sampled again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from probe.activations import Rows, chosen_chunks
from probe.statistics import share_difference, share_interval
from probe.taxonomy.falsify.card import Trial
from probe.taxonomy.falsify.config import FalsifyConfig
from probe.taxonomy.falsify.content import Content, shuffled
from probe.taxonomy.falsify.cues import (
    Cue,
    control_opening,
    control_word,
    has_cue,
    insert,
    without_cues,
    without_others,
)
from probe.taxonomy.falsify.detector import Detector
from probe.taxonomy.falsify.paraphrase import Rewrite
from probe.taxonomy.falsify.regenerate import Stability, sample_sentences
from probe.taxonomy.falsify.reread import ContextReader

_EXAMPLES = 5


@dataclass(frozen=True)
class Bench:
    """What the tests of all behaviours share."""

    reader: ContextReader
    detector: Detector
    x: Rows
    """Raw activations, which may be on disk."""
    fires: Bool[Tensor, "sentence behaviour"]
    texts: Sequence[str]
    """The decoded tokens of each sentence."""
    questions: Sequence[int]
    """The number of each sentence's question."""
    config: FalsifyConfig
    seed: int

    @cached_property
    def content(self) -> Content:
        """The directions in which the questions differ."""
        return Content.of(self.x, self.questions, self.config.content_directions)

    def own(self, behaviour: int) -> list[bool]:
        """Say in which sentences the behaviour fires."""
        return self.fires[:, behaviour].tolist()

    def rng(self, behaviour: int, test: str) -> random.Random:
        """Return the generator of one test, so that no test depends on those before it."""
        return random.Random(f"{self.seed}/{behaviour}/{test}")

    def pick(self, rows: Sequence[int], rng: random.Random) -> list[int]:
        """Choose at most ``config.sentences`` random rows, in order."""
        return sorted(rng.sample(rows, min(self.config.sentences, len(rows))))

    def firing(self, behaviour: int, rows: Sequence[int], texts: Sequence[str | None]) -> list[bool | None]:
        """Say whether the behaviour fires in each row with another text in its place; None where that has no text."""
        ids = [None if text is None else self.reader.encode(row, text) for row, text in zip(rows, texts, strict=True)]
        some = [(i, row, own) for i, (row, own) in enumerate(zip(rows, ids, strict=True)) if own is not None]
        result: list[bool | None] = [None] * len(rows)
        if some:
            x = self.reader.read([row for _, row, _ in some], [own for _, _, own in some])
            for (i, _, _), hit in zip(some, self.detector.fires(x)[:, behaviour].tolist(), strict=True):
                result[i] = hit
        return result


def injection(bench: Bench, behaviour: int, cues: Sequence[Cue]) -> Trial:
    """Insert cue words into sentences that have none and in which the behaviour does not fire.

    A sentence gets one of the openings and one of the words, chosen in proportion to how often the behaviour's
    sentences have them. Its control gets as many words that open other sentences or occur in them, and are not cues.
    """
    rng, own = bench.rng(behaviour, "injection"), bench.own(behaviour)
    others = [text for text, mine in zip(bench.texts, own, strict=True) if not mine]
    hosts = [
        row
        for row, (text, mine) in enumerate(zip(bench.texts, own, strict=True))
        if not mine and any(char.isalnum() for char in text) and not has_cue(text, cues)
    ]
    if not cues or not hosts:
        return pairs_trial([], [], [])
    rows = bench.pick(hosts, rng)
    openings, words = [cue for cue in cues if cue.opening], [cue for cue in cues if not cue.opening]
    changed, control = [], []
    for row in rows:
        opening = _choose(openings, rng)
        word = _choose(words, rng)
        places = [rng.random()] if word else []
        other_opening = control_opening(opening, others, cues, rng) if opening else None
        other_word = control_word(others, cues, rng) if word else None
        text = bench.texts[row]
        changed.append(insert(text, opening and opening.text, [word.text] if word else [], places))
        missing = (opening and other_opening is None) or (word and other_word is None)
        control.append(None if missing else insert(text, other_opening, [other_word] if other_word else [], places))
    return pairs_trial(changed, bench.firing(behaviour, rows, changed), bench.firing(behaviour, rows, control))


def removal(bench: Bench, behaviour: int, cues: Sequence[Cue]) -> Trial:
    """Remove the cue words from the behaviour's sentences; the control loses as many other words."""
    rng = bench.rng(behaviour, "removal")
    having = [row for row, mine in enumerate(bench.own(behaviour)) if mine and has_cue(bench.texts[row], cues)]
    rows = bench.pick(having, rng)
    changed, control = [], []
    for row in rows:
        without, count = without_cues(bench.texts[row], cues)
        changed.append(without)
        control.append(without_others(bench.texts[row], cues, count, rng))
    return pairs_trial(changed, bench.firing(behaviour, rows, changed), bench.firing(behaviour, rows, control))


def paraphrase(bench: Bench, behaviour: int, cues: Sequence[Cue], rewrite: Rewrite) -> Trial:
    """Reword the behaviour's sentences; the control is other sentences in another wording.

    A wording that keeps every cue of the sentence tests nothing and is excluded.
    """
    rng, own = bench.rng(behaviour, "paraphrase"), bench.own(behaviour)
    rows = bench.pick([row for row, mine in enumerate(own) if mine], rng)
    others = bench.pick([row for row, mine in enumerate(own) if not mine], rng)

    def reworded(rows: Sequence[int], cues: Sequence[Cue]) -> list[str | None]:
        texts = [bench.texts[row] for row in rows]
        given = rewrite(texts, [cue.text for cue in cues])
        return [_proper(text, new, cues) for text, new in zip(texts, given, strict=True)]

    changed = reworded(rows, cues)
    fired = bench.firing(behaviour, rows, changed)
    control = bench.firing(behaviour, others, reworded(others, []))
    return Trial(
        fired=share_interval(_known(fired)),
        control=share_interval(_known(control)),
        effect=share_difference([]),
        excluded=sum(hit is None for hit in fired),
        examples=_shown(changed, fired),
        unwritten=_unwritten(changed, fired),
    )


def content(bench: Bench, behaviour: int) -> Trial:
    """Project the directions in which questions differ out of the behaviour's sentences; the control loses others."""
    own = bench.fires[:, behaviour]
    if len(set(bench.questions)) < 2 or not own.any():
        return pairs_trial([], [], [])
    seed = bench.rng(behaviour, "content").getrandbits(31)
    control = Content.of(bench.x, shuffled(bench.questions, seed), bench.config.content_directions)
    hits: tuple[list[bool], list[bool]] = ([], [])
    for chunk in chosen_chunks(bench.x, own.nonzero()[:, 0]):
        for found, without in zip(hits, (bench.content, control), strict=True):
            found += bench.detector.fires(without(chunk.float()))[:, behaviour].tolist()
    return pairs_trial([], *hits)


def stability(bench: Bench, behaviour: int) -> Stability:
    """Sample some of the behaviour's sentences again from the text before them."""
    config, reader = bench.config, bench.reader
    rng = bench.rng(behaviour, "stability")
    rows = [row for row, mine in enumerate(bench.own(behaviour)) if mine and reader.prefix(row)]
    rows = sorted(rng.sample(rows, min(config.prefixes, len(rows))))
    seed = rng.getrandbits(31)
    shown = np.zeros((len(rows), config.samples), dtype=bool)
    if rows:
        sampled = sample_sentences(reader.model, [reader.prefix(row) for row in rows], config, seed)
        places = [(i, j) for i, each in enumerate(sampled) for j, ids in enumerate(each) if ids]
        if places:
            x = reader.read([rows[i] for i, _ in places], [sampled[i][j] for i, j in places])
            for (i, j), hit in zip(places, bench.detector.fires(x)[:, behaviour].tolist(), strict=True):
                shown[i, j] = hit
    return Stability.of(shown, config.stable, float(np.mean(bench.own(behaviour) or [0.0])), seed)


def pairs_trial(texts: Sequence[str | None], fired: Sequence[bool | None], control: Sequence[bool | None]) -> Trial:
    """Summarise a test and its control on the same sentences.

    Args:
        texts: the changed sentences.
        fired: whether the behaviour fires in each; None for an excluded one.
        control: the same under the control.
    """
    both = [(a, b) for a, b in zip(fired, control, strict=True) if a is not None and b is not None]
    return Trial(
        fired=share_interval(_known(fired)),
        control=share_interval(_known(control)),
        effect=share_difference(both),
        excluded=sum(hit is None for hit in fired),
        examples=_shown(texts, fired),
        unwritten=_unwritten(texts, fired),
    )


def _shown(texts: Sequence[str | None], fired: Sequence[bool | None]) -> tuple[str, ...]:
    done = [text for text, hit in zip(texts, fired, strict=False) if text is not None and hit is not None]
    return tuple(text.strip() for text in done[:_EXAMPLES])


def _unwritten(texts: Sequence[str | None], fired: Sequence[bool | None]) -> int:
    return sum(text is not None and hit is None for text, hit in zip(texts, fired, strict=False))


def _known(hits: Sequence[bool | None]) -> list[bool]:
    return [hit for hit in hits if hit is not None]


def _choose(cues: Sequence[Cue], rng: random.Random) -> Cue | None:
    return rng.choices(cues, [cue.share for cue in cues])[0] if cues else None


def _proper(text: str, new: str | None, cues: Sequence[Cue]) -> str | None:
    """The new wording if it differs and has lost at least one of the cues, where there was one; otherwise None."""
    if new is None or new.strip() == text.strip() or not new.strip():
        return None
    had = [cue for cue in cues if has_cue(text, [cue])]
    if had and all(has_cue(new, [cue]) for cue in had):
        return None
    lead, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{lead}{new.strip()}{tail}"
