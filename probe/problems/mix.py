"""Problem sets that are put together from others: by a YAML file that says how many of each, or by ``A+B``."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from probe.config import from_dict, read_yaml
from probe.errors import ProbeError
from probe.files import absolute, is_there, located
from probe.problems.local import HASHED
from probe.problems.problem_set import SPLITS, Problem, ProblemSet

Share = int | Literal["all"]
Load = Callable[[str], ProblemSet]

_FOLDER = Path(__file__).parent / "mixes"
MIXES = tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))
"""The mixes that ship with probe."""


@dataclass(frozen=True)
class Mix:
    """How many problems of which sets make up each split.

    Raises:
        ProbeError: if no split names a set, or a number is below 1.
    """

    train: dict[str, Share] = field(default_factory=dict)
    """Sets of the train split, each with a number of problems or ``all``."""
    validation: dict[str, Share] = field(default_factory=dict)
    """Sets of the validation split."""
    test: dict[str, Share] = field(default_factory=dict)
    """Sets of the test split."""

    def __post_init__(self) -> None:
        if not any(self.of(split) for split in SPLITS):
            raise ProbeError("a mix of problem sets names no set; write, for example, train: {math-train: 500}")
        for split in SPLITS:
            for name, share in self.of(split).items():
                if isinstance(share, int) and share < 1:
                    raise ProbeError(f"{split}.{name} is {share} in a mix; give at least 1, or 'all'")

    def of(self, split: str) -> dict[str, Share]:
        """The sets of a split."""
        return getattr(self, split)

    @property
    def sets(self) -> tuple[str, ...]:
        """Every set that is named, once."""
        return tuple(dict.fromkeys(name for split in SPLITS for name in self.of(split)))

    @classmethod
    def read(cls, spec: str) -> "Mix":
        """Read the mix that a name, a YAML file or ``A+B`` stands for.

        Raises:
            ProbeError: if the file is missing or holds something else.
        """
        if spec not in MIXES and not spec.endswith((".yaml", ".yml")):
            everything: dict[str, Share] = {name: "all" for name in spec.split("+")}
            if "" in everything:
                raise ProbeError(f"the problems '{spec}' join a set without a name; write, for example, gsm8k+math500")
            return cls(everything, everything, everything)
        path = _FOLDER / f"{spec}.yaml" if spec in MIXES else Path(spec).expanduser()
        written = read_yaml(path)
        for split in SPLITS:
            if isinstance(some := written.get(split), Mapping):
                written[split] = {
                    located({"problems": str(name)}, path.parent)["problems"]: n for name, n in some.items()
                }
        mix = from_dict(cls, written, str(path))
        if absolute(path) in mix.sets:
            raise ProbeError(f"the mix of problem sets {path} names itself; name the sets that it is made of")
        return mix


def is_mix(spec: str) -> bool:
    """Whether a problem set is put together from others: a mix by name, a YAML file, or sets joined by ``+``.

    >>> is_mix("math"), is_mix("math-train+aime-24"), is_mix("gsm8k")
    (True, True, False)
    """
    if spec in MIXES or spec.endswith((".yaml", ".yml")):
        return True
    there = (spec, spec.partition(":")[2])  # the name of a file may have a +, also after the name of a set
    return "+" in spec and not any(is_there(Path(each).expanduser()) for each in there if each)


def mixed_set(spec: str, load: Load) -> ProblemSet:
    """Load the sets of a mix and put them together; each split is in an order by a hash of the question.

    A set with splits of its own gives each of them. One without is divided among the splits that name it: by the
    numbers, or by its own hash where all of them say ``all``. A question that is in several sets is kept once; the test
    split has the first choice, and numbers have it before ``all``.

    Args:
        spec: the name of a mix, a YAML file, or names of sets joined by ``+``.
        load: loads a set by its name.

    Raises:
        ProbeError: if a set cannot be loaded or has too few problems.
    """
    mix = Mix.read(spec)
    sets = {name: _loaded(name, load, spec) for name in mix.sets}
    if len({each.name for each in sets.values()}) < len(sets):
        names = sorted(each.name for each in sets.values())
        again = next(name for name, other in itertools.pairwise(names) if name == other)
        raise ProbeError(f"two sets of the mix {spec} are called {again}; name each once")
    sources = {name: _sources(name, problem_set, mix) for name, problem_set in sets.items()}
    wanted = [(split, name, share) for split in reversed(SPLITS) for name, share in mix.of(split).items()]
    found: dict[str, list[Problem]] = {split: [] for split in SPLITS}
    home: dict[str, tuple[ProblemSet, Problem]] = {}
    met: set[str] = set()
    for split, name, share in sorted(wanted, key=lambda each: each[2] == "all"):
        fresh = _fresh(sources[name][split], met)
        some = list(itertools.islice(fresh, share if isinstance(share, int) else None))
        if isinstance(share, int) and len(some) < share:
            raise ProbeError(f"{share} {split} problems of {name} requested, but it has only {len(some)} for them")
        for problem in some:
            own = f"{sets[name].name}:{problem.id}"
            home[own] = sets[name], problem
            found[split].append(replace(problem, id=own))
    counters = {each.counter for each in sets.values()}
    return ProblemSet(
        Path(spec).stem if spec.endswith((".yaml", ".yml")) else spec,
        " or ".join(dict.fromkeys(each.grader for each in sets.values())),
        {split: tuple(sorted(some, key=_order)) for split, some in found.items()},
        verifier=lambda answer, problem: (each := home[problem.id])[0].verdict(answer, each[1]),
        counter=counters.pop() if len(counters) == 1 else "habits",
        note="; ".join(f"{name}: {each.note}" for name, each in sets.items() if each.note),
    )


def _loaded(name: str, load: Load, spec: str) -> ProblemSet:
    try:
        return load(name)
    except ProbeError as error:
        if spec not in MIXES:
            raise
        copy = f"; to change the sets of {spec}, copy {_FOLDER / spec}.yaml and name the copy as the problems"
        raise ProbeError(f"{error}{copy}") from None


def _sources(name: str, problem_set: ProblemSet, mix: Mix) -> dict[str, Iterator[Problem]]:
    """What a set gives to each split that names it; splits that share its problems share an iterator."""
    shares = {split: mix.of(split)[name] for split in SPLITS if name in mix.of(split)}
    by_hash = len(shares) > 1 and set(shares.values()) == {"all"}
    if HASHED not in problem_set.note or by_hash:
        return {split: iter(problem_set.splits.get(split, ())) for split in shares}
    if list(shares.values()).count("all") > 1:
        raise ProbeError(f"a mix wants all of {problem_set.name} for two splits; give a number for one of them")
    pool = iter(sorted((problem for some in problem_set.splits.values() for problem in some), key=_order))
    return dict.fromkeys(shares, pool)


def _fresh(problems: Iterator[Problem], met: set[str]) -> Iterator[Problem]:
    """The problems whose question was not met before."""
    for problem in problems:
        if (words := " ".join(problem.question.split())) not in met:
            met.add(words)
            yield problem


def _order(problem: Problem) -> str:
    return hashlib.sha256(" ".join(problem.question.split()).encode("utf-8")).hexdigest()
