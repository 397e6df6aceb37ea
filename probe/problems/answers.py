"""Find the final answer in what a model wrote."""

import re

from probe.models import ThinkTags
from probe.problems.number_words import SCALES
from probe.problems.numbers import is_plain_number, is_single, read_number

#: A number as written; the last one in a text is the answer if the text states none. Exponents and indices are not.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+−])?(?<![\w.^_])(?<!\^\{)"
    r"(?:\\[dtc]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"
    r"|(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]?)"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$]+)")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
#: "the answer is X", "**Answer:** X"; X ends with the sentence or line, and the dot in 3.5 does not end a sentence.
_STATED = re.compile(
    r"\banswer\b[\s*_]*(?:is|:|=)[\s*_:]*([^\n]*?)\s*(?:[.!?;]+[*_`\"')]*(?=\s|$)|\n|$)", re.IGNORECASE
)
#: Words that say something about an answer and are none: "my answer is right".
_SAID = "right|correct|wrong|incorrect|verified|consistent|reasonable|plausible|clear|as follows|below|above|found"
_SAID += "|confirmed"
_REMARKS = re.compile(rf"(?:{_SAID}|false|true now|unknown|not)(?:\b.*)?", re.IGNORECASE)
#: Where the answers are words, "false" is one.
_REMARKS_ON_WORDS = re.compile(rf"(?:{_SAID})\b", re.IGNORECASE)
_STATING = re.compile(r"\banswer\b[\s*_]*(?:is\b|:|=)[*_]*[\s*:]*|####[ \t]*", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
_FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?[ \t]*```", re.DOTALL)
#: A word that belongs to a formula: digits, signs, commands, a variable.
_FORMULA = re.compile(
    r"[$(\[{]*(?:[-+*/^=<>≤≥≠≈×·÷±√π]+|[^\s]*(?:\\[a-zA-Z]|[0-9√π])[^\s]*|[b-zB-HJ-Z](?:[\^_=]\S*)?)[$)\]}]*[.,;:!?]?"
)
_UNIT = re.compile(r"(?:(?:[cdkm]?m|in|ft|yd|mi|s)\^?\{?-?[0-9²³]\}?|[mgshlLWVAJNKCF])[.,;:!?)$]*")


def after_thinking(text: str, think_close: str | ThinkTags = "</think>", prompt: str = "") -> str | None:
    """Return the text after the thinking; None if the thinking was opened and never closed, so nothing was answered.

    Args:
        think_close: the text that closes the thinking, or both tags.
        prompt: what stands before the text, which may open the thinking; see :meth:`~probe.models.ThinkTags.opened_by`.
    """
    return ThinkTags.of(think_close).answer_in(text, prompt)


def extract_answer(
    text: str, think_close: str | ThinkTags = "</think>", *, like: str | None = None, prompt: str = ""
) -> str | None:
    """Find the final answer in a text.

    Only the text after the last ``think_close`` is searched, if there is one; thinking that the text or the prompt
    opened and nothing closed gives no answer. The first of these that occurs counts, and of several the last:
    ``<answer>...</answer>``, ``\\boxed{...}``, ``#### ...``, "answer is ...", a number. Two boxes joined by "or" are
    taken together.

    Args:
        think_close: the text that closes the thinking, or both tags.
        like: the known answer, which shows the kind: where it is not a number, a text that states no answer ends with
            it, and an answer may have several lines.
        prompt: what stands before the text, which may open the thinking.

    Returns:
        The answer as written, with a plain minus sign; None if there is none.

    >>> extract_answer("2 + 2 = 4.</think> So the answer is 5.")
    '5'
    >>> extract_answer(r"Hence $x = \\boxed{\\frac{1}{2}}$, not 3.")
    '\\\\frac{1}{2}'
    >>> extract_answer("I give up.")
    >>> extract_answer("<think> 6 x 7 is 42? Let me check")
    >>> extract_answer("It is the capital:\\nParis", like="Rome")
    'Paris'
    """
    return next(iter(readings(text, think_close, like=like, prompt=prompt)), None)


def readings(
    text: str, think_close: str | ThinkTags = "</think>", *, like: str | None = None, prompt: str = ""
) -> list[str]:
    """Return the one answer that a text gives, in each way of reading it; the first is that of :func:`extract_answer`.

    Where it ends is often open: "Paris. It lies on the Seine" is "Paris" or all of it, and the quotation marks of
    "'blue'" may or may not belong to it.
    """
    answered = after_thinking(text, think_close, prompt)
    if answered is None:
        return []
    answered = answered.replace("−", "-")
    found = []
    if like is None or is_single(like):
        found = _numbers(answered, like)
    if like is not None and not is_plain_number(like):  # "Room 12" and "12 cm" are read in both ways
        found += _words(answered, like)
    return list(dict.fromkeys(found))


def _numbers(answered: str, like: str | None) -> list[str]:
    """The readings of an answer that is a number."""
    answered = _FENCE.sub("", answered)
    answer = _marked(answered) or _stated(answered) or _last_number(answered)
    if answer is None:
        return []
    value = read_number(answer)
    whole = like is not None and re.fullmatch("-?[0-9]+", like) and value is not None and value.denominator == 1
    return [answer, *_variants(answer), *([str(value)] if whole else [])]


def _marked(answered: str) -> str | None:
    """The answer in tags or in a box."""
    for found in reversed(_TAGGED.findall(answered)):
        if found.strip():
            return _last_boxed(found) or found.strip()
    if boxed := _last_boxed(answered):
        return boxed
    bare = _BARE_BOX.findall(answered)
    return bare[-1].rstrip(".,;") if bare else None


def _stated(answered: str) -> str | None:
    """The answer that a line or sentence states."""
    for found in [*reversed(_HASHES.findall(answered)), *reversed(_STATED.findall(answered))]:
        answer = _bare(found)
        if answer and not _REMARKS.fullmatch(answer):
            return answer
    return None


def _bare(answer: str) -> str:
    """An answer without the emphasis, quotation marks and dollar signs around it."""
    answer = answer.strip(" \t\n*_`\"'")
    return answer[1:-1].strip() if len(answer) > 2 and answer[0] == answer[-1] == "$" else answer


