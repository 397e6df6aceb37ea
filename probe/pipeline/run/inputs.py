"""What a run works on, found and checked before any model runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.config import to_dict
from probe.errors import ProbeError
from probe.files import file_hash, object_hash
from probe.models import Model, Pair, PairConfig, find_pair, load_pair
from probe.pipeline.run.config import RunConfig
from probe.problems import Problem, ProblemSet, load_problems
from probe.steering import steering_layer
from probe.taxonomy import taxonomy_sites


@dataclass(frozen=True)
class Inputs:
    """The pair, the problems of each split, and where the models are read and steered.

    Attributes:
        layers: the steering layer of the base model, or those of which one is chosen.
        sites: where the taxonomy may read the thinking model.
        max_new_tokens: the limit of emitted tokens.
    """

    pair: Pair
    problem_set: ProblemSet
    train: Sequence[Problem]
    validation: Sequence[Problem]
    test: Sequence[Problem]
    layers: tuple[int, ...]
    sites: tuple[str, ...]
    max_new_tokens: int

    def hashes(self) -> dict[str, str]:
        """What tells these inputs from others."""
        return {
            "prompts": object_hash(to_dict(self.pair.config)),
            "problems": self.problem_set.hash,
            "base": weights_hash(self.pair.base),
            "thinking": weights_hash(self.pair.thinking),
        }


def prepare(config: RunConfig) -> Inputs:
    """Find everything a run needs and refuse what cannot work.

    Raises:
        ProbeError: for a pair, a folder, a problem set or a device that is not there, tokenizers that differ, too few
            problems, a layer or a site that a model does not have, or answers longer than a model has positions for.
    """
    if config.pair is not None:
        pair_config = find_pair(config.pair)
    else:
        assert config.base is not None and config.thinking is not None
        pair_config = PairConfig(config.name, config.base, config.thinking)
    name = config.problems or pair_config.problems
    if name is None:
        raise ProbeError("no problems given: name a problem set or a JSONL file (--problems)")
    problem_set = load_problems(name)
    train, validation, test = (
        problem_set.take(split, getattr(config.sizes, split)) for split in ("train", "validation", "test")
    )
    pair = load_pair(pair_config, device=config.device, dtype=config.dtype)
    wanted = dict.fromkeys(config.steering.layers) or (config.steering.layer,)
    layers = tuple(steering_layer(pair.base, layer) for layer in wanted)
    sites = taxonomy_sites(pair.thinking, config.taxonomy.sites, decoded=True)
    max_new_tokens = config.decoding.max_new_tokens or pair.config.max_new_tokens
    for model in (pair.base, pair.thinking):
        check_positions(model, (*train, *validation, *test), max_new_tokens)
    return Inputs(pair, problem_set, train, validation, test, layers, sites, max_new_tokens)


def check_positions(model: Model, problems: Sequence[Problem], max_new_tokens: int) -> None:
    """Refuse what a model with a table of positions cannot hold; rotary positions have no end."""
    config = model.hf.config.get_text_config()
    if getattr(config, "rope_parameters", None):
        return
    there = config.max_position_embeddings
    prompt = max(len(model.prompt_ids(problem.question)) for problem in problems)
    if prompt + max_new_tokens > there:
        raise ProbeError(
            f"{model.name} has {there} positions: no room for a prompt of {prompt} tokens and "
            f"{max_new_tokens} new ones; set decoding.max_new_tokens, or give shorter problems"
        )


def weights_hash(model: Model) -> str:
    """What tells a model's weights from others: a hash of the files in its folder, or the commit on the hub."""
    config, path = model.hf.config, Path(model.config.path).expanduser()
    files = [path] if path.suffix == ".gguf" else sorted(Path(config._name_or_path).glob("*.safetensors"))
    if files:
        return object_hash({file.name: file_hash(file) for file in files})
    return str(getattr(config, "_commit_hash", None) or model.config.revision)
