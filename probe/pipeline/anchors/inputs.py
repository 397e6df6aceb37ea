"""What ``probe anchors`` works on: the model, and the traces with their problems."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, PairConfig, Sampling, find_pair, load_model
from probe.pipeline.anchors.config import AnchorsConfig
from probe.pipeline.imported import check_reader
from probe.pipeline.run.inputs import chosen_problems
from probe.problems import SPLITS, Problem, ProblemSet
from probe.servers import Servers
from probe.traces import ImportedTraces, Traces, generate_traces, open_servers, served_traces

_USUAL = Sampling(temperature=0.6, top_p=0.95)
"""The sampling of Thought Anchors."""
_LOOKED = 1000
"""The largest number of problems of a split among which an id is looked for."""
_TOKENS = 16384
"""The largest number of tokens of a trace of a model without a pair, as in the paper."""


@dataclass(frozen=True)
class Inputs:
    """A model with the problems whose traces it continues.

    Attributes:
        model: the model.
        problem_set: grades the answers.
        problems: the problem of each trace.
        imported: the imported traces, and which of them are used; None where the model writes them.
        sampling: how the model is sampled.
        limit: the largest number of tokens of a trace and of a rollout.
        remarks: what was said about the problems.
    """

    model: Model
    problem_set: ProblemSet
    problems: tuple[Problem, ...]
    imported: tuple[ImportedTraces, tuple[int, ...]] | None
    sampling: Sampling
    limit: int
    remarks: tuple[str, ...]

    @property
    def hashes(self) -> dict[str, Any]:
        """What the imported traces are, by content."""
        return {} if self.imported is None else {"traces": self.imported[0].about["content"]}


def prepare_anchors(config: AnchorsConfig) -> Inputs:
    """Load the model and choose the problems.

    Raises:
        ProbeError: for an unknown model, problem set or problem, and traces of another tokenizer.
    """
    pair, member = _members(config)
    model = load_model(member, device=config.device, dtype=config.dtype, memory=config.memory)
    sampling = config.sampling or (_USUAL if model.own_sampling.greedy else model.own_sampling)
    if config.traces is not None:
        problem_set, problems, imported = _of_traces(config, model)
        limit = _limit(config, pair, model, problems)
        return Inputs(model, problem_set, problems, imported, sampling, limit, ())
    taken = chosen_problems(config.problems, config.grader, pair, {"test": config.limit})
    problems, problem_set = taken.splits["test"], taken.problem_set
    if config.problem is not None:
        problems = (_named(problem_set, config.problem),)
    limit = _limit(config, pair, model, problems)
    return Inputs(model, problem_set, tuple(problems), None, sampling, limit, tuple(taken.remarks))


def _limit(config: AnchorsConfig, pair: PairConfig, model: Model, problems: Sequence[Problem]) -> int:
    """The largest number of tokens of a trace and of a rollout.

    If nothing says it, a prompt, a trace and a rollout from its end fit into the positions of the model.
    """
    if config.max_new_tokens is not None or config.pair is not None:
        return config.max_new_tokens or pair.max_new_tokens
    positions = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
    prompt = max(len(model.prompt_ids(problem.question)) for problem in problems)
    return _TOKENS if not positions else max(1, min(_TOKENS, (positions - prompt) // 2))


def _members(config: AnchorsConfig) -> tuple[PairConfig, ModelConfig]:
    if config.thinking is not None:
        name = Path(config.thinking.path).name
        return PairConfig(name, base=config.thinking, thinking=config.thinking), config.thinking
    assert config.pair is not None
    pair = find_pair(config.pair)
    member: ModelConfig = getattr(pair, config.model)
    if pair.think_close is not None and member.think_close is None:
        member = replace(member, think_close=pair.think_close)
    return pair, member


def _named(problem_set: ProblemSet, name: str) -> Problem:
    for split in SPLITS:
        for problem in problem_set.splits.get(split, ())[:_LOOKED]:
            if problem.id == name:
                return problem
    raise ProbeError(f"{problem_set.name} has no problem with the id {name!r} (--problem)")


def _of_traces(
    config: AnchorsConfig, model: Model
) -> tuple[ProblemSet, tuple[Problem, ...], tuple[ImportedTraces, tuple[int, ...]]]:
    imported = ImportedTraces(Path(config.traces or "").expanduser())
    check_reader(imported, model)
    problem_set = imported.problem_set
    by_id = {each.id: each for split in problem_set.splits.values() for each in split}
    ids = imported.traces.column("problem_id")
    rows = [row for row, name in enumerate(ids) if config.problem in (None, name)][: config.limit]
    if not rows:
        raise ProbeError(f"no trace of {config.traces} answers the problem {config.problem!r} (--problem)")
    return problem_set, tuple(by_id[ids[row]] for row in rows), (imported, tuple(rows))


def servers_of(config: AnchorsConfig, inputs: Inputs) -> Servers | None:
    """The servers that write, checked; None where the model writes here."""
    if not config.thinking_url:
        return None
    return open_servers(
        config.thinking_url,
        inputs.model,
        inputs.problems,
        max_new_tokens=inputs.limit,
        sampling=inputs.sampling,
        config=config.servers,
        setting="thinking_url",
    )


def traces_to_continue(
    config: AnchorsConfig, inputs: Inputs, servers: Servers | None, folder: Path, *, progress: bool
) -> Traces:
    """The trace of each problem: imported, or written by the model or its servers."""
    if inputs.imported is not None:
        imported, rows = inputs.imported
        return imported.traces.only(rows)
    how = {"max_new_tokens": inputs.limit, "sampling": inputs.sampling, "seed": config.seed, "folder": folder}
    if servers is not None:
        return served_traces(inputs.model, inputs.problem_set, inputs.problems, servers, progress=progress, **how)
    return generate_traces(inputs.model, inputs.problem_set, inputs.problems, progress=progress, **how)


def check_room(inputs: Inputs, traces: Traces, context: int | None = None) -> None:
    """Refuse traces whose rollouts would not fit the model or its servers, before any is sampled.

    Args:
        inputs, traces: the problems, and the trace of each.
        context: the number of tokens that servers take; None if there are none, or they do not say it.
    """
    for trace, problem in zip(traces, inputs.problems, strict=True):
        ids = [*inputs.model.prompt_ids(problem.question), *trace.tokens]
        inputs.model.check_ids([ids], max_new_tokens=inputs.limit)
        if context is not None and len(ids) + inputs.limit > context:
            raise ProbeError(
                f"the trace of {problem.id} has {len(ids)} tokens with its prompt, and a rollout up to {inputs.limit}, "
                f"but the servers have a context of {context}; give them a longer one, or set max_new_tokens lower"
            )
