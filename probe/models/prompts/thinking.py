"""The tags around a model's thinking, and the one rule by which text counts as thinking or as answer.

Thinking is closed by the last closing tag; what comes after it is the answer. Thinking that was opened and not closed
again gives no answer, wherever it was opened: in the text, or by the prompt (templates of the R1 kind end in
``<think>``). Text without any tag, after a prompt that opens none, is all answer. Tags in the prompt count for nothing
else: that of Qwen3 ends in an empty block where thinking is switched off. This file needs no torch.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ThinkTags:
    """The text that opens a model's thinking and the text that closes it.

    >>> tags = ThinkTags.of("[/THINK]")
    >>> tags.open, tags.answer_in("[THINK]Try 7.[/THINK]It is 42."), tags.answer_in("[THINK]Try 7.")
    ('[THINK]', 'It is 42.', None)
    >>> ThinkTags().answer_in("Try 7.", prompt="What is 6 x 7?<think>")
    """

    open: str = "<think>"
    """Opens the thinking; empty if it is not known."""

    close: str = "</think>"
    """Closes the thinking; empty for text without thinking."""

    @classmethod
    def of(cls, close: "str | ThinkTags", open: str | None = None) -> "ThinkTags":
        """Return the tags with this closing tag.

        Args:
            close: the closing tag; tags are returned as they are.
            open: the opening tag. None: that of a known kind of tags, else the closing tag without its slash.
        """
        if isinstance(close, ThinkTags):
            return close
        if open is None:
            bare = close.replace("/", "", 1)
            known = (tags.open for tags in KNOWN_TAGS if tags.close == close.strip())
            open = next(known, "" if bare == close else bare.strip())
        return cls(open, close)

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches either tag; nothing if both are empty."""
        return re.compile("|".join(_pattern(tag) for tag in (self.open, self.close) if tag) or r"(?!)")

    def as_default(self, text: str) -> str:
        """Return a text with ``<think>`` and ``</think>`` in place of these tags, for rules that know those."""
        for own, usual in ((self.open, "<think>"), (self.close, "</think>")):
            if own and own != usual:
                text = re.sub(_pattern(own), usual, text)
        return text

    def place(self, prompt: str) -> Literal["opened", "closed", "answer"]:
        """Where thinking is after a prompt.

        Returns:
            ``opened``: the prompt opens it. ``closed``: the prompt ends in a closing tag, as those of hybrid models do
            where thinking is switched off, so that the answer begins at once. ``answer``: it is in what follows, if
            anywhere.
        """
        if self.opened_by(prompt):
            return "opened"
        return "closed" if self.close and prompt.rstrip().endswith(self.close) else "answer"

    def opened_by(self, prompt: str) -> bool:
        """Whether a prompt opens the thinking and leaves it open.

        That is so if no closing tag follows its last opening tag, and the tag ends the prompt, begins a line or follows
        another tag; one in the middle of a sentence ("reason inside <think> tags") is an instruction.
        """
        before, found, after = prompt.rpartition(self.open) if self.open else ("", "", "")
        if not found or (self.close and self.close in after):
            return False
        return not after.strip() or not before or before[-1] in "\n>]"

    def end(self, text: str) -> int | None:
        """Return the index just after the thinking; None if it was not closed, or was opened again."""
        at = text.rfind(self.close) if self.close else -1
        if at < 0 or (self.open and self.open in text[at + len(self.close) :]):
            return None
        return at + len(self.close)

    def answer_in(self, text: str, prompt: str = "") -> str | None:
        """Return the text after the thinking; None if the thinking was not closed, so that nothing was answered.

        Args:
            prompt: what stands before the text, which may open the thinking.
        """
        end = self.end(text)
        if end is not None:
            return text[end:]
        return None if self.opened_by(prompt) or (self.open and self.open in text) else text


def _pattern(tag: str) -> str:
    """A regular expression for a tag; that of a gpt-oss channel includes the end of the message before it."""
    ends = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?" if tag.startswith("<|channel|>") else ""
    return ends + re.escape(tag)


KNOWN_TAGS = (
    ThinkTags(),
    ThinkTags("[THINK]", "[/THINK]"),  # Magistral
    ThinkTags("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ThinkTags("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ThinkTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThinkTags("◁think▷", "◁/think▷"),  # Kimi
    ThinkTags("<|channel>thought", "<channel|>"),  # Gemma 4
    ThinkTags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ThinkTags("<thought>", "</thought>"),  # EXAONE Deep
    ThinkTags("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    ThinkTags("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
)
"""The tags of published thinking models. Those of Qwen3, R1 and its distillations, QwQ, Open-Reasoner-Zero, SmolLM3,
DeepSeek-V3.1, GLM, Granite 3.3 and most others are the first."""


def find_tags(tokenizer: Any, close: str | None = None, open: str | None = None) -> ThinkTags:
    """Return the tags of a model.

    Args:
        tokenizer: its vocabulary and then its chat template are searched for known tags; ``<think>`` if it has none.
        close: the closing tag that the user gave.
        open: the opening tag that the user gave.
    """
    if close is None:
        template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
        added = tokenizer.get_added_vocab()
        for marked in (lambda tag: tag in added, lambda tag: tag in template):
            for tags in KNOWN_TAGS:
                first = re.match(r"<\|channel\|>", tags.close)
                if marked(first[0] if first else tags.close):
                    return tags if open is None else ThinkTags(open, tags.close)
    return ThinkTags.of("</think>" if close is None else close, open)


def read_thinking(text: str) -> str | None:
    """Return what text in the tags of any known model answers, without its thinking; None if that never ends.

    >>> read_thinking("[THINK]no, or yes?[/THINK] yes"), read_thinking("<think>no, or"), read_thinking("no")
    (' yes', None, 'no')
    """
    tags = next((tags for tags in KNOWN_TAGS if tags.pattern.search(text)), KNOWN_TAGS[0])
    return tags.answer_in(text)
