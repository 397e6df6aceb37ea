"""Prompts: what a model is asked, the chat template's text for one question, and the tokens before every text."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.meta import find_undeclared_variables
from transformers import PreTrainedTokenizerFast

# transformers has no public name for it; what it compiles is the template that `apply_chat_template` renders.
from transformers.utils.chat_template_utils import _compile_jinja_template

from probe.errors import ProbeError
from probe.models.config import PLAIN_PROMPT, ModelConfig

_SAMPLE = "What is 6 times 7?"
_PROGRAM = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
_PROVIDED = ("messages", "tools", "documents", "add_generation_prompt")
"""Variables that transformers sets when it renders a chat template."""
TODAY = datetime(2025, 1, 1)
"""The date in every prompt whose template writes one, so that a run does not depend on the day on which it was made."""


def start_ids(tokenizer: PreTrainedTokenizerFast, name: str) -> tuple[int, ...]:
    """Return the ids that a tokenizer adds before a text, such as the start token; what it adds after one is left out.

    Args:
        tokenizer: any tokenizer.
        name: the name of the model in error messages.

    Raises:
        ProbeError: if the tokenizer cannot encode text.
    """
    try:
        read = tokenizer(_SAMPLE, return_special_tokens_mask=True)
    except Exception as error:  # the tokenizers library raises nothing narrower
        why = " ".join(str(error).split())
        raise ProbeError(f"the tokenizer of '{name}' cannot encode {_SAMPLE!r}: {why}; give another one") from error
    added = read["special_tokens_mask"]
    if 0 not in added:
        raise ProbeError(f"the tokenizer of '{name}' has no token for {_SAMPLE!r}: its files are damaged or mixed up")
    return tuple(read["input_ids"][: added.index(0)])


def chosen_prompt(config: ModelConfig, tokenizer: PreTrainedTokenizerFast, name: str) -> ModelConfig:
    """Choose the prompt of a model for which none was given, and check that the model can be asked by its prompt.

    Args:
        config: the settings of the model.
        tokenizer: its tokenizer.
        name: the name of the model in error messages.

    Returns:
        The settings with a prompt: ``chat`` where the tokenizer has a chat template or the settings have one's
        arguments, else ``PLAIN_PROMPT``.

    Raises:
        ProbeError: if there is no chat template, or as in :func:`check_chat`.
    """
    if not config.prompt:
        chat = bool(tokenizer.chat_template or config.chat_settings)
        config = replace(config, prompt="chat" if chat else PLAIN_PROMPT)
    if config.prompt == "chat":
        check_chat(tokenizer, config, name)
    return config


def prompt_text(config: ModelConfig, tokenizer: PreTrainedTokenizerFast, question: str, name: str) -> str:
    """Return the prompt for a question: the text that precedes the answer.

    Args:
        config: settings with a prompt.
        tokenizer: has the chat template, if the prompt is ``chat``.
        question: the question.
        name: the name of the model in error messages.

    Raises:
        ProbeError: if the chat template fails, or leaves out the question.
    """
    if config.prompt != "chat":
        return config.prompt.replace("{question}", question) + config.prefill
    content = config.user.replace("{question}", question)
    with _explained(name, "a single user turn" if config.system is None else "a system turn and a user turn"):
        text = _rendered(tokenizer, config, content)
    if not _contains(text, content):
        raise ProbeError(
            f"the chat template of '{name}' leaves out the question or changes it: {_short(content)} is not in "
            f"{_short(text)}; write a prompt with {{question}} instead of 'chat'"
        )
    return text + config.prefill


def check_chat(tokenizer: PreTrainedTokenizerFast, config: ModelConfig, name: str) -> None:
    """Refuse a chat template that cannot ask a question, and settings that it would ignore.

    Raises:
        ProbeError: if there is no template, it does not read an argument that is given, it refuses or drops the system
            turn, or as in :func:`prompt_text`.
    """
    if not tokenizer.chat_template:
        raise ProbeError(f"the tokenizer of '{name}' has no chat template; write a prompt with {{question}} instead")
    try:
        prompt_text(replace(config, system=None, template={}), tokenizer, _SAMPLE, name)
    except ProbeError as error:
        try:  # the template may need the settings that are given
            prompt_text(config, tokenizer, _SAMPLE, name)
        except ProbeError:
            raise error from None
    known = template_variables(tokenizer)
    for key in config.template:
        if key not in known:
            said = f"it reads {', '.join(known)}" if known else "it reads no arguments"
            raise ProbeError(f"the chat template of '{name}' does not read {key!r} (template); {said}")
    if config.system is not None:
        # A template may change the turn: SmolLM3's takes "/no_think" out of it. One that drops it makes the same text
        # of another one.
        others = replace(config, system=f"{config.system} Be brief, and name a zebra.")
        with _explained(name, "a system turn", "leave out 'system', or put the text into 'user'"):
            text, other = (_rendered(tokenizer, each, _SAMPLE) for each in (config, others))
        if text == other:
            raise ProbeError(
                f"the chat template of '{name}' drops the system turn; leave out 'system', or put the text into 'user'"
            )
    prompt_text(config, tokenizer, _SAMPLE, name)


def template_variables(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return the arguments that a chat template reads beside the messages, such as ``enable_thinking``, sorted."""
    environment = _compiled(tokenizer).environment
    tree = environment.parse(str(tokenizer.get_chat_template()))
    # jinja also names variables that the template sets itself, in branches, before it reads them.
    first = dict(reversed(list(_names(tree))))
    own = {name for name, is_set in first.items() if is_set}
    special = (*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *tokenizer.special_tokens_map)
    return tuple(sorted(find_undeclared_variables(tree) - {*own, *_PROVIDED, *special, *environment.globals}))


