"""What a sentence may contain and what is never split: code, formulas, rows of tables and links."""

import re

_LINES = r"(?:(?!\n[ \t]*\n)(?s:.))"
"""Any character but a blank line."""
_WHOLE = re.compile(
    "|".join(
        (
            # Code between fences, up to the end if they are not closed.
            r"(?P<fence>`{3,})[^\n`]*(?=\n)(?s:.*?)(?:\n[ \t]*(?P=fence)`*|\Z)",
            r"^[ \t]*(?P<wave>~{3,})[^\n]*(?=\n)(?s:.*?)(?:\n[ \t]*(?P=wave)~*|\Z)",
            # Code within a line.
            r"(?<!`)(?P<tick>`+)(?!`)[^\n]+?(?<!`)(?P=tick)(?!`)",
            # Displayed formulas; those that are not closed end with their paragraph.
            rf"\$\${_LINES}+?\$\$",
            rf"\\\[{_LINES}*?(?:\\\]|(?=\n[ \t]*\n)|\Z)",
            rf"\\begin\{{(?P<env>[^}}\n]+)\}}(?:(?s:.*?)\\end\{{(?P=env)\}}|{_LINES}*)",
            # Formulas within a line; a closing dollar follows no space and precedes no digit, so that prices are not
            # mistaken for formulas.
            r"\$(?=\S)[^$\n]*?(?<=\S)\$(?!\d)",
            r"\\\(.+?\\\)",
            r"(?:https?://|www\.)[!-~]*[A-Za-z0-9/#=&%~+-]",
            # Two rows of a table or more, or one with space around its cells.
            r"(?P<table>(?:^[ \t]*\|[^\n]*\|[ \t]*(?:\n|\Z)){2,}|^[ \t]*\|[ \t][^\n]*[ \t]\|[ \t]*$)",
        )
    ),
    re.MULTILINE,
)
_ANY = re.compile(r"[`~$\\|*_]|://|www\.")
"""What every whole and every mark of emphasis has."""
_STOPPED = re.compile(r"\.\s*(?:\$+|\\[\])])\Z")
#: Marks of emphasis around words.
_EMPHASIS = re.compile(r"(?:(?<![^\s(\[“\"])[*_]{1,3}(?=[\w\"“(\[$\\]))|(?:(?<=[^\s*_])[*_]{1,3}(?![^\s)\]”\"]))")
_BULLET = re.compile(r"^(?:[#>+•*-]+\s+)+")


def masked(text: str, tag: re.Pattern[str]) -> str:
    """Replace each character of what is never split by an x, and marks of emphasis by spaces.

    Args:
        tag: matches think tags, at which code and formulas end.

    Returns:
        A text of equal length. The line ends within code and formulas are replaced too, those of tables are not.
    """
    if not _ANY.search(text):
        return text
    found, at = [], 0
    for place, end in [*(each.span() for each in tag.finditer(text)), (len(text), len(text))]:
        found.append(_EMPHASIS.sub(lambda mark: " " * len(mark[0]), _WHOLE.sub(_mask, text[at:place])))
        found.append(text[place:end])
        at = end
    return "".join(found)


def _mask(found: re.Match[str]) -> str:
    if found["table"]:
        return re.sub(r"[^\n]", "x", found[0])
    whole = found[0].rstrip()
    # A formula that ends with a full stop ends the sentence if another begins after it.
    ends = _STOPPED.search(whole) and found.string[found.end() :].lstrip()[:1].isupper()
    return "x" * (len(whole) - 1) + ("." if ends else "x") + found[0][len(whole) :]


def unmarked(text: str) -> str:
    """Remove marks of emphasis, bullets and the white space around a text."""
    return _BULLET.sub("", text.replace("*", "").replace("_", "").strip()).strip()
