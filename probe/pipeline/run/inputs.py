"""Finds and checks what a run works on, before any model runs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.files import file_hash, object_hash
from probe.hybrid import answer_prompts, by_problem, grade_answers
from probe.models import Model, Pair, PairConfig, PairSampling, ThinkTags, load_pair
from probe.pipeline.imported import ImportedSplits, check_reader, imported_splits
from probe.pipeline.run.config import RunConfig, SizesConfig
from probe.pipeline.run.kept import pair_of
from probe.problems import SPLITS, Problem, ProblemSet, Taken, is_generated, load_problems, take_problems
from probe.statistics import Grades
from probe.steering import steering_layer
from probe.taxonomy import taxonomy_sites


@dataclass(frozen=True)
class Inputs:
    """The pair, the problems of each split, and where the models are read and steered.

    Attributes:
        pair: both models.
        problem_set: the problems and their grader.
        train, validation, test: the problems of each split.
        layers: steering layers of the base model; if there are several, one is chosen on validation.
        sites: sites of the thinking model at which the taxonomy may be.
        max_new_tokens: maximum number of tokens of an answer.
        sampling: how the models are sampled, and the number of answers to each test problem.
        imported: the traces that replace the thinking model's own on train and validation; None if there are none.
        remarks: sentences on how the problems differ from what was requested.
    """

    pair: Pair
    problem_set: ProblemSet
    train: Sequence[Problem]
    validation: Sequence[Problem]
    test: Sequence[Problem]
    layers: tuple[int, ...]
    sites: tuple[str, ...]
    max_new_tokens: int
    sampling: PairSampling
    imported: ImportedSplits | None = None
    remarks: tuple[str, ...] = ()

    def settled(self, config: RunConfig) -> RunConfig:
        """The settings with the numbers of problems that were actually taken. Results depend on these settings."""
        taken = {split: len(getattr(self, split)) for split in ("train", "validation", "test")}
        return replace(config, sizes=SizesConfig(**taken))

    def graded(self, problems: Sequence[Problem], texts: Sequence[str], thinking: Sequence[str]) -> Grades:
        """Grade the answers of an arm, each after the prompt of the model that wrote it; see `answer_prompts`.

        Args:
            problems: the problems that were answered.
            texts: the answers; the answers to a problem follow each other.
            thinking: the thinking model's answers to the same problems.

        Returns:
            For each problem a grade or, if it has several answers, all their grades.
        """
        samples = max(1, len(texts) // max(1, len(problems)))
        asked = [problem for problem in problems for _ in range(samples)]
        own = by_problem(thinking, max(1, len(thinking) // max(1, len(problems))))
        prompts = answer_prompts(self.pair, asked, texts, [each for each in own for _ in range(samples)])
        grades = grade_answers(self.problem_set, asked, texts, self.pair.think_tags, prompts)
        return grades if samples == 1 else by_problem(grades, samples)

    def hashes(self) -> dict[str, str]:
        """Hash what a run depends on beside its settings, by content: where it lies does not count."""
        return {
            "prompts": prompts_hash(self.pair),
            "problems": self.problem_set.hash,
            "base": weights_hash(self.pair.base),
            "thinking": weights_hash(self.pair.thinking),
            **({} if self.imported is None else {"traces": self.imported.hash}),
        }


def prompts_hash(pair: Pair) -> str:
    """Hash how both models are asked, and where their thinking ends."""
    tags = pair.think_tags
    told = [prompt_hash(pair.base), prompt_hash(pair.thinking), tags.close, pair.config.max_new_tokens]
    return object_hash(told if tags == ThinkTags.of(tags.close) else [*told, tags.open])


def prompt_hash(model: Model) -> str:
    """Hash how a model is asked."""
    chat, more = model.config.prompt == "chat", model.asked_otherwise
    told = [model.config.prompt, str(model.tokenizer.chat_template) if chat else None]
    return object_hash([*told, more] if more else told)


def prepare(config: RunConfig, pair_config: PairConfig | None = None) -> Inputs:
    """Load everything that a run needs and refuse settings that cannot work.

    Args:
        config: the settings.
        pair_config: the pair, if it was moved since the run began; None for the pair that the settings name.

    Raises:
        ProbeError: for an unknown pair, folder, problem set or device, tokenizers that differ, a split without
            problems that can be taken, too few train problems for the arm few-shot or the learning curve, a layer or
            site that a model does not have, or answers that need more positions than a model has.
    """
    pair_config = pair_config or pair_of(config)
    taken, imported = taken_problems(config, pair_config, sizes_of(config.sizes), graded=("validation", "test"))
    train, validation, test = (taken.splits[split] for split in ("train", "validation", "test"))
    _check_train(config, train)
    pair = load_pair(
        pair_config,
        device=config.device,
        dtype=config.dtype,
        base_device=config.base_device,
        thinking_device=config.thinking_device,
        memory=config.memory,
    )
    if imported is not None:
        check_reader(imported.folder, pair.thinking)
    pair.base.check_gradient("learning vectors")
    if "decoder-rows" in config.hybrid.names and pair.base.d_model != pair.thinking.d_model:
        raise ProbeError(
            f"decoder rows are {pair.thinking.d_model} wide, {pair.base.name} is {pair.base.d_model} wide; "
            "leave the arm decoder-rows out of hybrid.arms"
        )
    wanted = dict.fromkeys(config.steering.layers) or (config.steering.layer,)
    layers = tuple(steering_layer(pair.base, layer) for layer in wanted)
    sites = taxonomy_sites(pair.thinking, config.taxonomy.sites, decoded=True)
    max_new_tokens = config.decoding.max_new_tokens or pair.config.max_new_tokens
    for model in (pair.base, pair.thinking):
        check_positions(model, (*train, *validation, *test), max_new_tokens)
    sampling, problem_set = config.decoding.sampling(pair), taken.problem_set
    return Inputs(
        pair, problem_set, train, validation, test, layers, sites, max_new_tokens, sampling, imported, taken.remarks
    )


def _check_train(config: RunConfig, train: Sequence[Problem]) -> None:
    """Check that there are enough train problems for the settings, before their traces are made."""
    if wrong := [n for n in config.curve if n > len(train)]:
        raise ProbeError(f"curve has {wrong[0]} traces, but there are {len(train)} train problems; give fewer")
    known = sum(problem.answer is not None for problem in train)
    if "few-shot" in config.hybrid.names and known < config.hybrid.shots:
        raise ProbeError(
            f"the arm few-shot shows {config.hybrid.shots} solved train problems, but only {known} have a known "
            "answer; lower hybrid.shots, or leave out the arm"
        )


def sizes_of(sizes: Any) -> dict[str, int]:
    """The number of problems of each split in a section ``sizes``."""
    return {split: getattr(sizes, split) for split in SPLITS if hasattr(sizes, split)}


def taken_problems(
    config: Any, pair: PairConfig, wanted: Mapping[str, int], *, graded: Collection[str] = ()
) -> tuple[Taken, ImportedSplits | None]:
    """Take the problems that a run or a discovery works on.

    Args:
        config: its settings. With imported traces, train and validation problems are those that have traces.
        pair, wanted, graded: as in :func:`chosen_problems`.

    Returns:
        The problems, and the imported traces; None if there are none.

    Raises:
        ProbeError: as in :func:`chosen_problems`, and if no imported trace answers a problem of a split.
    """
    if config.traces is None:
        return chosen_problems(config.problems, config.grader, pair, wanted, graded=graded), None
    imported = imported_splits(config.traces, config.problems, config.grader, pair, needed=wanted)
    for split in ("train", "validation"):
        imported.take(split, wanted[split])  # the error says what is missing
    taken = take_problems(imported.offered, wanted, graded=[split for split in graded if split == "test"])
    return replace(taken, problem_set=imported.problem_set), imported


def chosen_problems(
    problems: str | None,
    grader: str | None,
    pair: PairConfig,
    wanted: Mapping[str, int],
    *,
    graded: Collection[str] = (),
) -> Taken:
    """Load the problems that the settings name, or else the problems of the pair with the pair's grader.

    Args:
        problems, grader: what the settings name; None if they name nothing.
        pair: the pair.
        wanted: the largest number of problems of each split that is needed; a generated set is made that large.
        graded: the splits in which answers must be known.

    Raises:
        ProbeError: if neither names problems, the problems cannot be loaded, or a split has none that can be taken.
    """
    name = problems or pair.problems
    if name is None:
        raise ProbeError("no problems given: name a problem set or a file (--problems)")
    grader = grader or (None if problems else pair.grader)
    found = load_problems(name, grader=grader)
    more = {split: n for split, n in wanted.items() if n > len(found.splits.get(split, ()))}
    if more and is_generated(name):
        larger = load_problems(name, grader=grader, sizes=more)
        if all(len(larger.splits[split][:n]) == n for split, n in wanted.items()):  # a task may have no more questions
            found = larger
    return take_problems(found, wanted, graded=graded)


def check_positions(model: Model, problems: Sequence[Problem], max_new_tokens: int) -> None:
    """Refuse problems whose prompts or answers a model cannot read; rotary positions have no limit.

    Raises:
        ProbeError: if a prompt has no token or an unknown one, or the longest prompt and answer do not fit.
    """
    model.check_ids((model.prompt_ids(problem.question) for problem in problems), max_new_tokens=max_new_tokens)


def weights_hash(model: Model) -> str:
    """Identify a model's weights by a hash of the files in its folder, or by the commit on the hub.

    An adapter counts with its files and with whether it is merged, and so do settings of a quantisation.
    """
    config, settings = model.hf.config, model.config
    path = Path(settings.path).expanduser()
    files = [path] if path.suffix == ".gguf" else sorted(Path(config._name_or_path).glob("*.safetensors"))
    if files:
        found = object_hash({file.name: file_hash(file) for file in files})
    else:
        found = str(model.commit or settings.revision)
    if model.adapter is None and settings.quantization is None:
        return found
    own = [model.adapter / name for name in _ADAPTER_FILES] if model.adapter is not None else []
    adapter = {file.name: file_hash(file) for file in own}
    return object_hash([found, adapter, settings.merge, settings.quantization])


_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
