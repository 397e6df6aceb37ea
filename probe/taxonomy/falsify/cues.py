"""Cue words of a behaviour: finding them, inserting them into a sentence and removing them."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probe.taxonomy.labels import PUNCTUATION, TERM, log_odds, own_openings, standing_out, terms_of

#: A cue is in at least a tenth of the behaviour's sentences, and at least twice as often as in the others.
_SHARE, _LIFT = 0.1, 2.0
#: The most sentences that are searched for a control word.
_TRIES = 50


@dataclass(frozen=True)
class Cue:
    """A word or an opening that is typical of a behaviour's sentences."""

    text: str
    """The cue as most sentences write it."""
    opening: bool
    """Whether it opens a sentence."""
    z: float
    """The z-score of its log-odds (:func:`probe.taxonomy.labels.log_odds`)."""
    share: float
    """The share of the behaviour's sentences that have it."""
    elsewhere: float
    """The share of the other sentences that have it."""

    @property
    def terms(self) -> list[str]:
        """Its words and signs."""
        return TERM.findall(self.text)


def find_cues(texts: Sequence[str], own: Sequence[bool], most: int) -> list[Cue]:
    """Find the cue words that distinguish a behaviour's sentences from all others.

    Args:
        texts: all sentences.
        own: for each sentence, whether it is the behaviour's.
        most: the maximum number of openings, and of other words.

    Returns:
        Openings first, then words that are in no opening; each kind most distinctive first. Numbers and signs are not
        cues.
    """
    opens, words = [Counter[str](), Counter[str]()], [Counter[str](), Counter[str]()]
    sizes = [0, 0]
    for text, mine in zip(texts, own, strict=True):
        group = 0 if mine else 1
        sizes[group] += 1
        sentence_opens, sentence_words = terms_of(text)
        opens[group].update(sentence_opens)
        words[group].update(sentence_words)
    if not all(sizes):
        return []
    z_opens, z_words = log_odds(opens, sizes)[0], log_odds(words, sizes)[0]
    ours = [text for text, mine in zip(texts, own, strict=True) if mine]
    found: dict[str, Cue] = {}

    def add(term: str, counted: str, counts: list[Counter[str]], z: float, opening: bool) -> None:
        share, elsewhere = counts[0][counted] / sizes[0], counts[1][counted] / sizes[1]
        if term and share >= max(_SHARE, _LIFT * elsewhere):
            written = _as_written(term.split(), ours, opening)
            found.setdefault(written, Cue(written, opening, z, share, elsewhere))

    for opening in own_openings(z_opens, opens[0], sizes[0], most):
        before_number = opening.split("#")[0].strip()
        if any(map(_is_word, before_number.split())):
            add(before_number, before_number, opens, z_opens[before_number], opening=True)
    used = {term.lower() for cue in found.values() for term in cue.terms}
    for word in standing_out(z_words):
        if sum(not cue.opening for cue in found.values()) == most:
            break
        if _is_word(word) and word not in used:
            add(word, word, words, z_words[word], opening=False)
    return list(found.values())


def _is_word(term: str) -> bool:
    """Whether a term has letters: the signs of a formula are content, not wording."""
    return any(char.isalpha() for char in term)


def _as_written(terms: Sequence[str], texts: Sequence[str], opening: bool) -> str:
    """The terms as most of the texts write them, with capitals and spaces."""
    pattern = _pattern(terms, opening)
    written = Counter(match.group().strip() for text in texts if (match := pattern.search(text)))
    return max(sorted(written), key=lambda each: written[each])


def _pattern(terms: Sequence[str], opening: bool) -> re.Pattern[str]:
    joined = r"\s*".join(re.escape(term) for term in terms)
    left = r"(?<!\w)" if terms[0][0].isalnum() else ""
    right = r"(?!\w)" if terms[-1][-1].isalnum() else ""
    return re.compile(
        rf"^\s*{joined}{right}" if opening else rf"{left}{joined}{right}", 0 if opening else re.IGNORECASE
    )


def has_cue(text: str, cues: Sequence[Cue]) -> bool:
    """Say whether a sentence has one of the cues."""
    return any(_pattern(cue.terms, cue.opening).search(text) for cue in cues)


