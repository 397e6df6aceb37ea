"""Checks an export: a fresh process loads it, and its logits are compared with those of the attached adapter.

``python -m probe.adapters.exports.reloaded`` is that process.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from probe.adapters.exports.attach import attached
from probe.errors import ProbeError
from probe.models import Model, ModelConfig, load_model

#: Texts whose logits are compared.
PROMPTS = ("The answer is", "Problem: 12 + 7 = 19. Check that. Then", "A quick brown fox\njumps over 3 lazy dogs.")
#: Relative to the largest logit, a difference up to this is rounding in float32.
_ROUNDING = 1e-5


def compare_export(model: Model, folder: str | Path, kind: str, path: str | Path) -> dict[str, float]:
    """Load an export in a fresh process and compare its logits with those of the adapter.

    Args:
        model: the base model.
        folder: the adapter.
        kind: the format: ``peft``, ``merged`` or ``gguf``.
        path: the export.

    Returns:
        ``difference``, the largest difference of a logit; ``effect``, the largest change of a logit by the adapter
        itself; ``logit``, the largest logit.

    Raises:
        ProbeError: if the process fails, or in float32 the logits differ by more than rounding.
    """
    plain = _logits(model.hf, model)
    with attached(model, folder):
        wanted = _logits(model.hf, model)
    with tempfile.TemporaryDirectory() as scratch:
        task = {
            "kind": kind,
            "path": str(path),
            "model": asdict(model.config),
            "dtype": str(model.dtype).removeprefix("torch."),
            "out": str(Path(scratch) / "logits.safetensors"),
        }
        command = [sys.executable, "-W", "ignore", "-m", "probe.adapters.exports.reloaded", json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip() or "it gave no message").splitlines()[-1]
            raise ProbeError(f"{path} was written, but a fresh process cannot read it: {said}")
        found = load_file(task["out"])
    every = [found[str(i)] for i in range(len(wanted))]
    report = {
        "difference": max(float((a - b).abs().max()) for a, b in zip(every, wanted, strict=True)),
        "effect": max(float((a - b).abs().max()) for a, b in zip(plain, wanted, strict=True)),
        "logit": max(float(each.abs().max()) for each in wanted),
    }
    if model.dtype == torch.float32 and report["difference"] > _ROUNDING * max(1.0, report["logit"]):
        raise ProbeError(
            f"{path} does not do what the adapter does: a logit differs by {report['difference']:.2g}, and the adapter "
            f"itself changes a logit by {report['effect']:.2g}"
        )
    return report


@torch.no_grad()
def _logits(hf: Any, model: Model) -> list[torch.Tensor]:
    ids = [torch.tensor([model.encode(text)], device=model.device) for text in PROMPTS]
    return [hf(input_ids=each).logits[0].float().cpu().contiguous() for each in ids]


def _read(task: dict[str, Any]) -> None:
    """Load the export and write its logits; run by the fresh process."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from probe.adapters.exports.gguf import peft_of_gguf

    model, path = load_model(ModelConfig(**task["model"]), device="cpu", dtype=task["dtype"]), task["path"]
    if task["kind"] == "merged":
        hf: Any = AutoModelForCausalLM.from_pretrained(path, dtype=model.dtype)
    else:
        if task["kind"] == "gguf":
            path = peft_of_gguf(model, path, Path(task["out"]).parent / "peft")
        hf = PeftModel.from_pretrained(model.hf, str(path))
    save_file({str(i): each for i, each in enumerate(_logits(hf.eval(), model))}, task["out"])


if __name__ == "__main__":
    _read(json.loads(sys.argv[1]))
