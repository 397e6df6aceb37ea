"""Read the one number that an answer states, exactly, or none.

A part of an answer is never taken for the whole: if anything that could change the value is not understood (a root, a
variable, a second number), the answer has no number.
"""

import re
import unicodedata
from fractions import Fraction

#: Longer answers are not read; Python refuses to parse integers of thousands of digits.
_LONGEST = 1000
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
_VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10"}
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")

_WHOLE = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])"  # 1,000
    r"|[0-9]{1,3}(?:\.[0-9]{3})+(?=,[0-9]+(?![0-9,.]))"  # 1.234,50
    r"|[0-9]{1,3}(?:[ \u00a0\u2009\u202f][0-9]{3})+(?![0-9/])"  # 1 000
    r"|[0-9]+)"
)
_POWER = r"(?:[eE][-+]?[0-9]+|\s*(?:\*|x|X|·|×)\s*10\s*\^\s*\{?\s*[-+]?[0-9]+\s*\}?)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]\s*)?(?:(?P<mixed>[0-9]+)\s+(?P<over>[1-9][0-9]*)\s*/\s*(?P<under>[0-9]+)"
    rf"|(?P<value>{_WHOLE}(?:[.,][0-9]+)?|\.[0-9]+)(?P<power>{_POWER})?(?:\s*/\s*(?P<divisor>[0-9]+(?:\.[0-9]+)?))?)"
)
#: A unit after a number: "cm^2", "m/s^2", "kg·m", "%", "degrees".
_EXPONENT = r"(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?"
_UNIT = re.compile(rf"\s*(?:%|°|[^\W\d_]+\.?){_EXPONENT}(?:\s*[/·*]\s*[^\W\d_]+{_EXPONENT})*")
#: A single letter directly after a number, or at the end, is a variable ("2x", "2 x"), except for these units.
_LETTER_UNITS = set("mgshlLWVAJNKCF")
#: Begins a remark after the number: a reason, a contrast, an explanation.
_ASIDE = re.compile(
    r"\s*(?:[,;:(\[–—]|[-.]\s"
    r"|\b(?:because|since|as|not|rather|instead|and not|but|which|so|that is|i\.e\.|where|for|when|if)\b)",
    re.IGNORECASE,
)
#: Words after a number that connect it to something else, so they are no unit.
_JOINS = re.compile(r"\s+(?:or|and|to|times|over|plus|minus|by|is|x)\b", re.IGNORECASE)
#: Words after a number that change its value, so they are no unit.
_FACTORS = re.compile(r"\s*(?:hundred|thousand|million|billion|trillion|dozen|pi|squared|cubed)\b", re.IGNORECASE)
_SYMBOLIC = re.compile(r"\\[a-zA-Z]+|[\^_√π∞]|[+*=<>≤≥≠]")


def read_number(text: str) -> Fraction | None:
    """Read the number in an answer exactly; None if the answer states no number, several, or something symbolic.

    Thousands separators, currency and percent signs, units and a remark after the number are ignored ("5, not 6"). In
    an equation the side that is a number counts.

    Args:
        text: a final answer in plain text or LaTeX.

    >>> read_number("$1,234.50"), read_number("x = 3/4"), read_number("42 apples"), read_number("3 or 4")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1), None)
    >>> read_number(r"2\\frac{1}{2}"), read_number("1.5e3"), read_number(r"12\\text{ cm}^2"), read_number(r"2\\pi")
    (Fraction(5, 2), Fraction(1500, 1), Fraction(12, 1), None)
    """
    if len(text) > _LONGEST:
        return None
    plain = _plain(text)
    left, equals, right = plain.rpartition("=")
    if equals:
        found = _one(right)
        # "3 = x": the left side counts if the right side has no digit.
        return found if found is not None or re.search(r"[0-9]", right) else _one(left)
    return _one(plain)


