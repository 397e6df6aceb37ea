"""Find the final answer in what a model wrote."""

import re

from probe.models import ThinkTags

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
_REMARKS = re.compile(
    r"(?:right|correct|wrong|incorrect|false|true now|verified|consistent|reasonable|plausible|clear|as follows"
    r"|below|above|found|confirmed|unknown|not)(?:\b.*)?",
    re.IGNORECASE,
)


def after_thinking(text: str, think_close: str | ThinkTags = "</think>", prompt: str = "") -> str | None:
    """Return the text after the thinking; None if the thinking was opened and never closed, so nothing was answered.

    Args:
        think_close: the text that closes the thinking, or both tags.
        prompt: what stands before the text, which may open the thinking; see :meth:`~probe.models.ThinkTags.opened_by`.
    """
    return ThinkTags.of(think_close).answer_in(text, prompt)


def extract_answer(text: str, think_close: str | ThinkTags = "</think>", prompt: str = "") -> str | None:
    """Find the final answer in a text.

    Only the text after the last ``think_close`` is searched, if there is one; thinking that the text or the prompt
    opened and nothing closed gives no answer. The first of these that occurs counts, and of several the last:
    ``<answer>...</answer>``, ``\\boxed{...}``, ``#### ...``, "answer is ...", a number. Two boxes joined by "or" are
    taken together.

    Args:
        think_close: the text that closes the thinking, or both tags.
        prompt: what stands before the text, which may open the thinking.

    Returns:
        The answer as written, with a plain minus sign; None if there is none.

    >>> extract_answer("2 + 2 = 4.</think> So the answer is 5.")
    '5'
    >>> extract_answer(r"Hence $x = \\boxed{\\frac{1}{2}}$, not 3.")
    '\\\\frac{1}{2}'
    >>> extract_answer("I give up.")
    >>> extract_answer("<think> 6 x 7 is 42? Let me check")
    """
    answered = after_thinking(text, think_close, prompt)
    if answered is None:
        return None
    answered = answered.replace("−", "-")
    for found in reversed(_TAGGED.findall(answered)):
        if found.strip():
            return _last_boxed(found) or found.strip()
    if boxed := _last_boxed(answered):
        return boxed
    if bare := _BARE_BOX.findall(answered):
        return bare[-1].rstrip(".,;")
    for found in [*reversed(_HASHES.findall(answered)), *reversed(_STATED.findall(answered))]:
        answer = found.strip(" \t*_`\"'")
        if len(answer) > 2 and answer[0] == answer[-1] == "$":
            answer = answer[1:-1].strip()
        if answer and not _REMARKS.fullmatch(answer):
            return answer
    numbers = [found[0] for found in _NUMBER.finditer(answered)]
    return numbers[-1] if numbers else None


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
