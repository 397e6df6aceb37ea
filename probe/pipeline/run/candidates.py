"""The candidates of arms of which one setting is chosen on validation: texts and budgets, instructions, strengths."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from probe.errors import ProbeError
from probe.hybrid import Arm, Budget, Instruction, addition_arm, script_arm
from probe.models import Model
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
        ProbeError: if the tokenizer cannot write the closing tag.
    """
    model, config = _model(experiment, on_thinking), experiment.config.hybrid
    close = closing_ids(experiment, model)
    ends = (close[0], *model.eos_ids)
    endings = {text: (*close, *ids) for text in config.endings if (ids := written(model, text)) is not None}
    waits = _writable(model, config.waits) or _usual_texts(experiment, model)
    found = {}
    for tokens in config.budgets or _usual_budgets(experiment, close):
        for text, ids in endings.items():
            found[f"stop at {tokens} by {text!r}"] = Budget(close, ends, most=tokens, ending=ids)
        for text, ids in waits.items():
            found[f"extend to {tokens} by {text!r}"] = Budget(close, ends, least=tokens, wait=ids)
    return {setting: script_arm(script, name) for setting, script in found.items()}


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
        raise ProbeError(f"{model.name} can write none of hybrid.instructions; give one that its tokenizer can write")
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


def closing_ids(experiment: Experiment, model: Model) -> tuple[int, ...]:
    """The token ids of the closing tag as the thinking model's traces hold it, which may include a space before it.

    Raises:
        ProbeError: if the tokenizer of a model cannot write the tag.
    """
    tag = experiment.inputs.pair.think_tags.close
    ways = [ids for before in ("", " ", "\n") if tag and (ids := written(model, before + tag))]
    if not ways:
        raise ProbeError(
            f"the tokenizer of {model.name} cannot write the tag {tag!r} that closes the thinking; set think_close in "
            "the pair, or leave out the arm"
        )
    traces = list(_first(experiment))
    return max(ways, key=lambda ids: sum(_find(trace.tokens, ids) is not None for trace in traces))


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


def _usual_budgets(experiment: Experiment, close: tuple[int, ...]) -> list[int]:
    """The median and the 90th percentile of the tokens of thinking in validation traces."""
    sizes = []
    for trace in experiment.rollouts.validation:
        end = _find(trace.tokens, close)
        sizes.append(len(trace.tokens) if end is None else end)
    limit = experiment.inputs.max_new_tokens
    return sorted({min(max(1, int(size)), limit) for size in np.quantile(sizes, (0.5, 0.9))})


def _find(tokens: Sequence[int], ids: Sequence[int]) -> int | None:
    """Where a text begins in tokens; None if it does not occur."""
    size, wanted = len(ids), tuple(ids)
    return next((at for at in range(len(tokens) - size + 1) if tuple(tokens[at : at + size]) == wanted), None)