def _plain(text: str) -> str:
    """Write LaTeX and Unicode as plain characters; commands that are not known stay."""
    text = re.sub(r"\\(?:boxed|fbox)\s*\{(.*)\}", r"\1", text)
    for sign, fraction in _VULGAR.items():
        text = text.replace(sign, f" {fraction}")
    text = re.sub(r"[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^" + found[0].translate(_SUPERSCRIPT), text)
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/")
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = text.replace("{,}", ",").replace("\\!", "")
    text = re.sub(r"(?<=[0-9])\\[,;: ](?=[0-9]{3})", ",", text)
    text = re.sub(r"\\[,;:]|\\(?:left|right|displaystyle|quad)(?![a-zA-Z])|~", " ", text)
    text = re.sub(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" (\1)/(\2) ", text)
    text = re.sub(r"\\[dtc]?frac\s*([0-9])\s*([0-9])", r" \1/\2 ", text)
    text = re.sub(r"\(\s*(-?[0-9.]+)\s*\)\s*/\s*\(\s*([0-9.]+)\s*\)", r"\1/\2", text)
    text = re.sub(r"\\(?:times|cdot)(?![a-zA-Z])\s*", " x ", text)
    text = text.replace(r"\%", "%").replace("^\\circ", "°").replace(r"\circ", "°")
    text = re.sub(r"([-+])\s*\\?[$€£]", r"\1", text)
    text = re.sub(r"\\?[$€£]", "", text)
    text = re.sub(r"\b(?:minus|negative)\s+(?=[0-9.])", "-", text, flags=re.IGNORECASE)
    text = text.strip().strip("*`_ ")  # emphasis
    # Digits that a tokenizer printed apart: "3 7" is 37.
    if re.fullmatch(r"\s*-?(?:[0-9] )+[0-9]\s*", text):
        text = text.replace(" ", "")
    return text.strip()


def _one(text: str) -> Fraction | None:
    """Return the value of the first number if the text around it does not change it."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    before, after = text[: found.start()], text[found.end() :]
    if _SYMBOLIC.search(before) or (re.search(r"[\w.)\]]$", before) and not before[-1:].isspace()):
        return None
    if found["sign"] and re.search(r"[0-9)]\s*$|[A-Za-z]$", before):
        return None  # a difference, or a range
    variable = re.match(r"([^\W\d_])(?![^\W\d_])|\s+([^\W\d_])$", after)
    if _FACTORS.match(after) or (variable and variable[0].strip() not in _LETTER_UNITS):
        return None
    unit = _UNIT.match(after)
    if unit and not _JOINS.match(after) and not _ASIDE.match(after):
        after = after[unit.end() :]
        if re.match(r"\s*[,;]\s*[0-9]", after):
            return None  # the number is a part: "1 hour, 30 minutes"
    aside = _ASIDE.match(after)
    if aside and re.match(r"\s*[-–—:]\s*[0-9]", after):
        return None  # a difference, a range, a time or a ratio
    if after.startswith("!") or re.match(r"\s+and an? (?:half|third|quarter)\b", after):
        return None
    if not aside and (re.search(r"[0-9]", after) or _SYMBOLIC.search(after)):
        return None
    if aside and re.match(r"\s*[,;]\s*-?[0-9.]+\s*(?:[,;)\]]|$|and|or)", after):
        return None  # a list
    return _value(found)


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if (found["sign"] or "").strip() == "-" else 1
    if found["mixed"] is not None:
        over, under = int(found["over"]), int(found["under"])
        return None if not under else sign * (int(found["mixed"]) + Fraction(over, under))
    text = found["value"]
    if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+", text):
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"[0-9]+,[0-9]{1,2}", text):
        text = text.replace(",", ".")  # a decimal comma
    if text.count(",") > 1 and not re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", text):
        return None
    text = re.sub(r"[,\s\u00a0\u2009\u202f]", "", text)
    value = Fraction(text)
    if power := found["power"]:
        exponent = int(re.findall(r"[-+]?[0-9]+", power)[-1])
        if abs(exponent) > _LONGEST:
            return None
        value *= Fraction(10) ** exponent
    if divisor := found["divisor"]:
        if not Fraction(divisor):
            return None
        value /= Fraction(divisor)
    return sign * value
