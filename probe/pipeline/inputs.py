"""What a run works on, found and checked before any model runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe._errors import ProbeError
from probe.models import Model, Pair, PairConfig, find_pair, load_pair
from probe.pipeline.config import RunConfig
from probe.problems import Problem, ProblemSet, load_problems


@dataclass(frozen=True)
class Inputs:
    """The pair and the problems of each split."""

    pair: Pair
    problem_set: ProblemSet
    train: Sequence[Problem]
    validation: Sequence[Problem]
    test: Sequence[Problem]

    def hashes(self) -> dict[str, str]:
        """What tells these inputs from others."""
        return {
            "problems": self.problem_set.hash,
            "base": fingerprint(self.pair.base),
            "thinking": fingerprint(self.pair.thinking),
        }


def prepare(config: RunConfig) -> Inputs:
    """Find everything a run needs and refuse what cannot work.

    Raises:
        ProbeError: for a pair, a folder, a problem set or a device that is not there, tokenizers that differ, or too
            few problems.
    """
    if config.pair is not None:
        pair_config = find_pair(config.pair)
    else:
        assert config.base is not None and config.thinking is not None
        pair_config = PairConfig("own", config.base, config.thinking)
    name = config.problems or pair_config.problems
    if name is None:
        raise ProbeError("no problems given: name a problem set or a JSONL file (--problems)")
    problem_set = load_problems(name)
    train, validation, test = (
        problem_set.take(split, getattr(config.sizes, split)) for split in ("train", "validation", "test")
    )
    pair = load_pair(pair_config, device=config.device, dtype=config.dtype)
    return Inputs(pair, problem_set, train, validation, test)


def fingerprint(model: Model) -> str:
    """What tells a model's weights from others without reading them whole: files and sizes, or the revision."""
    files = sorted(Path(model.hf.config._name_or_path).glob("*.safetensors"))
    return ", ".join(f"{file.name} {file.stat().st_size}" for file in files) or str(model.config.revision)
