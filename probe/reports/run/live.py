"""Prints tokens on the terminal as they are emitted, coloured where they were steered."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from probe.html import behaviour_colour

if TYPE_CHECKING:
    from rich.console import Console

    from probe.traces import TextStream


class LiveTokens:
    """Prints what an arm emits, token by token; a character of several tokens when it is whole.

    Args:
        decode: turns token ids into text.
    """

    def __init__(self, console: "Console", decode: Callable[[Sequence[int]], str], names: Sequence[str]) -> None:
        self.console, self.decode, self.names = console, decode, names
        self.seen: set[int] = set()
        self.steered = self.tokens = 0
        self._stream: TextStream | None = None
        self._style = ""

    def begin(self, arm: str) -> None:
        """Begin the answer of an arm."""
        self.steered = self.tokens = 0
        self._stream, self._style = None, ""
        self.console.print(f"\n{arm}", style="bold", highlight=False, markup=False)

    def add(self, record: Mapping[str, Sequence[float]]) -> None:
        """Print one token.

        Args:
            record: what the decoder recorded about it, one value in each list.
        """
        from probe.traces import TextStream

        if self._stream is None:
            self._stream = TextStream(self.decode)
        behaviour = int(record["behaviour"][0])
        steered = bool(record["steered"][0]) and behaviour >= 0
        self.tokens, self.steered = self.tokens + 1, self.steered + steered
        if steered:
            self.seen.add(behaviour)
            # A character has the colour of the first of its tokens that was steered.
            self._style = self._style or f"bold white on {behaviour_colour(behaviour)}"
        self._print(self._stream.add(int(record["tokens"][0])))

    def _print(self, text: str) -> None:
        from rich.text import Text

        if text:
            self.console.print(Text(text, self._style), end="", soft_wrap=True)
            self._style = ""

    def end(self) -> None:
        """End the answer with its share of steered tokens."""
        if self._stream is not None:
            self._print(self._stream.rest())
        share = f"  ({self.steered} of {self.tokens} tokens steered)" if self.steered else ""
        self.console.print(share, style="dim", highlight=False)

    def legend(self) -> None:
        """Print the colours and names of the behaviours that occurred."""
        from rich.text import Text

        for behaviour in sorted(self.seen):
            mark = Text(f" {behaviour} ", f"bold white on {behaviour_colour(behaviour)}")
            self.console.print(mark, Text(self.names[behaviour]), highlight=False)
