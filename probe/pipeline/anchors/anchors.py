"""``probe anchors``: rollouts from the places of traces, kept place by place, and what they say about each sentence."""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from probe.anchors import (
    Continuations,
    RolloutSet,
    RolloutSettings,
    anchors_of,
    export_rollouts,
    exported_folder,
    forced_of,
    forced_places,
    model_of,
    pivotal_tokens,
    problem_of,
    read_rollouts,
    resilience,
    rollout_sets,
    rollouts_hash,
    sentence_places,
    stream_rollouts,
    usual_closing,
)
from probe.config import read_as, to_dict
from probe.errors import ProbeError
from probe.files import object_hash, read_json, write_json, write_text
from probe.hooks import TokenForwards
from probe.pipeline.anchors.averages import Averages, chosen_behaviours
from probe.pipeline.anchors.config import AnchorsConfig
from probe.pipeline.anchors.inputs import Inputs, check_room, prepare_anchors, servers_of, traces_to_continue
from probe.pipeline.anchors.kept import kept_rollouts
from probe.pipeline.anchors.rows import (
    counted,
    counted_chains,
    forced_row,
    pivotal_rows,
    resilience_rows,
    sentence_rows,
)
from probe.pipeline.folder import RunFolder
from probe.pipeline.prompts import begin
from probe.pipeline.run.inputs import prompt_hash, weights_hash
from probe.problems import Problem, ProblemSet, load_problems
from probe.progress import say
from probe.reports import write_anchors_report
from probe.servers import Servers
from probe.taxonomy import Behaviour
from probe.traces import Sentence, Trace

_INPUTS = ("pair", "thinking", "traces", "rollouts", "thinking_url")
"""Settings that name what is known by its content."""
_NOT_IN_KEY = (*_INPUTS, "device", "memory", "servers", "export", "measure", "every", "behaviours", "patterns", "run")
_TOGETHER = 16
"""The number of sentences whose chains are decoded together; a finished group is not decoded again."""
_READ = 16
"""The number of traces whose behaviours are found together."""
_SHOWN = 100
"""The number of traces that ``results.json`` holds; the others are in ``sentences/`` alone."""
_FORCED_TOKENS = 12
"""The largest number of tokens of a forced answer."""


