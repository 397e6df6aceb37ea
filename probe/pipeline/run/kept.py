"""What a run keeps of its inputs, so that it opens from any folder, and after it was moved."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from probe.config import as_type, from_dict, read_as, to_dict
from probe.errors import ProbeError
from probe.files import absolute, located, write_json, write_text
from probe.models import PairConfig, find_pair
from probe.pipeline.place import find_again, found, note_place
from probe.pipeline.run.config import RunConfig
from probe.problems import Mix

if TYPE_CHECKING:
    from probe.traces import Traces

CONFIG, _PAIR, _PROBLEMS = "config.json", "pair.yaml", "problems"


def here(config: RunConfig) -> RunConfig:
    """The settings with every relative path made absolute."""
    return from_dict(RunConfig, located(to_dict(config), Path.cwd()))


def keep_inputs(config: RunConfig, pair: PairConfig, out: Path) -> None:
    """Write the settings of a run, its pair and its problem file into its folder."""
    note_place(out)
    if config.pair is not None and is_path(config.pair):
        write_text(out / _PAIR, yaml.safe_dump(to_dict(pair), sort_keys=False, allow_unicode=True))
    problems = config.problems or pair.problems
    if problems is not None and is_path(problems) and Path(problems).is_file():
        kept = out / _PROBLEMS / Path(problems).name
        if absolute(problems) != absolute(kept):
            kept.parent.mkdir(exist_ok=True)
            if problems.endswith((".yaml", ".yml")):  # its paths begin at its own folder, so they are made absolute
                write_text(kept, yaml.safe_dump(to_dict(Mix.read(problems)), allow_unicode=True))
            else:
                shutil.copyfile(problems, kept)
    write_json(out / CONFIG, to_dict(config))


def keep_traces(folder: Path, traces: Mapping[str, "Traces"]) -> None:
    """Write traces with their texts beside their tokens, so that they can be read without the models.

    Args:
        folder: the folder of the traces.
        traces: the traces by the name of their folder; traces that are already kept are not written again.
    """
    for name, each in traces.items():
        if not (folder / name / "traces.parquet").is_file():
            each.save(folder / name)


def recalled(out: str | Path) -> tuple[RunConfig, PairConfig]:
    """The settings of a run, and its pair, with paths that lead there from where the run is now.

    Whether what they lead to is still the same is checked by its content when the run is opened.

    Raises:
        ProbeError: if the folder holds no run, or its settings are damaged.
    """
    out = Path(out).expanduser()
    written = out / CONFIG
    if not written.is_file():
        raise ProbeError(f"{out} holds no run; make one with: probe run --pair tiny-rl --out {out}")
    settings = read_as(dict[str, Any], written)
    if "epochs" in as_type(dict[str, Any], settings.get("steering") or {}, f"{written}.steering"):
        raise ProbeError(
            f"{out} was made by a version that trained for a number of epochs: its results and report can be read, but "
            "nothing can be added; run it again in another folder"
        )
    settings.pop("workers", None)  # of an earlier version; it said how many processes ran arms
    config = from_dict(RunConfig, find_again(settings, out), str(written))
    if config.pair is not None and is_path(config.pair):
        config = replace(config, pair=found(config.pair, out, out / _PAIR))
    pair = from_dict(PairConfig, find_again(to_dict(pair_of(config)), out))
    problems = config.problems or pair.problems
    if problems is not None and is_path(problems):
        config = replace(config, problems=found(problems, out, out / _PROBLEMS / Path(problems).name))
    return config, pair


def pair_of(config: RunConfig) -> PairConfig:
    """The settings of the pair that a run names.

    Raises:
        ProbeError: if there is no such pair.
    """
    if config.pair is not None:
        return find_pair(config.pair)
    assert config.base is not None and config.thinking is not None
    return PairConfig(config.name, config.base, config.thinking)


def with_arms(config: RunConfig, arms: Sequence[str]) -> RunConfig:
    """The settings of a run with more arms or recipes.

    Raises:
        ProbeError: for an unknown arm.
    """
    return replace(config, hybrid=replace(config.hybrid, arms=tuple(dict.fromkeys((*config.hybrid.arms, *arms)))))


def is_path(name: str) -> bool:
    """Whether the name of a pair or a problem set is the path of a file."""
    return name.endswith((".yaml", ".yml", ".jsonl", ".parquet"))
