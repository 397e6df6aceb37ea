"""``probe anchors``: rollouts from the places of traces, kept place by place, and what they say about each sentence."""

from collections.abc import Iterator, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from probe.anchors import (
    Continuations,
    RolloutSet,
    RolloutSettings,
    anchors_of,
    export_rollouts,
    forced_of,
    forced_places,
    pivotal_tokens,
    read_rollouts,
    resilience,
    rollout_sets,
    say_the_same,
    sentence_places,
    stream_rollouts,
    usual_closing,
)
from probe.config import read_as, to_dict
from probe.errors import ProbeError
from probe.files import object_hash, write_json, write_text
from probe.hooks import TokenForwards
from probe.models import Sampling
from probe.pipeline.anchors.averages import averages
from probe.pipeline.anchors.config import AnchorsConfig
from probe.pipeline.anchors.inputs import Inputs, check_room, prepare_anchors, servers_of, traces_to_continue
from probe.pipeline.anchors.kept import kept_rollouts
from probe.pipeline.anchors.rows import forced_row, pivotal_rows, resilience_rows, sentence_rows
from probe.pipeline.folder import RunFolder
from probe.pipeline.prompts import begin
from probe.pipeline.run.inputs import prompt_hash, weights_hash
from probe.problems import Problem, ProblemSet, load_problems
from probe.reports import write_anchors_report
from probe.servers import Servers
from probe.traces import Sentence, Trace, Traces

_INPUTS = ("pair", "thinking", "traces", "rollouts", "thinking_url")
"""Settings that name what is known by its content."""
_NOT_IN_KEY = (*_INPUTS, "device", "memory", "servers", "export", "measure", "every", "behaviours", "patterns")
_TOGETHER = 16
"""The number of sentences whose chains are decoded together; a finished group is not decoded again."""
_FORCED_TOKENS = 12
"""The largest number of tokens of a forced answer."""


