"""The recipes that make the bundled models; ``probe organism`` runs them."""

from probe.organisms.building import Recipe as Recipe, build as build
from probe.organisms.planted import build_decoupled as build_decoupled, plant_decoupled as plant_decoupled
from probe.organisms.series import SeriesRecipe as SeriesRecipe, build_series as build_series
from probe.organisms.verify import verify as verify
