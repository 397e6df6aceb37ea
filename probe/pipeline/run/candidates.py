"""The candidates of arms of which one setting is chosen on validation: texts and budgets, instructions, strengths."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from probe.errors import ProbeError
from probe.hybrid import Arm, Budget, Closing, Instruction, addition_arm, script_arm
from probe.models import Model, ThinkTags
from probe.pipeline.run.chosen import own_answers
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.learned import mechanism
from probe.traces import Trace

_READ = 200
"""Train traces whose sentences are counted."""
_OWN = 4
"""Texts that are taken from traces."""


def budget_arms(experiment: Experiment, name: str, on_thinking: bool) -> dict[str, Arm]:
    """The candidates of budget forcing: stop or extend the thinking, at each budget, by each text.

    Args:
        on_thinking: whether the thinking model writes the answers.

    Raises:
        ProbeError: see :func:`check_budget`.
    """
    tag, ends, endings, waits = _texts_at_the_end(experiment, name, on_thinking)
    found = {}
    most = experiment.inputs.max_new_tokens - max(map(len, endings.values()), default=0)
    for tokens in experiment.config.hybrid.budgets or _usual_budgets(experiment, tag, on_thinking, most):
        for text, ids in endings.items():
            found[f"stop at {tokens} by {text!r}"] = Budget(tag, ends, most=tokens, ending=ids)
        for text, ids in waits.items():
            found[f"extend to {tokens} by {text!r}"] = Budget(tag, ends, least=tokens, wait=ids)
    return {setting: script_arm(script, name) for setting, script in found.items()}


def check_budget(experiment: Experiment, name: str, on_thinking: bool) -> None:
    """Refuse a pair whose thinking cannot be stopped and extended.

    Args:
        on_thinking: whether the thinking model writes the answers.

    Raises:
        ProbeError: if there is no thinking or no text to insert, if the tokenizer cannot write the closing tag, if the
            first token of the tag also occurs elsewhere in the thinking, or if a budget leaves no room for an answer.
    """
    _, _, endings, _ = _texts_at_the_end(experiment, name, on_thinking)
    limit, ending = experiment.inputs.max_new_tokens, max(map(len, endings.values()), default=0)
    for tokens in experiment.config.hybrid.budgets:
        if tokens >= limit - ending:
            raise ProbeError(
                f"hybrid.budgets has {tokens}, which leaves no room for an answer: {limit} tokens are the limit, and "
                f"{ending} of them end the thinking; give less than {limit - ending}, or raise --max-new-tokens"
            )


def _texts_at_the_end(
    experiment: Experiment, name: str, on_thinking: bool
) -> tuple[Closing, tuple[int, ...], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The closing tag, the tokens that end the thinking, and the texts that are inserted to stop or extend it."""
    model, config = _model(experiment, on_thinking), experiment.config.hybrid
    check_open(experiment, name, model)
    tag = closing(experiment, name, model)
    close = _closing_ids(experiment, model, tag)
    endings = {text: (*close, *ids) for text in config.endings if (ids := written(model, text)) is not None}
    waits = _writable(model, config.waits) or _usual_texts(experiment, model)
    if not endings and not waits:
        raise ProbeError(
            f"{model.name} can write none of hybrid.endings and hybrid.waits; give one that its tokenizer can write, "
            f"or leave out the arm {name}"
        )
    return tag, (*_beginning(experiment, name, model, tag, close), *model.eos_ids), endings, waits


def intervention_arms(experiment: Experiment, name: str, on_thinking: bool) -> dict[str, Arm]:
    """The candidates of thinking intervention: each instruction at the beginning of the thinking.

    Args:
        on_thinking: whether the thinking model writes the answers.

    Raises:
        ProbeError: if there is nothing to insert.
    """
    model, config = _model(experiment, on_thinking), experiment.config.hybrid
    texts = _writable(model, config.instructions) or _usual_texts(experiment, model)
    if not texts:
        raise ProbeError(
            f"{model.name} can write none of hybrid.instructions; give one that its tokenizer can write, or leave out "
            f"the arm {name}"
        )
    opened = experiment.inputs.pair.think_tags.opened_by(model.prompt_text(experiment.inputs.test[0].question))
    tag = () if opened else written(model, experiment.inputs.pair.think_tags.open) or ()
    return {repr(text): script_arm(Instruction(ids, tag), name) for text, ids in texts.items()}


def addition_arms(experiment: Experiment, name: str, on_thinking: bool) -> dict[str, Arm]:  # noqa: ARG001
    """The candidates of whole-trace addition: the vector of the arm at each strength.

    Args:
        on_thinking: whether the thinking model writes the answers.
    """
    vector = mechanism(experiment, name)
    return {f"x {by:g}": addition_arm(vector, by, name) for by in experiment.config.hybrid.additions}


def closing(experiment: Experiment, name: str, model: Model) -> Closing:
    """The tag that closes the thinking, in the vocabulary of a model.

    Args:
        name: the arm that needs it.

    Raises:
        ProbeError: if the pair has no tag, or no train trace has thinking.
    """
    tags = experiment.inputs.pair.think_tags
    if not any(_thinks(trace, tags) for trace in _first(experiment)):
        raise ProbeError(
            f"no train trace closes its thinking by {tags.close!r}, which {name} needs; set think_close in the pair, "
            f"switch thinking on, or leave out {name}"
        )
    return Closing.of(model, tags.close)


