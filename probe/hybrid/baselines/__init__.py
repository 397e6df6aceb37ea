"""Baselines that answer without the thinking model: a LoRA, other prompts, majority voting, and LatentSeek."""

from probe.hybrid.baselines.distil import distil_lora, run_lora
from probe.hybrid.baselines.latent_seek import run_latent_seek
from probe.hybrid.baselines.latent_seek_rewards import ConfidenceReward, GradeReward, VerifierReward
from probe.hybrid.baselines.prompting import few_shot_prompt, handbook_prompt, prompted_ids, run_prompted
from probe.hybrid.baselines.sampling import run_majority

__all__ = [
    "ConfidenceReward",
    "GradeReward",
    "VerifierReward",
    "distil_lora",
    "few_shot_prompt",
    "handbook_prompt",
    "prompted_ids",
    "run_latent_seek",
    "run_lora",
    "run_majority",
    "run_prompted",
]
