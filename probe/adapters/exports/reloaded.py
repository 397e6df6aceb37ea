"""An exported adapter read again by a process that knows nothing of the first, and compared with the one attached.

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

#: Asked of the model with and without the export, as text.
PROMPTS = ("The answer is", "Problem: 12 + 7 = 19. Check that. Then", "A quick brown fox\njumps over 3 lazy dogs.")
#: Of the greatest logit: a difference up to here is rounding in float32.
_ROUNDING = 1e-5


def compare_export(model: Model, folder: Path, kind: str, path: Path) -> dict[str, float]:
    """Read an export in a fresh process and compare its logits with those of the adapter.

    Args:
        folder: the adapter.
        kind: ``peft``, ``merged`` or ``gguf``.
        path: the export.

    Returns:
        ``difference``, the greatest of a logit; ``effect``, the greatest that the adapter itself makes; ``logit``.

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
            said = (done.stderr.strip() or "no word").splitlines()[-1]
            raise ProbeError(f"{path} was written, and a fresh process cannot read it: {said}")
        found = load_file(task["out"])
    every = [found[str(i)] for i in range(len(wanted))]
    report = {
        "difference": max(float((a - b).abs().max()) for a, b in zip(every, wanted, strict=True)),
        "effect": max(float((a - b).abs().max()) for a, b in zip(plain, wanted, strict=True)),
        "logit": max(float(each.abs().max()) for each in wanted),
    }
    if model.dtype == torch.float32 and report["difference"] > _ROUNDING * max(1.0, report["logit"]):
        raise ProbeError(
            f"{path} does not do what the adapter does: a logit differs by {report['difference']:.2g}, of "
            f"{report['effect']:.2g} that the adapter changes"
        )
    return report


@torch.no_grad()
def _logits(hf: Any, model: Model) -> list[torch.Tensor]:
    ids = [model.tokenizer(text, return_tensors="pt").input_ids.to(model.device) for text in PROMPTS]
    return [hf(input_ids=each).logits[0].float().cpu().contiguous() for each in ids]


def _read(task: dict[str, Any]) -> None:
    """What the fresh process does."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from probe.adapters.exports.export import peft_of_gguf

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
