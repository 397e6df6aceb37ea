"""The prompts in the files of results, as far as reports read them."""

from typing import TypedDict


class FirstPrompt(TypedDict):
    """The prompt of a model for the first problem."""

    tokens: int
    thinking: str
    remarks: list[str]
    text: str
