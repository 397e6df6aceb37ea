"""Labels of behaviours without a judge: the words that distinguish their sentences from the others."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

#: A term is a tag, a masked number, a word or a sign.
TERM = re.compile(r"</?\w+>|#|[^\W\d_]+(?:['’]\w+)?|[^\w\s]")
PUNCTUATION = frozenset(".,:;!?\"'’“”()")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

#: The weight of the prior, in sentences: a term must stand out against this many average ones to be distinctive.
_PRIOR = 50.0


def mask(text: str) -> str:
    """Replace numbers by #, so that sentences that differ only in numbers become equal.

    >>> mask(" Now 22 + 9 = 31.")
    'Now # + # = #.'
    """
    return _NUMBER.sub("#", text).strip()


def label_behaviours(texts: Sequence[str], behaviours: Int[Tensor, " sentence"], n_behaviours: int) -> list[str]:
    """Label each behaviour by the openings and other words that distinguish its sentences, most distinctive first.

    Terms are counted once a sentence and ranked by the log-odds ratio of a behaviour against all others with an
    informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words").

    Args:
        texts: sentences.
        behaviours: the behaviour of each sentence.

    Returns:
        A label for each behaviour, such as ``“That makes # …” / “Now # …”: + =``.
    """
    opens: list[Counter[str]] = [Counter() for _ in range(n_behaviours)]
    words: list[Counter[str]] = [Counter() for _ in range(n_behaviours)]
    sizes = [0] * n_behaviours
    for text, behaviour in zip(texts, behaviours.tolist(), strict=True):
        sentence_opens, sentence_words = terms_of(text)
        sizes[behaviour] += 1
        opens[behaviour].update(sentence_opens)
        words[behaviour].update(sentence_words)
    scored_opens, scored_words = log_odds(opens, sizes), log_odds(words, sizes)
    return [_label(scored_opens[b], scored_words[b], opens[b], sizes[b]) for b in range(n_behaviours)]


def terms_of(text: str) -> tuple[set[str], set[str]]:
    """Return the openings of a sentence (its first one, two and three terms), and its terms in lower case.

    >>> opens, words = terms_of(" Now 2 = 2.")
    >>> sorted(opens), sorted(words)
    (['Now', 'Now #', 'Now # ='], ['#', '.', '=', 'now'])
    """
    terms = TERM.findall(mask(text))
    return {" ".join(terms[:n]) for n in (1, 2, 3) if len(terms) >= n}, {term.lower() for term in terms}


def log_odds(counts: Sequence[Counter[str]], sizes: Sequence[int]) -> list[dict[str, float]]:
    """Compute the z-score of the log-odds of each term in each group of sentences against the other groups.

    Args:
        counts: for each group, the number of its sentences that contain each term.
        sizes: the number of sentences of each group.

    Returns:
        For each group, the z-score of each of its terms.
    """
    everywhere = sum(counts, Counter())
    total = sum(sizes)
    scored = []
    for count, size in zip(counts, sizes, strict=True):
        scores = {}
        for term, here in count.items():
            prior = _PRIOR * everywhere[term] / total
            there = everywhere[term] - here
            # A term is in a sentence or not: these are odds of sentences with it against sentences without it.
            ours = (here + prior) / (size - here + _PRIOR - prior + 1e-9)
            theirs = (there + prior) / (total - size - there + _PRIOR - prior + 1e-9)
            scores[term] = math.log(ours / theirs) / math.sqrt(1 / (here + prior) + 1 / (there + prior))
        scored.append(scores)
    return scored


def own_openings(scores: dict[str, float], counts: Counter[str], size: int, most: int) -> list[str]:
    """Return distinctive openings with different first words that at least a tenth of a group's sentences have.

    Each is extended as far as nearly all sentences that open with it agree.

    Args:
        scores: the z-score of each opening.
        counts: the number of the group's sentences that have each opening.
        size: the number of the group's sentences.
        most: the maximum number of openings.
    """
    own = [opening for opening in standing_out(scores) if counts[opening] >= 0.1 * size]
    chosen: list[str] = []
    while own and len(chosen) < most:
        longer = [o for o in own if f"{o} ".startswith(f"{own[0]} ") and counts[o] >= 0.9 * counts[own[0]]]
        chosen.append(max(longer, key=len))
        own = [o for o in own if o.split()[0] != chosen[-1].split()[0]]
    return chosen


def standing_out(scores: dict[str, float]) -> list[str]:
    """Return the terms with a z-score above 2, most distinctive first; ties are in alphabetical order."""
    return sorted((term for term, z in scores.items() if z > 2), key=lambda term: (-scores[term], term))


def _label(opens: dict[str, float], words: dict[str, float], counts: Counter[str], size: int) -> str:
    if not size:
        return "(no sentences)"
    chosen = own_openings(opens, counts, size, most=2)
    used = {term.lower() for opening in chosen for term in opening.split()}
    other = [word for word in standing_out(words) if word not in used and word not in PUNCTUATION][:3]
    quoted = " / ".join(f"“{opening} …”" for opening in chosen)
    return ": ".join(part for part in (quoted, " ".join(other)) if part) or "(nothing distinctive)"


def nearest_sentences(
    texts: Sequence[str],
    activations: Float[Tensor, "sentence behaviour"],
    behaviours: Int[Tensor, " sentence"],
    n: int = 5,
) -> list[list[str]]:
    """Return, for each behaviour, its ``n`` sentences with the highest activation that differ in more than numbers.

    Args:
        texts: sentences.
        activations: the pre-activation of each behaviour in each sentence.
        behaviours: the behaviour of each sentence.
        n: the maximum number of sentences for each behaviour.
    """
    examples: list[list[str]] = []
    for behaviour in range(activations.shape[1]):
        own = (behaviours == behaviour).nonzero()[:, 0]
        ranked = own[activations[own, behaviour].argsort(descending=True, stable=True)]
        found: dict[str, str] = {}
        for i in map(int, ranked.tolist()):
            found.setdefault(mask(texts[i]).rstrip(".!?"), texts[i].strip())
            if len(found) == n:
                break
        examples.append(list(found.values()))
    return examples