def find_anchors(config: AnchorsConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Measure which sentences of some traces matter, and write ``results.json`` and ``report.html``.

    Args:
        config: the settings.
        out: folder of the results. An interrupted call resumes from it: rollouts are kept place by place.
        progress: show progress bars, with the tokens that the model has run.

    Returns:
        The content of ``results.json``: for each of the first 100 traces its sentences with their importance, and
        averages by behaviour over all traces. ``sentences/`` holds every trace.

    Raises:
        ProbeError: for invalid settings, before the expensive part.
    """
    out = Path(out).expanduser()
    if config.rollouts is not None:
        return _of_rollouts(config, out)
    inputs = prepare_anchors(config)
    problem_set = inputs.problem_set
    behaviours = chosen_behaviours(config, problem_set, inputs.model)
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
        config = replace(config, measure=measured(out, config.measure))
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
        check_room(inputs, traces, None if servers is None else servers.context)
        spent = TokenForwards()
        work = _Work(config, inputs, servers, spent, out, progress)
        found = ((work.trace(i, trace), trace) for i, trace in enumerate(traces) if len(trace.sentences) > 1)
        about = {
            "model": inputs.model.name,
            "samples": config.samples,
            "sampling": str(inputs.sampling),
            "prompts": prompts,
        }
        results = _finish(config, about, problem_set, behaviours, found, out)
        if progress and spent.total:
            say(f"{spent.prefix:,} tokens of prefixes and {spent.decoded:,} new tokens were run")
        return results


def measured(out: Path, asked: Sequence[str]) -> tuple[str, ...]:
    """The measures of the results in a folder, which are kept, and those that are asked for."""
    file = out / "results.json"
    there = read_json(file, fix="remove it and run the same command again")["measure"] if file.is_file() else ()
    return tuple(dict.fromkeys([*there, *asked]))


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
            "counts": {},
        }
        if self.progress:
            say(f"{problem.id}: {len(trace.sentences)} sentences, {len(trace.tokens)} tokens")
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
        self,
        problem: Problem,
        trace: Trace,
        folder: Path,
        names: Sequence[int],
        places: Sequence[int],
        *,
        forced: str = "",
        max_new_tokens: int | None = None,
    ) -> list[Continuations]:
        model, problem_set = self.inputs.model, self.inputs.problem_set
        how = self.how | RolloutSettings(max_new_tokens=max_new_tokens or self.inputs.limit)

        def make(there: Set[int]) -> Iterator[tuple[int, Continuations]]:
            if len(there) == len(places):
                return
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
            think_tags=trace.think_tags,
            seed=self.config.seed,
        )
        row["counts"] |= counted(found)
        for each, more in zip(row["sentences"], sentence_rows(anchors), strict=False):
            each.update(more)
        if self.config.export:
            name, prompt = self.inputs.model.name, self.inputs.model.prompt_text(problem.question)
            correct = None if trace.failed else trace.correct
            told = RolloutSet(
                problem,
                tuple(trace.sentence_texts),
                tuple(found),
                prompt,
                trace.answer,
                correct,
                name,
                think_tags=trace.think_tags,
            )
            where = {"folder": self.out / "math-rollouts", "number": number, "sampling": self.inputs.sampling}
            if not exported_folder(told, **where).exists():
                export_rollouts(told, **where)

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
            rows = read_as(list[dict[str, Any]], file, fix="remove it and run the same command again")
            if len(rows) != len(group):
                raise ProbeError(f"{file} holds {len(rows)} of {len(group)} sentences: remove it, and run it again")
            for number, each in zip(group, rows, strict=True):
                row["sentences"][number]["resilience"] = each
        row["counts"] |= counted_chains([row["sentences"][number]["resilience"] for number in some])

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


def _of_rollouts(config: AnchorsConfig, out: Path) -> dict[str, Any]:
    """Anchors from the rollouts of others, without a model; one set is held at a time."""
    there = rollout_sets(config.rollouts or "")
    folders = list(islice((each for each in there if config.problem in (None, problem_of(each).id)), config.limit))
    if not folders:
        raise ProbeError(f"no rollouts of {config.rollouts} are of the problem {config.problem!r} (--problem)")
    if config.problems is not None:
        problem_set = load_problems(config.problems, grader=config.grader)
    else:
        problem_set = ProblemSet("rollouts", config.grader or "math-verify", {"test": ()})
    behaviours = chosen_behaviours(config, problem_set, None)
    settings = {name: value for name, value in to_dict(config).items() if name not in _NOT_IN_KEY}
    key = {"anchors": settings, "rollouts": object_hash(list(map(rollouts_hash, folders)))}

    def found() -> Iterator[tuple[dict[str, Any], Trace]]:
        for each in map(read_rollouts, folders):
            anchors = each.anchors(problem_set, seed=config.seed)
            rows = [{"text": text} for text in each.sentences]
            for row, more in zip(rows, sentence_rows(anchors), strict=False):
                row.update(more)
            row = {
                "problem": each.problem.id,
                "question": each.problem.question,
                "known": each.problem.answer,
                "answer": each.answer,
                "correct": each.correct,
                "tokens": None,
                "sentences": rows,
                "counts": counted(each.rollouts, each.failed),
            }
            yield row, _as_trace(each)

    with RunFolder(out, key):
        about = {"model": model_of(folders[0]) or "rollouts", "samples": None, "sampling": None, "prompts": None}
        return _finish(config, about, problem_set, behaviours, found(), out)


def _as_trace(found: RolloutSet) -> Trace:
    """A trace without tokens, of which only the sentences are read."""
    spans, start = [], 0
    for text in found.sentences:
        spans.append(Sentence(start, start + len(text), 0, 0))
        start += len(text)
    text = "".join(found.sentences)
    correct, tags = bool(found.correct), found.think_tags
    return Trace(
        found.problem.id, found.prompt, (), text, tuple(spans), None, found.answer, correct, False, think_tags=tags
    )


def _finish(
    config: AnchorsConfig,
    about: dict[str, Any],
    problem_set: ProblemSet,
    behaviours: Sequence[Behaviour],
    found: Iterator[tuple[dict[str, Any], Trace]],
    out: Path,
) -> dict[str, Any]:
    """Write what is found, a few traces at a time.

    Args:
        about: what ``results.json`` says about the model and its rollouts.
        found: the row of each trace, and the trace.
    """
    means, shown, problems, n = Averages(behaviours), [], set(), 0
    counts: Counter[str] = Counter()
    while some := list(islice(found, _READ)):
        for row, _ in some:
            write_json(out / "sentences" / f"{n:06d}.json", row)
            problems.add(row["problem"])
            counts.update(row["counts"])
            n += 1
        rows, traces = [row for row, _ in some], [trace for _, trace in some]
        means.add(rows, traces)
        shown += rows[: _SHOWN - len(shown)]
    if not n:
        raise ProbeError(
            "no trace has two sentences, so there is nothing to compare: raise --max-new-tokens or give other "
            "problems, in another --out"
        )
    results = {
        "schema": 1,
        "model": about["model"],
        "problems": {"name": problem_set.name, "n": len(problems)},
        "seed": config.seed,
        "samples": about["samples"],
        "sampling": about["sampling"],
        "measure": list(config.measure),
        "n_traces": n,
        "sentences": means.tested,
        "counts": dict(counts),
        "traces": shown,
        "behaviours": means.rows(),
        "prompts": about["prompts"],
    }
    write_json(out / "results.json", results)
    write_anchors_report(results, out / "report.html")
    return results
