"""A trace of an arm as HTML for a notebook, coloured where it was steered."""

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from probe.html import behaviour_colour
from probe.reports.html.numbers import number

if TYPE_CHECKING:
    from IPython.display import HTML

    from probe.hybrid import HybridTrace


def trace_view(trace: "HybridTrace", decode: Callable[[Sequence[int]], str], names: Sequence[str]) -> "HTML":
    """Show a trace token by token.

    A steered token has the colour of its behaviour; its tooltip has the token that each model would have emitted.

    Args:
        trace: from :func:`~probe.hybrid.decode_hybrid`.
        decode: turns token ids into text, such as ``pair.base.decode``.
        names: names of the behaviours, such as ``taxonomy.names``.
    """
    from IPython.display import HTML

    from probe.traces import token_name, token_texts

    pieces: list[str] = []
    seen: set[int] = set()
    for i, said in enumerate(token_texts(trace.tokens, decode)):
        text = escape(said)
        if not trace.steered or not trace.steered[i]:
            pieces.append(text)
            continue
        behaviour = trace.behaviour[i]
        told = f"base: {token_name(trace.base_token[i], decode)!r}"
        if trace.thinking_token[i] >= 0:
            told += f", thinking: {token_name(trace.thinking_token[i], decode)!r}"
        if behaviour >= 0:
            seen.add(behaviour)
            told = f"{behaviour} {names[behaviour]}, strength {number(trace.strength[i])}; {told}"
        colour = behaviour_colour(behaviour) if behaviour >= 0 else "#7d8590"
        # The first tokens of a character of several are shown as a bar before it.
        look = f"background:{colour};color:#fff;border-radius:3px{'' if said else ';padding:0 2px'}"
        pieces.append(f'<span title="{escape(told)}" style="{look}">{text}</span>')
    legend = "".join(
        f'<span style="margin-right:1.5em"><span style="background:{behaviour_colour(k)};color:#fff;padding:0 5px;'
        f'border-radius:3px">{k}</span> {escape(names[k])}</span>'
        for k in sorted(seen)
    )
    share = f"{sum(trace.steered)} of {len(trace.tokens)} tokens steered"
    return HTML(
        f'<div style="line-height:1.9;white-space:pre-wrap">{"".join(pieces)}</div>'
        f'<div style="font-size:0.85em;margin-top:0.6em">{legend}{share}</div>'
    )
