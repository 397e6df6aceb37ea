"""What a model and a pair are, as plain settings: the YAML of a pair, and nothing that needs torch."""

from dataclasses import dataclass

from probe.errors import ProbeError
from probe.models.packaged import default_prompt


@dataclass(frozen=True)
class ModelConfig:
    """One model: where it is, and how a question is put to it.

    Raises:
        ProbeError: if ``prompt`` has no place for the question.
    """

    path: str
    """A folder, a hub id (``org/name``), a GGUF file, ``bundled:tiny-base``, or a packaged model: ``smollm2-135m``."""

    revision: str | None = None
    """Branch, tag or commit on the hub; only for hub ids."""

    prompt: str = ""
    """Template with ``{question}``; or ``chat``: the tokenizer's chat template, one user turn, ready to be answered.
    Left out, it is the question alone, and for a packaged model ``chat``."""

    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you ask."""

    def __post_init__(self) -> None:
        if not self.prompt:
            object.__setattr__(self, "prompt", default_prompt(self.path))
        if self.prompt != "chat" and "{question}" not in self.prompt:
            raise ProbeError(
                f"the prompt of model '{self.path}' has no {{question}}: {self.prompt!r}; "
                "write a template with {question}, or 'chat' for the tokenizer's chat template"
            )


@dataclass(frozen=True)
class PairConfig:
    """A base model and a thinking model trained from it, or from its family.

    Raises:
        ProbeError: if ``think_close`` is empty or ``max_new_tokens`` is not positive.
    """

    name: str
    """What the pair is called in tables and reports."""

    base: ModelConfig
    """The model before training."""

    thinking: ModelConfig
    """The model after it."""

    description: str = ""
    """What the two models differ in, in a line."""

    problems: str | None = None
    """The problem set that the pair is judged on, unless another is asked for."""

    think_close: str = "</think>"
    """The text that ends the thinking; the answer comes after it."""

    max_new_tokens: int = 512
    """Longest answer, in tokens; one that reaches it is truncated."""

    def __post_init__(self) -> None:
        if not self.think_close:
            raise ProbeError(f"think_close of pair '{self.name}' is empty; give the text that ends the thinking")
        if self.max_new_tokens < 1:
            raise ProbeError(f"max_new_tokens of pair '{self.name}' is {self.max_new_tokens}; it must be at least 1")
