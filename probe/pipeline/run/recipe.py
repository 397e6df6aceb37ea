"""Recipes: settings of ``probe run`` under a name, such as those of a published experiment.

A recipe is a YAML file of settings that ships with probe. It gives settings that are given nowhere else, and its
comments say what it cannot express.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.config import nearest, read_yaml
from probe.errors import ProbeError
from probe.models import find_pair
from probe.problems import Mix, is_mix

_FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


def with_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings of a recipe to others, which win.

    A published pair adds the site and the size of its taxonomy and its steering layer. If a recipe names its problems,
    its numbers of problems belong to them; where others are given, the numbers are kept only if these are a mix that
    names as many.

    Args:
        settings: settings of a run, of which ``recipe`` names the recipe; without that key they are returned as they
            are.

    Raises:
        ProbeError: if there is no such recipe or pair.
    """
    settings = dict(settings)
    name = settings.pop("recipe", None)
    if name is None:
        return settings
    if name not in recipe_names():
        raise ProbeError(f"unknown recipe {name!r}; {nearest(str(name), recipe_names())}")
    recipe = read_yaml(_FOLDER / f"{name}.yaml")
    problems = settings.get("problems")
    if problems is not None and "problems" in recipe and not _has(str(problems), recipe.get("sizes", {})):
        recipe.pop("sizes", None)
    if isinstance(pair := settings.get("pair"), str):
        recipe = _over(_facts(pair), recipe)
    if (steering := settings.get("steering")) and isinstance(steering, Mapping) and steering.get("layers"):
        recipe.get("steering", {}).pop("layer", None)
    return _over(settings, recipe)


def _has(problems: str, sizes: Mapping[str, int]) -> bool:
    """Whether problems are a mix with at least these numbers in its splits."""
    if not is_mix(problems):
        return False
    mix = Mix.read(problems)
    shares = {split: mix.of(split).values() for split in sizes}
    return all(
        "all" in some or sum(each for each in some if isinstance(each, int)) >= sizes[split]
        for split, some in shares.items()
    )


def _facts(pair: str) -> dict[str, Any]:
    """What a published pair says about the experiment of its authors, as settings."""
    facts = find_pair(pair).published
    if facts is None:
        return {}
    taxonomy = {"sites": [facts.site] if facts.site else None, "sizes": [facts.size] if facts.size else None}
    return {
        "taxonomy": {name: value for name, value in taxonomy.items() if value is not None},
        "steering": {} if facts.steering_layer is None else {"layer": facts.steering_layer},
    }


def _over(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, completed by others where they give none."""
    made = dict(below)
    for key, value in above.items():
        under = made.get(key)
        made[key] = _over(value, under) if isinstance(value, Mapping) and isinstance(under, Mapping) else value
    return made
