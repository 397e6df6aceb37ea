"""``probe run``: the stages in order, and the folder they are kept in."""

from probe.pipeline.config import DecodingConfig, RunConfig, SizesConfig
from probe.pipeline.run import prepare, run

__all__ = ["DecodingConfig", "RunConfig", "SizesConfig", "prepare", "run"]
