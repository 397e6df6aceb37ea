"""How the bundled models are made: the recipes that ``probe organism`` runs."""

from probe.organisms.build import Recipe, build
from probe.organisms.planted import build_decoupled, plant_decoupled
from probe.organisms.series import SeriesRecipe, build_series
from probe.organisms.verify import verify

__all__ = ["Recipe", "SeriesRecipe", "build", "build_decoupled", "build_series", "plant_decoupled", "verify"]
