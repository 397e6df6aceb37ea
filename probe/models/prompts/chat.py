"""Prompts: the chat template's text for one question, and the tokens that a tokenizer puts before every text."""

import json

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from probe.errors import ProbeError

_SAMPLE = "What is 6 times 7?"
_PROGRAM = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


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


def chat_text(tokenizer: PreTrainedTokenizerFast, question: str, name: str) -> str:
    """Return the text that a chat template makes of one user turn, ready for the answer.

    Args:
        tokenizer: has the template.
        question: the content of the turn.
        name: the name of the model in error messages.

    Raises:
        ProbeError: if the template fails or refuses the turn, or its text does not contain the question.
    """
    turn = [{"role": "user", "content": question}]
    try:
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    # A template is a program: beside its own errors it raises those of the operators and filters that it uses.
    except (TemplateError, *_PROGRAM) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ProbeError(
            f"the chat template of '{name}' fails on a single user turn ({why}); "
            "write a prompt with {question} instead of 'chat'"
        ) from error
    if not _contains(text, question):
        raise ProbeError(
            f"the chat template of '{name}' leaves out the question or changes it: {_short(question)} is not in "
            f"{_short(text)}; write a prompt with {{question}} instead of 'chat'"
        )
    return text


def check_chat(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Refuse a chat template that cannot ask a question.

    Raises:
        ProbeError: if there is none, or as in :func:`chat_text`.
    """
    if not tokenizer.chat_template:
        raise ProbeError(f"the tokenizer of '{name}' has no chat template; write a prompt with {{question}} instead")
    chat_text(tokenizer, _SAMPLE, name)


def _contains(text: str, question: str) -> bool:
    """Whether a text contains a question, up to white space; some templates trim it or write it as JSON."""
    text = " ".join(text.split())
    forms = (question, json.dumps(question, ensure_ascii=False)[1:-1])
    return any(" ".join(form.split()) in text for form in forms)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