def _thinks(trace: Trace, tags: ThinkTags) -> bool:
    """Whether a trace closes its thinking, or was cut before that."""
    return trace.think_end is not None or (trace.truncated and tags.answer_in(trace.text, trace.prompt) is None)


def check_open(experiment: Experiment, name: str, model: Model) -> None:
    """Refuse a model whose prompt has closed the thinking before the answer.

    Args:
        name: the arm that needs it open.
    """
    prompt = model.prompt_text(experiment.inputs.test[0].question)
    if experiment.inputs.pair.think_tags.place(prompt) == "closed":
        raise ProbeError(
            f"the prompt of {model.name} ends in {experiment.inputs.pair.think_tags.close!r}, so it writes no thinking "
            f"for the arm {name}; give a prompt that leaves the thinking open, or leave out the arm"
        )


def _closing_ids(experiment: Experiment, model: Model, tag: Closing) -> tuple[int, ...]:
    """The closing tag as it is inserted: as most train traces hold it, which may include a space before it."""
    ways = [ids for before in ("", " ", "\n") if (ids := written(model, before + tag.tag)) and tag.span(ids)]
    if not ways:
        raise ProbeError(
            f"the tokenizer of {model.name} cannot write the tag {tag.tag!r} that closes the thinking; set think_close "
            "in the pair, or leave out the arm"
        )
    traces = list(_first(experiment))
    return max(ways, key=lambda ids: sum(_find(trace.tokens, ids) is not None for trace in traces))


def _beginning(
    experiment: Experiment, name: str, model: Model, tag: Closing, close: tuple[int, ...]
) -> tuple[int, ...]:
    """The tokens that begin the closing tag, and nothing else in the thinking."""
    texts = [(trace.tokens, tag.span(trace.tokens)) for trace in _first(experiment)]
    span = tag.span(close)
    assert span is not None  # the tokens hold the tag
    begun = tag.begun([close[span[0]], *(tokens[at[0]] for tokens, at in texts if at is not None)])
    opening = model.encode(experiment.inputs.pair.think_tags.open, start=False)
    thought = {token for tokens, at in texts for token in tokens[: None if at is None else at[0]]}
    if begun & {*opening, *thought}:
        first = model.decode([min(begun & {*opening, *thought})])
        raise ProbeError(
            f"the closing tag {tag.tag!r} begins with {first!r}, which also occurs in the opening tag or in the "
            f"thinking, so that token does not tell that the thinking ends; leave out the arm {name}"
        )
    return tuple(sorted(begun))


def written(model: Model, text: str) -> tuple[int, ...] | None:
    """The token ids of a text; None if the tokenizer cannot write it."""
    ids = tuple(model.encode(text, start=False))
    unknown = model.tokenizer.unk_token_id
    return None if unknown in ids or model.decode(ids).strip() != text.strip() else ids


def _model(experiment: Experiment, on_thinking: bool) -> Model:
    pair = experiment.inputs.pair
    return pair.thinking if on_thinking else pair.base


def _writable(model: Model, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    return {text: ids for text in texts if (ids := written(model, text))}


def _usual_texts(experiment: Experiment, model: Model) -> dict[str, tuple[int, ...]]:
    """The texts that most sentences begin with, with their token ids."""
    return {model.decode(ids): ids for ids, _ in Counter(_beginnings(experiment)).most_common(_OWN)}


def _first(experiment: Experiment) -> Iterator[Trace]:
    traces = experiment.rollouts.train
    return (traces[i] for i in range(min(len(traces), _READ)))


def _beginnings(experiment: Experiment) -> Iterator[tuple[int, ...]]:
    """The first two tokens of each sentence of the thinking in train traces."""
    for trace in _first(experiment):
        for sentence in trace.sentences:
            text = trace.sentence_text(sentence)
            if trace.think_end is not None and sentence.end > trace.think_end - len(trace.think_tags.close):
                break
            if text.strip():
                yield trace.tokens[sentence.token_start : sentence.token_end][:2]


def _usual_budgets(experiment: Experiment, tag: Closing, on_thinking: bool, most: int) -> list[int]:
    """The median and the 90th percentile of the tokens of thinking in the writing model's validation answers.

    Answers that were cut while the model thought are left out, because how long it would have thought is not known.

    Args:
        most: budgets are below this number of tokens; if none is, half of the limit is the only one.
    """
    traces = experiment.rollouts.validation if on_thinking else own_answers(experiment, on_thinking)
    found = [(trace, tag.span(trace.tokens)) for trace in traces]
    sizes = [len(trace.tokens) if at is None else at[0] for trace, at in found if at is not None or not trace.truncated]
    usual = {max(1, int(size)) for size in np.quantile(sizes, (0.5, 0.9))} if sizes else set()
    return sorted(size for size in usual if size < most) or [max(1, experiment.inputs.max_new_tokens // 2)]


def _find(tokens: Sequence[int], ids: Sequence[int]) -> int | None:
    """Where a text begins in tokens; None if it does not occur."""
    size, wanted = len(ids), tuple(ids)
    return next((at for at in range(len(tokens) - size + 1) if tuple(tokens[at : at + size]) == wanted), None)
