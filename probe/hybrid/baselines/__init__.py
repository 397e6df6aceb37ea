"""Baselines that answer without the thinking model: a distilled LoRA, other prompts, and majority voting."""

from probe.hybrid.baselines.distil import distil_lora, run_lora
from probe.hybrid.baselines.prompting import few_shot_prompt, handbook_prompt, prompted_ids, run_prompted
from probe.hybrid.baselines.sampling import run_majority

__all__ = [
    "distil_lora",
    "few_shot_prompt",
    "handbook_prompt",
    "prompted_ids",
    "run_lora",
    "run_majority",
    "run_prompted",
]
