"""How the bundled pairs are made: the recipe that ``probe organism`` runs."""

from probe.organisms.build import Recipe, build
from probe.organisms.verify import verify

__all__ = ["Recipe", "build", "verify"]