def find_anchors(config: AnchorsConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Measure which sentences of some traces matter, and write ``results.json`` and ``report.html``.

    Args:
        config: the settings.
        out: folder of the results. An interrupted call resumes from it: rollouts are kept place by place.
        progress: show progress bars, with the tokens that the model has run.

    Returns:
        The content of ``results.json``: for each trace its sentences with their importance, and averages by behaviour.

    Raises:
        ProbeError: for invalid settings, before the expensive part.
    """
    out = Path(out).expanduser()
    if config.rollouts is not None:
        return _of_rollouts(config, out)
    inputs = prepare_anchors(config)
    problem_set = inputs.problem_set
    settings = {name: value for name, value in to_dict(config).items() if name not in _NOT_IN_KEY}
    key = {
        "anchors": settings,
        "weights": weights_hash(inputs.model),
        "prompt": prompt_hash(inputs.model),
        "problems": problem_set.hash,
        "served": bool(config.thinking_url),
        **inputs.hashes,
    }
    with RunFolder(out, key):
        servers = servers_of(config, inputs)
        prompts = begin(
            out,
            {config.model: inputs.model},
            inputs.problems[0].question,
            {config.model: inputs.sampling},
            remarks=inputs.remarks,
            progress=progress,
        )
        traces = traces_to_continue(config, inputs, servers, out / "traces", progress=progress)
        check_room(inputs, traces)
        spent = TokenForwards()
        work = _Work(config, inputs, servers, spent, out, progress)
        found = [work.trace(i, trace) for i, trace in enumerate(traces) if len(trace.sentences) > 1]
        if not found:
            raise ProbeError(f"none of the {len(traces)} traces has two sentences, so there is nothing to compare")
        if progress and spent.total:
            tqdm.write(f"{spent.prefix:,} tokens of prefixes and {spent.decoded:,} new tokens were run")
        used = [trace for trace in traces if len(trace.sentences) > 1]
        return _finish(config, inputs.model.name, problem_set, found, used, inputs.sampling, prompts, out)


class _Work:
    """The measures of one trace after the other."""

    def __init__(
        self,
        config: AnchorsConfig,
        inputs: Inputs,
        servers: Servers | None,
        spent: TokenForwards,
        out: Path,
        progress: bool,
    ) -> None:
        self.config, self.inputs, self.out = config, inputs, out
        self.progress = progress
        self.how = RolloutSettings(
            n_samples=config.samples,
            max_new_tokens=inputs.limit,
            sampling=inputs.sampling,
            seed=config.seed,
            servers=servers,
            spent=spent,
            progress=progress,
        )

    def trace(self, number: int, trace: Trace) -> dict[str, Any]:
        """Everything that is measured on one trace."""
        config, problem = self.config, self.inputs.problems[number]
        folder = self.out / "rollouts" / f"{number:03d}"
        row: dict[str, Any] = {
            "problem": problem.id,
            "question": problem.question,
            "known": problem.answer,
            "answer": trace.answer,
            "correct": None if trace.failed else trace.correct,
            "tokens": len(trace.tokens),
            "sentences": [{"text": text} for text in trace.sentence_texts],
        }
        if self.progress:
            tqdm.write(f"{problem.id}: {len(trace.sentences)} sentences, {len(trace.tokens)} tokens")
        if "counterfactual" in config.measure:
            self._counterfactual(row, problem, trace, folder / "sentences", number)
        if "resilience" in config.measure:
            self._resilience(row, problem, trace, folder / "resilience")
        if "forced" in config.measure:
            row["forced"] = self._forced(problem, trace, folder / "forced")
        if "critical" in config.measure:
            row["critical"] = self._critical(problem, trace, folder / "critical", number)
        return row

    def _roll(
        self, problem: Problem, trace: Trace, folder: Path, names: Sequence[int], places: Sequence[int], **more: Any
    ) -> list[Continuations]:
        model, problem_set = self.inputs.model, self.inputs.problem_set
        how = self.how | RolloutSettings(**{k: v for k, v in more.items() if k != "forced"})  # pyright: ignore[reportArgumentType]

        def make(there: Set[int]) -> Iterator[tuple[int, Continuations]]:
            if len(there) == len(places):
                return
            forced = str(more.get("forced", ""))
            yield from stream_rollouts(
                model, problem_set, problem, trace, places=places, forced=forced, skip=there, **how
            )

        return kept_rollouts(folder, names, make)

    def _counterfactual(self, row: dict[str, Any], problem: Problem, trace: Trace, folder: Path, number: int) -> None:
        places = sentence_places(trace)
        found = self._roll(problem, trace, folder, range(len(places)), places)
        anchors = anchors_of(
            self.inputs.problem_set,
            problem,
            trace.sentence_texts,
            found,
            alike=say_the_same,
            think_tags=trace.think_tags,
            seed=self.config.seed,
        )
        for each, more in zip(row["sentences"], sentence_rows(anchors), strict=False):
            each.update(more)
        if self.config.export:
            name, prompt = self.inputs.model.name, self.inputs.model.prompt_text(problem.question)
            correct = None if trace.failed else trace.correct
            told = RolloutSet(problem, tuple(trace.sentence_texts), tuple(found), prompt, trace.answer, correct, name)
            _export(told, self.out / "math-rollouts", number, self.inputs.sampling)

    def _resilience(self, row: dict[str, Any], problem: Problem, trace: Trace, folder: Path) -> None:
        some = range(len(trace.sentences) - 1)
        for first in range(0, len(some), _TOGETHER):
            file, group = folder / f"{first:06d}.json", list(some[first : first + _TOGETHER])
            if not file.is_file():
                settings = self.how | RolloutSettings(n_samples=self.config.chains)
                found = resilience(
                    self.inputs.model, self.inputs.problem_set, problem, trace, sentences=group, **settings
                )
                write_json(file, resilience_rows(found))
            for number, each in zip(group, read_as(list[dict[str, Any]], file, fix="remove it"), strict=True):
                row["sentences"][number]["resilience"] = each

    def _forced(self, problem: Problem, trace: Trace, folder: Path) -> dict[str, Any]:
        thinking, places = forced_places(trace, self.config.every)
        kept = [0 if not n else thinking[n - 1].token_end for n in places]
        closing, tokens = usual_closing(trace), min(_FORCED_TOKENS, self.inputs.limit)
        found = self._roll(problem, trace, folder, places, kept, forced=closing, max_new_tokens=tokens)
        return forced_row(forced_of(self.inputs.problem_set, problem, trace, places, found))

    def _critical(self, problem: Problem, trace: Trace, folder: Path, number: int) -> dict[str, Any] | None:
        if problem.answer is None and trace.answer is None:
            return None
        found = pivotal_tokens(
            self.inputs.model,
            self.inputs.problem_set,
            problem,
            trace,
            rollouts=lambda places: self._roll(problem, trace, folder, places, places),
        )
        write_text(self.out / "pivotal" / f"{number:03d}.jsonl", found.lines())
        return pivotal_rows(found)


def _export(told: RolloutSet, folder: Path, number: int, sampling: Sampling) -> None:
    if not list(folder.rglob(f"problem_{number}")):
        export_rollouts(told, folder, number=number, sampling=sampling)


def _of_rollouts(config: AnchorsConfig, out: Path) -> dict[str, Any]:
    """Anchors from the rollouts of others, without a model."""
    read = map(read_rollouts, rollout_sets(config.rollouts or ""))
    sets = list(islice((each for each in read if config.problem in (None, each.problem.id)), config.limit))
    if not sets:
        raise ProbeError(f"no rollouts of {config.rollouts} are of the problem {config.problem!r} (--problem)")
    if config.problems is not None:
        problem_set = load_problems(config.problems, grader=config.grader)
    else:
        problem_set = ProblemSet("rollouts", config.grader or "math-verify", {"test": ()})
    settings = {name: value for name, value in to_dict(config).items() if name not in _NOT_IN_KEY}
    key = {"anchors": settings, "rollouts": object_hash([list(map(vars, each.rollouts)) for each in sets])}
    with RunFolder(out, key):
        found, traces = [], []
        for each in sets:
            anchors = each.anchors(problem_set, alike=say_the_same, seed=config.seed)
            rows = [{"text": text} for text in each.sentences]
            for row, more in zip(rows, sentence_rows(anchors), strict=False):
                row.update(more)
            found.append(
                {
                    "problem": each.problem.id,
                    "question": each.problem.question,
                    "known": each.problem.answer,
                    "answer": each.answer,
                    "correct": each.correct,
                    "tokens": None,
                    "sentences": rows,
                }
            )
            traces.append(_as_trace(each))
        return _finish(config, sets[0].model or "rollouts", problem_set, found, traces, None, None, out)


def _as_trace(found: RolloutSet) -> Trace:
    """A trace without tokens, of which only the sentences are read."""
    spans, start = [], 0
    for text in found.sentences:
        spans.append(Sentence(start, start + len(text), 0, 0))
        start += len(text)
    text = "".join(found.sentences)
    return Trace(found.problem.id, found.prompt, (), text, tuple(spans), None, found.answer, bool(found.correct), False)


def _finish(
    config: AnchorsConfig,
    model: str,
    problem_set: ProblemSet,
    found: list[dict[str, Any]],
    traces: Traces | Sequence[Trace],
    sampling: Sampling | None,
    prompts: dict[str, Any] | None,
    out: Path,
) -> dict[str, Any]:
    results = {
        "schema": 1,
        "model": model,
        "problems": {"name": problem_set.name, "n": len({row["problem"] for row in found})},
        "seed": config.seed,
        "samples": config.samples if config.rollouts is None else None,
        "sampling": None if sampling is None else str(sampling),
        "measure": list(config.measure),
        "traces": found,
        "behaviours": averages(config, problem_set, found, traces),
        "prompts": prompts,
    }
    write_json(out / "results.json", results)
    write_anchors_report(results, out / "report.html")
    return results
