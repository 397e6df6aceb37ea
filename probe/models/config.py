"""The settings of a model and of a pair, as in a pair's YAML file; this file needs no torch."""

from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from probe.errors import ProbeError
from probe.models.loading.shipped import own_prompt
from probe.models.published import Published

PLAIN_PROMPT = "Answer the following question:\nQ: {question}\nA:"
"""The prompt of a model without a chat template for which none was given: the one that Venhoff et al. (2510.07364) give
to base models. It asks for an answer and for nothing else, so that reasoning comes from the model."""

CHAT_SETTINGS = ("system", "user", "template")
"""Settings of a model that belong to a chat template."""

DeviceNames = str | dict[str, str | int]
"""How settings name devices: one; ``balanced`` for all GPUs, or several GPUs such as ``cuda:0,cuda:1``; or a device for
each module, as in accelerate's ``device_map``."""


@dataclass(frozen=True)
class ModelConfig:
    """Where a model is, and the prompt with which it is asked a question.

    Raises:
        ProbeError: if ``prompt`` or ``user`` does not contain ``{question}``, ``think_close`` is empty, or a setting of
            the chat template is given together with a prompt of one's own.
    """

    path: str
    """Folder, hub id (``org/name``), GGUF file, bundled model (``bundled:tiny-base``) or ``smollm2-135m``; or folder or
    hub id of an adapter of PEFT, which is put on the model that it was trained on."""

    revision: str | None = None
    """Branch, tag or commit of a hub id; None takes the default branch."""

    prompt: str = ""
    """Template with ``{question}``, or ``chat`` for the tokenizer's chat template. Empty, it is the prompt that a
    packaged or bundled model comes with; else ``chat`` where the tokenizer has a chat template, and ``PLAIN_PROMPT``
    where it has none. A `Model` holds the prompt that was chosen."""

    system: str | None = field(default=None, metadata={"later": True})
    """System message of a chat template. None: what the template writes without one."""

    user: str = field(default="{question}", metadata={"later": True})
    """Template with ``{question}`` of the user's turn in a chat template; other braces stay as they are."""

    template: dict[str, Any] = field(default_factory=dict, hash=False, metadata={"later": True})
    """Arguments of the chat template, such as ``{enable_thinking: false}`` or ``{reasoning_effort: high}``. Arguments
    that the template does not read are refused."""

    prefill: str = field(default="", metadata={"later": True})
    """Text that the prompt ends with, as the beginning of the answer."""

    adapter: str | None = field(default=None, metadata={"later": True})
    """Folder or hub id of a PEFT adapter that is attached to the model at ``path``; ``ORG/NAME/FOLDER`` is a folder of
    a hub id, such as a checkpoint."""

    adapter_revision: str | None = field(default=None, metadata={"later": True})
    """Branch, tag or commit of an adapter on the hub."""

    merge: bool = field(default=True, metadata={"later": True})
    """Whether the adapter is merged into the weights. If not, it is switched on for each pass of this model, and both
    models of a pair can share the weights below it."""

    attention: str | None = field(default=None, metadata={"later": True})
    """How attention is computed: ``sdpa``, ``eager`` or ``flash_attention_2``. None: as transformers chooses."""

    quantization: dict[str, Any] | None = field(default=None, hash=False, metadata={"later": True})
    """Settings with which the weights are quantised when they are read, as in ``quantization_config`` of a
    config.json, such as ``{quant_method: bitsandbytes, load_in_4bit: true}``."""

    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""

    think_close: str | None = field(default=None, metadata={"later": True})
    """Text that ends the thinking. None: the tag of a known kind that the tokenizer has, else ``</think>``."""

    think_open: str | None = field(default=None, metadata={"later": True})
    """Text that begins the thinking. None: the one that belongs to ``think_close``; empty if there is none."""

    def __post_init__(self) -> None:
        if not self.prompt and not self.chat_settings:
            object.__setattr__(self, "prompt", own_prompt(self.path))
        # YAML reads 2025-01-31 as a date, which a template would not.
        plain = {key: str(value) if isinstance(value, date) else value for key, value in self.template.items()}
        object.__setattr__(self, "template", plain)
        if self.prompt not in ("", "chat"):
            if "{question}" not in self.prompt:
                raise ProbeError(
                    f"the prompt of model '{self.path}' has no {{question}}: {self.prompt!r}; "
                    "write a template with {question}, or 'chat' for the tokenizer's chat template"
                )
            if given := self.chat_settings:
                raise ProbeError(
                    f"model '{self.path}' has a prompt of its own, and {' and '.join(given)} for a chat template; "
                    "write 'prompt: chat', or put the text into the prompt"
                )
        if "{question}" not in self.user:
            raise ProbeError(
                f"the user turn of model '{self.path}' has no {{question}}: {self.user!r}; write a template with "
                "{question}"
            )
        if self.think_close == "":
            raise ProbeError(f"think_close of model '{self.path}' is empty; give the text that ends the thinking")

    @property
    def chat_settings(self) -> dict[str, Any]:
        """The settings of the chat template that were given, by name."""
        return {name: value for name in CHAT_SETTINGS if (value := getattr(self, name)) != _USUAL[name]}

    @property
    def asked_otherwise(self) -> dict[str, Any]:
        """The settings with which a model is asked beside its prompt, of those that were given."""
        return self.chat_settings | ({"prefill": self.prefill} if self.prefill else {})

    @property
    def same_weights(self) -> tuple[Any, ...]:
        """Equal for two models that have the same weights and may be asked in different ways."""
        return self.path, self.revision, self.adapter, self.adapter_revision

    def asked_alike(self, path: str) -> "ModelConfig":
        """Return the settings of another model, such as a checkpoint, that is asked as this one is.

        Args:
            path: the ``path`` of the other model.
        """
        names = ("prompt", *CHAT_SETTINGS, "prefill", "think_close", "think_open")
        return ModelConfig(path, **{name: getattr(self, name) for name in names})


