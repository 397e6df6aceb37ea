"""The reader of traces: a list of traces that can be opened, as HTML that needs no other file.

Without scripts (on GitHub, or in a notebook that is not trusted), each trace opens as plain text. With scripts, an
opened trace is divided into sentences, and all traces can be searched. The page contains each text only once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from html import escape
from itertools import accumulate, pairwise
from typing import Any

from probe.html.assets import asset
from probe.html.marks import COLOURS, behaviour_colour

SHOWN = 20
"""The maximum number of traces that a notebook shows at once."""
LIMIT = 1_500_000
"""The maximum size of the traces in a notebook, in bytes; the whole output then stays below 2 MB."""
_STRIP, _LINE = 60, 60
"""The maximum number of sentences in the strip of a heading, and of characters of its answer."""
_SENTENCE = 8
"""The number of bytes of a sentence's data for the script: its length, its tokens and its behaviour."""
_PROMPT = 4000
"""The maximum number of characters of a prompt."""


@dataclass(frozen=True)
class Reading:
    """A trace, prepared for the reader. Places are counted in characters of the text."""

    title: str
    """The id of the problem."""
    text: str
    ends: Sequence[int]
    """Where each sentence ends; the last one ends where the text ends."""
    tokens: Sequence[int] | None = None
    """The number of tokens of each sentence; None if unknown."""
    correct: bool | None = None
    """Whether the answer is right; None if it was not graded."""
    answer: str | None = None
    """The answer that was graded; None if there was none."""
    graded: bool = True
    """Whether the answer is known."""
    facts: Sequence[str] = ()
    """Further facts for the heading, such as the sample number and the author."""
    prompt: str = ""
    thinking: int | None = None
    """Where the thinking ends; None if there is none."""
    closed: bool = True
    """Whether the thinking was closed."""
    truncated: bool = False
    """Whether the limit on new tokens stopped the trace."""
    loops: bool = False
    """Whether the trace ends in a loop."""
    loop: tuple[int, int, int] | None = None
    """Where the cycle at the end begins, where its second repetition ends, and the number of repetitions; None if there
    is no cycle."""
    behaviours: Sequence[int | None] | None = None
    """The behaviour of each sentence; None if they have none."""
    notes: Sequence[str | None] | None = None
    """A note for each sentence, such as its true type."""


