"""Read the one number that an answer states, exactly, or none.

A part of an answer is never taken for the whole: if anything that could change the value is not understood (a root, a
variable, a bound, a second number), the answer has no number.
"""

import re
import unicodedata
from fractions import Fraction

from probe.problems.number_words import SCALES, with_digits

LONGEST = 1000
"""Longer answers are not read: no real one is so long, and parsing it could take very long."""
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
_VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10"}
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SPACE = "[ \u00a0\u2009\u202f]"

#: Digits with their separators. What groups thousands and what begins the decimals follows from the form.
_DIGITS = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9]|,[0-9])"  # 1,234.5
    r"|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?(?![0-9]|,[0-9])"  # 12,34,567
    r"|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+(?![0-9,.])"  # 1.234,5
    r"|[0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9.])"  # 1.234.567
    rf"|[0-9]{{1,3}}(?:{_SPACE}[0-9]{{3}})+(?:[.,][0-9]+)?(?![0-9/]|{_SPACE}[0-9])"  # 1 234,5
    r"|[0-9]{1,3}(?:(?P<group>['’_])[0-9]{3})(?:(?P=group)[0-9]{3})*(?:\.[0-9]+)?(?![0-9])"  # 1'234.5
    r"|[0-9]+(?:\.[0-9]+(?!,[0-9])|,[0-9]{1,2}(?![0-9]|,[0-9]))?|\.[0-9]+)"  # 12, 1.5, 0,5 and .5
)
_PLAIN_DIGITS = r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_POWER = r"(?:[eE][-+]?[0-9]+(?![0-9.])|\s*(?:\*|x|X|·|×)\s*10\s*\^\s*(?:[-+]?[0-9]+|\{\s*[-+]?[0-9]+\s*\}))"
_SCALE = "|".join(SCALES)
_NUMBER = re.compile(
    rf"(?P<sign>[-+]\s*)?(?:(?P<whole>[0-9]+)\s+(?P<over>[1-9][0-9]*)\s*/\s*(?P<under>[0-9]+)"
    rf"|\(?(?P<numerator>{_PLAIN_DIGITS})\)?\s*/\s*\(?(?P<denominator>{_PLAIN_DIGITS})\)?"
    rf"|(?P<value>{_DIGITS})(?P<power>{_POWER})?(?:\s+(?P<scale>{_SCALE})\b)?)",
    re.IGNORECASE,
)
#: A unit after a number: "cm^2", "m/s^2", "kg·m", "%", "degrees", "red apples".
_EXPONENT = r"(?:\s*\^\s*(?:-?[0-9]|\{\s*-?[0-9]\s*\}))?"
_UNIT = re.compile(
    rf"\s*(?:%|°(?:\s*[CFK]\b)?|¢|[^\W\d_]+\.?){_EXPONENT}(?:(?:\s*[/·*]\s*|\s+)[^\W\d_]+\.?{_EXPONENT})*"
)
#: A single letter after a number is a variable ("2x", "2 x"), except for these units.
_LETTER_UNITS = set("mgshlLWVAJNKCF")
_REMARK = r"because|since|as|not|rather|instead|and not|but|which|so|that is|i\.e\.|where|for|when|if"
#: Begins a remark after the number: a reason, a contrast, an explanation.
_ASIDE = re.compile(rf"\s*(?:[,;:(\[–—]|[-.]\s|\b(?:{_REMARK})\b)", re.IGNORECASE)
#: Words beside a number that bound it, change it or connect it with something else.
_CHANGES = re.compile(
    r"\b(?:not|least|most|more|less|fewer|greater|larger|smaller|than|over|under|above|below|up|between|from|to|or"
    r"|times(?=\s)|plus|minus|by|is|x|half|twice|double|triple|root|log|ln|sin|cos|tan|exp|mod|modulo|pi|squared|cubed|factorial"
    rf"|per mille|{_SCALE})\b",
    re.IGNORECASE,
)
#: What may precede a number: words, not symbols ("about", "the total is", "Answer:", "USD").
_BEFORE = re.compile(r"(?:[^\W\d_]+[’']?[^\W\d_]*[.,:]?\s+|≈\s*|~\s*|:\s*)*(?:[^\W\d_]{2,}:)?")