def insert(text: str, opening: str | None, words: Sequence[str], places: Sequence[float]) -> str:
    """Put an opening before a sentence, and words between its words.

    Args:
        text: the sentence, with the white space before it.
        opening: what to put before it; None for nothing.
        words: what to put between its words.
        places: for each of the words, how far into the sentence it goes, from 0 to 1.

    >>> insert(" It is fun.", "Again,", ["redo"], [0.9])
    ' Again, It is redo fun.'
    """
    body = text.lstrip()
    lead = text[: len(text) - len(body)]
    pieces = re.split(r"(?<=\S)(?=\s)", body)
    for word, place in zip(words, places, strict=True):
        pieces.insert(1 + int(place * (len(pieces) - 1)), f" {word}")
    return lead + (f"{opening} " if opening else "") + "".join(pieces)


def without_cues(text: str, cues: Sequence[Cue]) -> tuple[str | None, int]:
    """Remove the cue words from a sentence.

    Returns:
        The sentence, or None if no word is left; and the number of terms removed.

    >>> cue = Cue("Again,", True, 9.0, 1.0, 0.0)
    >>> without_cues(" Again, it is fun.", [cue])
    (' It is fun.', 1)
    """
    spans = []
    for cue in cues:
        pattern = _pattern(cue.terms, cue.opening)
        spans += [match.span() for match in ([pattern.match(text)] if cue.opening else pattern.finditer(text)) if match]
    return _cut(text, spans)


def without_others(text: str, cues: Sequence[Cue], count: int, rng: random.Random) -> str | None:
    """Remove ``count`` random terms that are not cues from a sentence.

    Numbers count as terms; punctuation does not.

    Returns:
        The sentence; None if it has too few such terms.
    """
    taken = set()
    for cue in cues:
        pattern = _pattern(cue.terms, cue.opening)
        for match in pattern.finditer(text):
            taken |= set(range(*match.span()))
    others = [span for span in _terms(text) if not taken & set(range(*span))]
    return None if len(others) < count else _cut(text, rng.sample(others, count))[0]


def _terms(text: str) -> list[tuple[int, int]]:
    """The spans of the words, signs and numbers of a text, without its punctuation."""
    found = re.finditer(rf"\d+(?:[.,]\d+)*|{TERM.pattern}", text)
    return [match.span() for match in found if match.group() not in PUNCTUATION]


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str | None, int]:
    gone = {i for span in spans for i in range(*span)}
    count = sum(start in gone for start, _ in _terms(text))
    kept = "".join(char for i, char in enumerate(text) if i not in gone)
    body = kept.lstrip().lstrip(",:;").lstrip()
    lead = text[: len(text) - len(text.lstrip())]
    body = re.sub(r"(?<=\S) +(?= |[,.:;!?](?:\s|$))", "", body)
    if not any(char.isalnum() for char in body):
        return None, count
    if text.lstrip()[:1].isupper():
        body = body[:1].upper() + body[1:]
    return lead + body, count


def control_opening(cue: Cue, others: Sequence[str], cues: Sequence[Cue], rng: random.Random) -> str | None:
    """Take the opening of another sentence, with as many words as the cue and the cue's punctuation.

    Openings with numbers or cues are skipped.

    Returns:
        The opening; None if none of the sentences tried has one.
    """
    words = [term for term in cue.terms if term not in PUNCTUATION]
    end = cue.text[max(cue.text.rfind(words[-1]) + len(words[-1]), 0) :]
    for text in rng.sample(others, min(_TRIES, len(others))):
        spans = _terms(text)[: len(words)]
        opening = text[spans[0][0] : spans[-1][1]] if len(spans) == len(words) else ""
        fit = opening and not any(char.isdigit() for char in opening) and not has_cue(opening, cues)
        if fit and opening != cue.text.removesuffix(end):
            return opening + end
    return None


def control_word(others: Sequence[str], cues: Sequence[Cue], rng: random.Random) -> str | None:
    """Take a random word or sign of another sentence that is not a cue, with its capitals.

    Returns:
        The word; None if none of the sentences tried has one.
    """
    used = {term.lower() for cue in cues for term in cue.terms}
    for text in rng.sample(others, min(_TRIES, len(others))):
        words = [text[start:end] for start, end in _terms(text)[1:]]
        fit = [word for word in words if not any(char.isdigit() for char in word) and word.lower() not in used]
        if fit:
            return rng.choice(fit)
    return None
