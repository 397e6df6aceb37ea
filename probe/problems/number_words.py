"""Numbers in words, written as digits."""

import re

# fmt: off
_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_COUNTS = {word: i for i, word in enumerate(_SMALL)} | {word: 10 * i for i, word in enumerate(_TENS, start=2)}
#: Words that multiply the number before them.
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10}
_PART = "|".join(f"{word}s?" if word != "halves" else word for word in _PARTS)
_COUNT = "|".join(_COUNTS)
_RUN = re.compile(
    rf"(?<![\w.-])(?:an?(?=[\s-]+(?:{'|'.join(SCALES)}|{_PART})\b)|{_COUNT})"
    rf"(?:(?:(?<=hundred)\s+and\s+|(?<=thousand)\s+and\s+|[\s-]+)(?:{_COUNT}|{'|'.join(SCALES)})\b)*"
    rf"(?:[\s-]+(?P<part>{_PART}))?(?![\w-])",
    re.IGNORECASE,
)
_AND_PART = re.compile(rf"\s+and\s+(?:an?|(?P<count>{_COUNT}))[\s-]+(?P<part>{_PART})(?![\w-])", re.IGNORECASE)


def with_digits(text: str) -> str:
    """Write the numbers in words of a text as digits; words that are no whole number stay.

    >>> with_digits("twenty-one apples"), with_digits("one hundred and five"), with_digits("two and three quarters")
    ('21 apples', '105', '2 3/4')
    """
    text = _AND_PART.sub(lambda found: f" {_COUNTS[(found['count'] or 'one').lower()]}/{_parts(found['part'])}", text)
    return _RUN.sub(_digits, text)


def _parts(word: str) -> int:
    word = word.lower()
    return _PARTS[word] if word in _PARTS else _PARTS[word.removesuffix("s")]


def _digits(found: re.Match[str]) -> str:
    part = found["part"]
    counted = found[0][: len(found[0]) - len(part or "")]
    words = [word for word in re.split(r"[\s-]+", counted.lower()) if word not in ("and", "")]
    number = _count(words)
    if number is None:
        return found[0]
    return f"{number}/{_parts(part)}" if part else str(number)


def _count(words: list[str]) -> int | None:
    """Return the number that the words count; None if they are not in the order of one number ("one two")."""
    total, group, limit = 0, 0, 10**15
    for i, word in enumerate(words):
        if word in ("a", "an"):
            group = 1
        elif word == "dozen":
            if i != len(words) - 1 or not group:
                return None
            group *= 12
        elif word == "hundred":
            if not 0 < group < 100:
                return None
            group *= 100
        elif word in SCALES:
            if not 0 < group < 1000 or SCALES[word] >= limit:
                return None
            limit = SCALES[word]
            total, group = total + group * limit, 0
        else:
            count = _COUNTS[word]
            room = 10 if count < 10 else 100
            if (i and not count) or group % room or (count < 10 and group % 100 == 10):
                return None
            group += count
    return total + group
