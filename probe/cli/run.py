"""``probe run``."""

from pathlib import Path
from typing import Annotated, Any

import typer


def run(
    pair: Annotated[str | None, typer.Option(help="A bundled pair (`probe pairs`), or your own pair.yaml.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: a folder or a hub id.")] = None,
    thinking: Annotated[str | None, typer.Option(help="Thinking model: a folder or a hub id.")] = None,
    base_prompt: Annotated[str | None, typer.Option(help="Base model's prompt, with {question}; or 'chat'.")] = None,
    thinking_prompt: Annotated[
        str | None, typer.Option(help="Thinking model's prompt, with {question}; or 'chat'.")
    ] = None,
    problems: Annotated[str | None, typer.Option(help="A problem set's name, or a JSONL file.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. (default: runs/NAME)")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16. (default: float32)")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that draws. (default: 0)")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that run arms at the same time: pays on a CPU. (default: 1)")
    ] = None,
) -> None:
    """Find out how much of a thinking model's advantage its base model recovers when it is steered.

    Traces, behaviours, vectors, every control, and a report. Stop it at any time: the same command goes on.

    Example: probe run --pair tiny-rl --out runs/rl

    Example: probe run --base ./base --thinking org/name --thinking-prompt chat --problems mine.jsonl
    """
    from rich.console import Console

    from probe.config import from_dict, read_yaml
    from probe.pipeline import RunConfig, run as run_pipeline
    from probe.reports import arms_table

    given = {
        "pair": pair,
        "base": {"path": base, "prompt": base_prompt},
        "thinking": {"path": thinking, "prompt": thinking_prompt},
        "problems": problems,
        "device": device,
        "dtype": dtype,
        "seed": seed,
        "workers": workers,
    }
    settings = from_dict(RunConfig, merge(read_yaml(config) if config else {}, given), str(config or ""))
    out = out or Path("runs") / settings.name
    results = run_pipeline(settings, out, progress=True)

    console = Console()
    console.print(arms_table(results))
    # Plain, and not wrapped: a path that can be copied.
    console.out(f"\nResults: {out / 'results.json'}\nReport:  {out / 'report.html'}", highlight=False)


def merge(file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the file with the given options on top; an option that is None was not given.

    Models given one way replace models that the file names the other way.

    >>> merge({"pair": "tiny-rl", "seed": 1, "base": None}, {"seed": 2, "base": {"path": "./b", "prompt": None}})
    {'seed': 2, 'base': {'path': './b'}}
    """
    given = {key: _given(value) for key, value in given.items() if _given(value) not in (None, {})}
    file = dict(file)
    if "pair" in given:
        file = {key: value for key, value in file.items() if key not in ("base", "thinking")}
    elif any("path" in given.get(role, {}) for role in ("base", "thinking")):
        file.pop("pair", None)
    for key, value in given.items():
        old = file.get(key)
        file[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return file


def _given(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value