def reader_html(
    readings: Sequence[Reading],
    heading: str = "",
    *,
    names: Sequence[str] = (),
    rest: str = "",
    whole: str = "",
    limit: int = LIMIT,
    opened: bool = False,
    script: bool = True,
) -> str:
    """Write traces as HTML: a list in which each trace can be opened.

    Args:
        readings: the traces; long ones are cut in the middle, to the largest length with which all traces fit.
        heading: the heading above the list.
        names: the name of each behaviour.
        rest: a sentence below the list, such as where the other traces are.
        whole: a sentence below the list if a trace was cut, such as where the whole trace is.
        limit: the maximum size of all texts and the data of their sentences, in bytes.
        opened: whether the traces are open at first.
        script: whether style and script are included; a page needs them only once, see :func:`reader_script`.
    """
    sizes = [len(_text(each.text).encode()) for each in readings]
    sentences = sum(len(each.ends) for each in readings)
    room = fair_share(sizes, max(limit // 2, limit - _SENTENCE * sentences))
    shown = [
        _Shown(each, None if size <= room else _middle(each.text, room))
        for each, size in zip(readings, sizes, strict=True)
    ]
    rest = " ".join(filter(None, (rest, whole if any(each.middle for each in shown) else "")))
    used = sorted({k for each in readings for k in each.behaviours or () if k is not None})
    key = "".join(
        f'<button type="button" data-b="{k}" aria-pressed="false"><span class="chip" style="--c:{behaviour_colour(k)};'
        f'background:{behaviour_colour(k)};color:#fff">{k}</span> {escape(names[k])}</button> '
        for k in used
    )
    listed = "".join(_trace(each, names, opened) for each in shown)
    # The same traces give the same page; the script tells outputs with the same id apart.
    identity = f"probe-{sha256(listed.encode()).hexdigest()[:12]}"
    known = escape(json.dumps({"names": list(names), "colours": COLOURS}))
    return "".join(
        (
            f'<div class="probe-reader" id="{identity}" data-known="{known}">',
            f"<style>{reader_style()}</style>" if script else "",
            f"<p><b>{escape(heading)}</b></p>" if heading else "",
            f'<div class="key">{key}</div>' if key else "",
            listed,
            f'<p class="soft">{escape(rest)}</p>' if rest else "",
            "</div>",
            f"<script>{reader_script()}\n{_attach(identity)}</script>" if script else "",
        )
    )


def reader_style() -> str:
    """The style of readers, for a page with several readers."""
    return asset(__file__, "reader.css")


def reader_script() -> str:
    """The script of readers, for a page with several readers: ``probeReader.attach(node)`` starts one."""
    return asset(__file__, "reader.js")


def _attach(identity: str) -> str:
    # A notebook may show the same output twice.
    return f"for (const root of document.querySelectorAll('[id=\"{identity}\"]')) probeReader.attach(root);"


def fair_share(sizes: Sequence[int], total: int) -> int:
    """The largest size at which all fit into ``total`` when larger ones are cut to it.

    >>> fair_share([10, 500, 700], 410), fair_share([10, 20], 410)
    (200, 20)
    """
    left = total
    for i, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - i)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


@dataclass(frozen=True)
class _Shown:
    """The text of a trace without the characters in ``middle``."""

    reading: Reading
    middle: tuple[int, int] | None

    @cached_property
    def text(self) -> str:
        first, last = self._gap
        return self.reading.text[:first] + self.reading.text[last:]

    @property
    def _gap(self) -> tuple[int, int]:
        return self.middle or (len(self.reading.text), len(self.reading.text))

    def place(self, at: int) -> int:
        """The place of a character of the whole text in the shown text."""
        first, last = self._gap
        return min(at, first) + max(at, last) - last

    @cached_property
    def gone(self) -> str:
        first, last = self._gap
        return f"[… {last - first:,} characters left out …]" if self.middle else ""

    @property
    def end(self) -> str:
        return "The limit on new tokens stopped the trace here." if self.reading.truncated else ""

    @property
    def thought(self) -> str:
        """The heading of the thinking."""
        reading = self.reading
        count = sum(start < (reading.thinking or 0) for start in (0, *reading.ends[:-1]))
        sizes = [_count(count, "sentence")]
        if reading.tokens is not None:
            sizes.append(_count(sum(reading.tokens[:count]), "token"))
        return f"thinking: {', '.join(sizes)}{'' if reading.closed else ', not closed'}"


def _trace(shown: _Shown, names: Sequence[str], opened: bool) -> str:
    held = escape(json.dumps(_data(shown), separators=(",", ":")))
    return (
        f'<details class="trace" data-trace="{held}"{" open" if opened else ""}>'
        f'<summary>{_heading(shown.reading, names)}</summary><div class="body">{_blocks(shown)}</div></details>'
    )


def _heading(reading: Reading, names: Sequence[str]) -> str:
    mark, look = ("–", "soft") if reading.correct is None else ("✓", "right") if reading.correct else ("✗", "wrong")
    answer = "no answer" if reading.answer is None else f"answer {_short(' '.join(reading.answer.split()), _LINE)}"
    sizes = [] if reading.tokens is None else [_count(sum(reading.tokens), "token")]
    facts = " · ".join(
        [*([answer] if reading.graded else []), *sizes, _count(len(reading.ends), "sentence"), *reading.facts]
    )
    flags = [
        flag for flag, given in (("truncated", reading.truncated), ("loops", reading.loops or reading.loop)) if given
    ]
    flagged = "".join(f' <span class="flag">{flag}</span>' for flag in flags)
    return (
        f'<span class="{look}">{mark}</span> <b>{escape(reading.title)}</b> <span class="soft">{escape(facts)}</span>'
        f"{flagged}{_strip(reading, names)}"
    )


def _strip(reading: Reading, names: Sequence[str]) -> str:
    """The behaviours of the first sentences, one cell each."""
    if not reading.behaviours or not names:
        return ""
    cells = "".join(
        f'<span data-i="{i}" style="background:{behaviour_colour(k)};color:#fff">{k}</span>'
        if k is not None
        else f'<span data-i="{i}" class="soft">·</span>'
        for i, k in enumerate(reading.behaviours[:_STRIP])
    )
    more = len(reading.behaviours) - _STRIP
    return f'<span class="strip">{cells}{f" +{more:,}" if more > 0 else ""}</span>'


def _data(shown: _Shown) -> dict[str, Any]:
    """The data that the script needs besides the text. Places refer to the shown text, in UTF-16 units."""
    reading, units = shown.reading, _units(shown.text)

    def place(at: int) -> int:
        return units[shown.place(at)]

    data: dict[str, Any] = {"sizes": [place(end) - place(start) for start, end in pairwise((0, *reading.ends))]}
    if reading.tokens is not None:
        data["tokens"] = list(reading.tokens)
    if reading.behaviours is not None:
        data["behaviours"] = list(reading.behaviours)
    if any(reading.notes or ()):
        words = {note: i for i, note in enumerate(dict.fromkeys(note for note in reading.notes or () if note))}
        data |= {"words": list(words), "notes": [words.get(note or "") for note in reading.notes or ()]}
    if reading.thinking:
        data |= {"thinking": place(reading.thinking), "thought": shown.thought}
    if reading.loop and reading.loop[1] < len(reading.text):
        start, second, times = reading.loop
        period = (second - start) // 2
        # Fold after a sentence rather than in the middle of one.
        second = next((end for end in reading.ends if second <= end < second + period), second)
        data |= {"loop": [place(second), units[len(shown.text)]], "looped": f"… {times:,} times in all"}
    if shown.middle:
        data |= {"gap": units[shown.middle[0]], "gone": shown.gone}
    if shown.end:
        data["end"] = shown.end
    return data


def _blocks(shown: _Shown) -> str:
    """The text for pages without scripts: the folded prompt, the folded thinking, and the answer."""
    text, split = shown.text, shown.place(shown.reading.thinking or 0)
    gap = shown.middle[0] if shown.middle else None

    def part(start: int, end: int) -> str:
        if gap is None or not start <= gap < end:
            return _pre(text[start:end])
        return f'{_pre(text[start:gap])}<p class="gap">{shown.gone}</p>{_pre(text[gap:end])}'

    prompt = _pre(_short(shown.reading.prompt, _PROMPT), "prompt")
    asked = f"<details><summary>prompt</summary>{prompt}</details>" if prompt else ""
    thought = f"<details><summary>{shown.thought}</summary>{part(0, split)}</details>" if split else ""
    end = f'<p class="end">{shown.end}</p>' if shown.end else ""
    return f"{asked}{thought}{part(split, len(text))}{end}"


def _pre(text: str, kind: str = "text") -> str:
    # A browser drops a line end directly after the tag.
    return f'<pre class="{kind}" style="white-space:pre-wrap">\n{_text(text)}</pre>' if text else ""


def _text(text: str) -> str:
    """Escape a text so that the browser reads the same number of characters."""
    clean = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return escape(clean, quote=False).replace("\0", "�").replace("\r", "&#13;")


def _units(text: str) -> Sequence[int]:
    """The place of every character in UTF-16 units, in which JavaScript counts."""
    if not text or max(text) <= "\uffff":
        return range(len(text) + 1)
    return [0, *accumulate(1 + (character > "\uffff") for character in text)]


def _middle(text: str, room: int) -> tuple[int, int]:
    """The characters to leave out, so that the rest at both ends takes at most ``room`` bytes."""
    keep = len(text)
    while keep and (size := len(_text(text[: keep // 2] + text[len(text) - keep // 2 :]).encode())) > room:
        keep = min(keep - 1, keep * room // size)
    return keep // 2, len(text) - keep // 2


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