def _last_number(answered: str) -> str | None:
    """The last number, or the formula around it if the number alone has another value."""
    numbers = list(_NUMBER.finditer(answered))
    if not numbers:
        return None
    found = numbers[-1]
    begin = answered.rfind("\n", 0, found.start()) + 1
    stop = answered.find("\n", found.end())
    line = answered[begin : None if stop < 0 else stop]
    words = [(word.start(), word.end()) for word in re.finditer(r"\S+", line)]
    first = last = next(i for i, (_, end) in enumerate(words) if end > found.start() - begin)

    def joins(i: int) -> bool:
        word = line[slice(*words[i])]
        return word == "or" or bool(_FORMULA.fullmatch(word) and not _UNIT.fullmatch(word))

    while first and joins(first - 1) and line[words[first - 1][1] - 1] not in ".,;:!?":
        first -= 1
    if first and line[slice(*words[first])] in "+*/^=<>≤≥≠≈×·÷±":
        first -= 1  # a sign between two: "sin(x) + 1"
    while last + 1 < len(words) and line[words[last][1] - 1] not in ".,;:!?" and joins(last + 1):
        last += 1
    if last + 1 < len(words) and re.sub(r"\W+$", "", line[slice(*words[last + 1])]).lower() in SCALES:
        last += 1
    formula = re.sub(
        r"^or\b|\bor$", "", line[words[first][0] : words[last][1]].rstrip(".,;:!?*_ …\N{REPLACEMENT CHARACTER}")
    ).strip(" *_`")
    return found[0] if read_number(formula) == read_number(found[0]) else formula or found[0]