_USUAL: dict[str, Any] = {"system": None, "user": "{question}", "template": {}}


@dataclass(frozen=True)
class PairConfig:
    """A base model and a thinking model trained from it or from a model of its family.

    Raises:
        ProbeError: if ``think_close`` is empty or ``max_new_tokens`` is not positive.
    """

    name: str
    """Name of the pair in tables and reports."""

    base: ModelConfig
    """The model before training. Without a prompt it is asked by ``PLAIN_PROMPT``, even if its tokenizer has a chat
    template, unless both models are the same weights."""

    thinking: ModelConfig
    """The model after training."""

    description: str = ""
    """The difference between the two models, in one line."""

    problems: str | None = None
    """Problem set on which the pair is evaluated unless another is named; None if there is no default."""

    think_close: str | None = None
    """Text that ends the thinking; the answer comes after it. None: that of the thinking model."""

    think_open: str | None = field(default=None, metadata={"later": True})
    """Text that begins the thinking. None: the one that belongs to ``think_close``; empty if there is none."""

    max_new_tokens: int = 512
    """Largest number of tokens in a trace; a longer trace is truncated."""

    grader: str | None = field(default=None, metadata={"later": True})
    """How answers to these problems are graded: ``exact``, ``numeric``, ``math-verify`` or ``close``; None: as the set
    says."""

    published: Published | None = field(default=None, metadata={"later": True})
    """What the authors of a published pair report about it; None for other pairs."""

    def __post_init__(self) -> None:
        if self.think_close == "":
            raise ProbeError(f"think_close of pair '{self.name}' is empty; give the text that ends the thinking")
        base = self.base
        if not (base.prompt or base.chat_settings) and base.same_weights != self.thinking.same_weights:
            # The tokenizer of a base model often has the chat template of its family, which it was not trained on.
            object.__setattr__(self, "base", replace(base, prompt=PLAIN_PROMPT))
        if self.max_new_tokens < 1:
            raise ProbeError(f"max_new_tokens of pair '{self.name}' is {self.max_new_tokens}; it must be at least 1")
        if self.think_close is not None or self.think_open is not None:  # so that a member loaded alone has them too
            for name in ("base", "thinking"):
                member = getattr(self, name)
                close = self.think_close or member.think_close
                begin = member.think_open if self.think_open is None else self.think_open
                object.__setattr__(self, name, replace(member, think_close=close, think_open=begin))