def read_number(text: str) -> Fraction | None:
    """Read the number in an answer exactly; None if the answer states no number, several, or something symbolic.

    Thousands separators, currency and percent signs, units and a remark after the number are ignored ("5, not 6"). In
    an equation the side that is a number counts. Numbers may be in words ("twenty-one", "3 million").

    Args:
        text: a final answer in plain text or LaTeX.

    >>> read_number("$1,234.50"), read_number("x = 3/4"), read_number("42 apples"), read_number("3 or 4")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1), None)
    >>> read_number(r"2\\frac{1}{2}"), read_number("1.5e3"), read_number(r"12\\text{ cm}^2"), read_number(r"2\\pi")
    (Fraction(5, 2), Fraction(1500, 1), Fraction(12, 1), None)
    """
    return None if len(text) > LONGEST else _side(_plain(text))


def is_plain_number(text: str) -> bool:
    """Whether a text is a number and nothing else: no unit, no words, no list.

    >>> is_plain_number(r"\\frac{1}{2}"), is_plain_number("1e-05"), is_plain_number("12 cm"), is_plain_number("[4]")
    (True, True, False, False)
    """
    bare = re.sub(r"\\[a-zA-Z]+|(?<=[0-9])[eE](?=[-+]?[0-9])", "", text)
    return is_single(text) and not any(letter.isalpha() for letter in bare)


def is_single(text: str) -> bool:
    """Whether a text is a number, perhaps with a unit, and not a list: "[4]" or the row of digits "1 0 1"."""
    return read_number(text) is not None and not re.match(r"\s*(?:[\[({]|-?[0-9]+\s+-?[0-9]+(?!\s*/))", text)


def is_percentage(text: str) -> bool:
    """Whether an answer is given in percent."""
    return re.search(r"%|\bper ?cent\b", text) is not None


def _side(text: str) -> Fraction | None:
    """Read one number, or an equation or alternatives ("1/2 or 0.5") of which each number is the same."""
    left, about, right = text.partition("≈")
    if about and left.strip():
        return _side(left) if re.search(r"[0-9]", left) else _side(right)
    one, either, other = text.partition(" or ")
    if either:
        value = _side(one)
        return value if value is not None and value == _side(other) else None
    left, equals, right = text.rpartition("=")
    if not equals:
        return _one(text)
    if not right.strip():
        return None  # not finished
    if aside := re.search(rf"[,;](?![0-9])|\b(?:{_REMARK})\b", re.sub(r"\([^()]*\)$", "", left.rstrip()), re.I):
        # "9, since 3 x 3 = 9" is 9, and "x = 2, y = 3" is no one number.
        return _side(left[: aside.start()]) if re.match(rf"\W*(?:{_REMARK})\b", left[aside.start() :], re.I) else None
    value = _one(right)
    # "3 = x": the left side counts if the right side has no digit.
    return value if value is not None or re.search(r"[0-9]", right) else _side(left)


def _plain(text: str) -> str:
    """Write LaTeX and Unicode as plain characters; commands that are not known stay."""
    text = re.sub(r"\\(?:boxed|fbox)\s*\{(.*)\}", r"\1", text)
    for sign, fraction in _VULGAR.items():
        text = text.replace(sign, f" {fraction}")
    text = re.sub(r"[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^" + found[0].translate(_SUPERSCRIPT), text)
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/").replace("÷", "/")
    text = re.sub(r"[^\W0-9_]", _ascii_digit, text)
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|textit|mbox|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = text.replace("{,}", ",").replace("\\!", "")
    text = re.sub(r"(?<=[0-9])\\[,;: ](?=[0-9]{3})", ",", text)
    text = re.sub(r"\\(?:left|right)\s*(?=[()\[\].|\\])|\\[,;: ]|\\(?:displaystyle|quad)(?![a-zA-Z])", " ", text)
    text = re.sub(r"\\[()\[\]]|\$\$", " ", text)
    text = re.sub(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))", r" (\1\2)/(\3\4) ", text)
    text = re.sub(r"\(\s*([0-9.]+)\s*\)/\(\s*([0-9.]+)\s*\)", r"\1/\2", text)
    text = re.sub(r"\\(?:times|cdot)(?![a-zA-Z])\s*", " x ", text)
    text = re.sub(r"\\approx(?![a-zA-Z])", "≈", text).replace(r"\%", "%")
    text = re.sub(r"\^?\s*(?:\{\s*\\circ\s*\}|\\circ)", "°", text)
    text = re.sub(r"(?:\b(?:US|R|A|C))?\\?[$€£¥₹](?=\s*[-+.0-9])", "", text)
    text = re.sub(r"(?<=[0-9])\s*\\?[$€£¥₹]|\$\s*$", "", text)
    text = with_digits(text)
    text = re.sub(r"\b(?:minus|negative)\s+(?=[0-9.])", "-", text, flags=re.IGNORECASE)
    text = re.sub(r"([-+])\s*\\?[$€£¥₹]", r"\1", text)
    text = _unwrapped(text)
    if re.fullmatch(r"(?:[-+]\s*)?(?:[0-9.,] )+[0-9]", text):  # digits that a tokenizer prints apart: "3 7" is 37
        text = text.replace(" ", "")
    return text.strip()