def _words(answered: str, like: str) -> list[str]:
    """The readings of an answer that is no number; it has several lines if the known one has."""
    remarks = re.compile("(?!)") if _REMARKS_ON_WORDS.match(like) else _REMARKS_ON_WORDS
    marked = [found for found in _TAGGED.findall(answered) if found.strip()][-1:]
    boxed = _last_boxed(marked[0] if marked else answered)
    places = [found.end() for found in _STATING.finditer(answered) if not remarks.match(answered, found.end())]
    if marked or boxed:
        found = [boxed, *marked]
    elif places and answered[places[-1] :].strip():
        found = _blocks(answered[places[-1] :], like, stated=True)
    else:
        found = _blocks(answered, like, stated=False)
    return list(dict.fromkeys(variant for each in found if each.strip() for variant in _variants(each)))


def _variants(answer: str) -> list[str]:
    """An answer with and without the fence, emphasis, quotation marks, LaTeX and final dot around it."""
    inside = _FENCED.search(answer)
    answer = (inside[1] if inside else answer).strip()
    plain = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", answer)
    if wrapped := re.fullmatch(r"\\(?:text|mathrm|mathbf|textbf)\s*\{(.*)\}", answer, re.DOTALL):
        plain = wrapped[1]
    without_dot = plain.removesuffix(".")
    found = [answer, _bare(answer), plain, _bare(plain), without_dot, without_dot.strip("*"), _bare(without_dot)]
    found.append(_bare(plain.rstrip(".!?;")))
    if "\\\\" in plain:  # rows of a matrix
        found.append("\n".join(row.strip() for row in plain.split("\\\\")))
    return list(filter(None, map(str.strip, found)))


def _blocks(text: str, like: str, *, stated: bool) -> list[str]:
    """The blocks of a text that may be its answer: at its start if it is stated, else at its end."""
    first_or_last = 0 if stated else -1
    if fenced := _FENCED.findall(text):
        return [fenced[first_or_last]]
    paragraphs = [each.strip("\n") for each in re.split(r"\n[ \t]*\n", text) if each.strip(" \t\n*_`")]
    if not paragraphs:
        return []
    rows = [row for row in paragraphs[first_or_last].split("\n") if row.strip()]
    if lines := like.count("\n"):
        begin = next((i for i in range(len(rows), 0, -1) if rows[i - 1].rstrip(" *_").endswith(":")), 0)
        every = text.strip("\n").split("\n")
        found = ["\n".join(rows[begin:]), "\n".join(rows).rpartition(": ")[2], text]
        return [*found, "\n".join(every[: lines + 1] if stated else every[-lines - 1 :])]  # a grid can have empty rows
    row = rows[first_or_last]
    if stated:
        return [re.split(r"[.!?;]+[*_`\"')]*(?=\s|$)", row)[0], row]
    bold = re.findall(r"\*\*(.+?)\*\*", row)
    formulas = re.findall(r"\$([^$]+)\$|\\\((.+?)\\\)", row)
    return [row, row.rpartition(": ")[2], *(bold if len(bold) == 1 else []), *map("".join, formulas[-1:])]


def _last_boxed(text: str) -> str:
    """The content of the last closed box that is not empty, or ""; one pass, however deeply the braces nest."""
    boxes = {found.end(): found.start() for found in _BOXED.finditer(text)}
    unclosed: list[int] = []
    closed: list[tuple[int, int]] = []  # begin and end of the content of each box, by its end
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            unclosed.append(brace.end())
        elif unclosed and (start := unclosed.pop()) in boxes and text[start : brace.start()].strip():
            closed.append((start, brace.start()))
    if not closed:
        return ""
    start, end = max(closed)
    for other_start, other_end in closed:
        if re.fullmatch(r"\}[\s$]*or[\s$]*", text[other_end : boxes[start]]):
            return text[boxes[other_start] : end + 1]
    return text[start:end].strip()


def known_answer(text: str) -> str:
    """Return the known answer of a problem without a worked solution (GSM8K's ``#### 3``) or a box around it.

    >>> known_answer("We add 1 and 2. #### 3"), known_answer(r"\\boxed{3}"), known_answer("New York")
    ('3', '3', 'New York')
    """
    if hashes := _HASHES.findall(text):
        return hashes[-1].strip() or text
    return _last_boxed(text) or text