def prompt_remarks(config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Say what is easily overlooked in a prompt: arguments of the template without effect, and a date in it.

    Args:
        config: settings with a prompt that was checked.
        tokenizer: has the chat template.

    Returns:
        One line each.
    """
    if config.prompt != "chat":
        return []
    text, remarks = _rendered(tokenizer, config, _SAMPLE), []
    for key, value in config.template.items():
        less = replace(config, template={each: said for each, said in config.template.items() if each != key})
        try:
            same = _rendered(tokenizer, less, _SAMPLE) == text
        except (TemplateError, *_PROGRAM):  # the template needs this argument
            continue
        if same:
            remarks.append(f"{key}: {json.dumps(value)} changes nothing, the template does the same without it")
    if is_dated(config, tokenizer):
        remarks.append(f"the template writes a date; it is {TODAY:%d %B %Y} in every prompt")
    return remarks


def is_dated(config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the text of a prompt contains ``TODAY``, in whatever form the chat template writes it."""
    if config.prompt != "chat":
        return False
    other = TODAY.replace(year=TODAY.year + 1, month=12, day=31)
    return _rendered(tokenizer, config, _SAMPLE, other) != _rendered(tokenizer, config, _SAMPLE)


def _names(node: nodes.Node) -> Iterator[tuple[str, bool]]:
    """Yield every name in a template in the order of evaluation, and whether it is set there."""
    if isinstance(node, nodes.Name):
        yield node.name, node.ctx == "store"
    parts = list(node.iter_child_nodes())
    if isinstance(node, nodes.Assign | nodes.AssignBlock):
        parts.sort(key=lambda part: part is node.target)
    for part in parts:
        yield from _names(part)


def _compiled(tokenizer: PreTrainedTokenizerFast) -> Template:
    return _compile_jinja_template(tokenizer.get_chat_template())


def _rendered(tokenizer: PreTrainedTokenizerFast, config: ModelConfig, content: str, day: datetime = TODAY) -> str:
    """The text that a chat template makes of one user turn, as `apply_chat_template` makes it, with a fixed date."""
    turns = [{"role": "user", "content": content}]
    if config.system is not None:
        turns.insert(0, {"role": "system", "content": config.system})
    given: dict[str, Any] = {**tokenizer.special_tokens_map, **config.template}
    given |= {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": True}
    return str(_compiled(tokenizer).render(**given, strftime_now=day.strftime))


@contextmanager
def _explained(name: str, turns: str, fix: str = "write a prompt with {question} instead of 'chat'") -> Iterator[None]:
    """Report that a template fails, in one line."""
    try:
        yield
    # A template is a program: beside its own errors it raises those of the operators and filters that it uses.
    except (TemplateError, *_PROGRAM) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ProbeError(f"the chat template of '{name}' fails on {turns} ({why}); {fix}") from error


def _contains(text: str, question: str) -> bool:
    """Whether a text contains a question, up to white space; some templates trim it or write it as JSON."""
    text = " ".join(text.split())
    forms = (question, json.dumps(question, ensure_ascii=False)[1:-1])
    return any(" ".join(form.split()) in text for form in forms)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