def _ascii_digit(found: re.Match[str]) -> str:
    digit = unicodedata.decimal(found[0], None)
    return found[0] if digit is None else str(digit)


def _unwrapped(text: str) -> str:
    """Remove emphasis, quotation marks and brackets around the whole."""
    text = text.strip().strip('*`_ "').strip()
    if len(text) > 2 and text[0] == text[-1] == "'":
        text = text[1:-1].strip()
    for opening, closing in ("()", "[]", "{}"):
        inside = text[1:-1]
        # "(1,2)" is a point, and "(1)/(2)" is not wrapped.
        if text[:1] == opening and text[-1:] == closing and not re.search(rf"[{re.escape(opening + closing)}]", inside):
            return text if re.search(r",(?![0-9]{3})", inside) else _unwrapped(inside)
        if text[:2] == opening * 2 and text[-2:] == closing * 2:
            return _unwrapped(inside)
    return text


def _one(text: str) -> Fraction | None:
    """Return the value of the first number if the text around it does not change it."""
    text = text.strip()
    found = _NUMBER.search(text)
    if found is None:
        return None
    before, after = text[: found.start()], text[found.end() :]
    if not _BEFORE.fullmatch(before) or _CHANGES.search(re.sub(r"\b(?:is|equal to)\s*$", "", before, flags=re.I)):
        return None
    if re.search(r"(?:^|\s)(?![aI]\b)[^\W\d_]\s*$", before):
        return None  # a letter before a number: "x 2"
    value = _value(found)
    return value if value is not None and _leaves(value, after) else None


def _leaves(value: Fraction, after: str) -> bool:
    """Whether the text after a number leaves its value as it is: a unit, a remark or nothing."""
    if re.match(r"(?:st|nd|rd|th)\b", after) or re.match(r"[!'’/]|\.\.|…", after):
        return False
    letter = re.match(r"([^\W\d_])(?![^\W\d_])|\s+([^\W\d_])$", after)
    if letter and letter[0].strip() not in _LETTER_UNITS:
        return False
    unit = _UNIT.match(after)
    aside = _ASIDE.match(after)
    if unit and not aside:
        words = unit[0]
        if inner := re.search(rf"\s(?:{_REMARK})\b", words, re.IGNORECASE):
            words = words[: inner.start()]
        if _CHANGES.search(re.sub(r"^\s*is\b", "", words)):
            return False
        after = after[len(words) :]
        if re.match(r"\s*[,;]\s*[0-9]", after):
            return False  # the number is a part: "1 hour, 30 minutes"
        aside = _ASIDE.match(after)
    if aside is None:
        return re.fullmatch(r"[\s.?*_`\"')\]}\\]*", after) is not None
    if re.match(r"\s*[-–—:]\s*[0-9]", after) or re.match(r"\s*[,;]?\s*[^\W\d_]\w*\s*=", after[aside.end() - 1 :]):
        return False  # a difference, a range, a time, a ratio; a second equation
    if re.match(r"\s*[,;]\s*-?[0-9.]+\s*(?:[,;)\]]|$|and|or)", after) or re.match(
        r"\W*(?:and|or|mod)\b(?! not)", after
    ):
        return False  # a list; a remainder
    inside = re.fullmatch(r"\s*\((.*)\)\W*", after)
    other = _one(inside[1]) if inside else None
    return other is None or other == value


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if (found["sign"] or "").strip() == "-" else 1
    if found["whole"] is not None:
        over, under = int(found["over"]), int(found["under"])
        return None if not under else sign * (int(found["whole"]) + Fraction(over, under))
    if found["numerator"] is not None:
        over, under = (Fraction(found[part].replace(",", "")) for part in ("numerator", "denominator"))
        return None if not under else sign * over / under
    text = re.sub(r"[\s'’_]", "", found["value"])
    if re.fullmatch(r"[0-9.]*,[0-9]{1,2}|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9]+(?<=[0-9]{4}),[0-9]+", text):
        text = text.replace(".", "").replace(",", ".")
    elif text.count(".") > 1:
        text = text.replace(".", "")
    value = Fraction(text.replace(",", ""))
    if power := found["power"]:
        exponent = int(re.findall(r"[-+]?[0-9]+", power)[-1])
        if abs(exponent) > LONGEST:
            return None
        value *= Fraction(10) ** exponent
    return sign * value * SCALES[(found["scale"] or "").lower()] if found["scale"] else sign * value
