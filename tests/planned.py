"""Configs of models that are planned and never made, with the sizes of Qwen2.5."""

from pathlib import Path

from benchmarks.scaling.fakes import qwen


def write_config(folder: Path, name: str) -> str:
    """Write the config alone into a new folder, and return its path."""
    folder.mkdir(parents=True)
    config = qwen(name)
    config.architectures = ["Qwen2ForCausalLM"]
    (folder / "config.json").write_text(config.to_json_string())
    return str(folder)
