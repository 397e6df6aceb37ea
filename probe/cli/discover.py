"""``probe discover``."""

from pathlib import Path
from typing import Annotated

import typer


def discover(
    pair: Annotated[
        str | None,
        typer.Option(help="A bundled pair (`probe pairs`) or your own pair.yaml; its thinking model is read."),
    ] = None,
    thinking: Annotated[str | None, typer.Option(help="Instead of a pair: a model's folder or hub id.")] = None,
    thinking_prompt: Annotated[str | None, typer.Option(help="Its prompt, with {question}; or 'chat'.")] = None,
    problems: Annotated[str | None, typer.Option(help="A problem set's name, or a JSONL file.")] = None,
    sites: Annotated[
        str | None, typer.Option(help="Such as resid_post.1,resid_post.2. (default: six blocks, evenly apart)")
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Numbers of behaviours, such as 4,8,12 or 5-50:5. (default: by the model's width)"),
    ] = None,
    rivals: Annotated[
        str | None, typer.Option(help="Families to compare with, such as agglomerative,jumprelu; or none.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Who names the behaviours: a chat model's folder or hub id. (default: nobody)")
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, at which --judge is a model's name.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here win.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder. (default: runs/NAME-behaviours)")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16. (default: float32)")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that draws. (default: 0)")] = None,
) -> None:
    """Find the reasoning behaviours of a thinking model, and test whether they are more than cue words.

    Every site, size and seed is tried and one chosen by a written rule; each behaviour is scored, named and put to
    the test. Stop it at any time: the same command goes on. Rename and merge behaviours in taxonomy/behaviours.yaml,
    and run it again to see them so.

    Example: probe discover --pair tiny-rl --sites resid_post.1,resid_post.2 --sizes 2-16:2

    Example: probe discover --thinking org/name --thinking-prompt chat --problems gsm8k --judge org/chat-model
    """
    from rich.console import Console

    from probe.cli.run import merge
    from probe.config import from_dict, read_yaml
    from probe.pipeline import DiscoverConfig, discover as run_discover
    from probe.reports import discovery_table

    rival_names = [] if rivals == "none" else names(rivals)
    given = {
        "pair": pair,
        "thinking": {"path": thinking, "prompt": thinking_prompt},
        "problems": problems,
        "taxonomy": {"sites": names(sites), "sizes": numbers(sizes), "rivals": rival_names},
        "judge": {"model": judge, "url": judge_url},
        "device": device,
        "dtype": dtype,
        "seed": seed,
    }
    settings = from_dict(DiscoverConfig, merge(read_yaml(config) if config else {}, given), str(config or ""))
    out = out or Path("runs") / f"{settings.name}-behaviours"
    found = run_discover(settings, out, progress=True)

    console = Console()
    console.print(discovery_table(found))
    # Plain, and not wrapped: a path that can be copied.
    console.out(f"\nTaxonomy: {out / 'taxonomy'}\nReport:   {out / 'report.html'}", highlight=False)


def names(text: str | None) -> list[str] | None:
    """A list with commas.

    >>> names("resid_post.1, resid_post.2")
    ['resid_post.1', 'resid_post.2']
    """
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str | None) -> list[int] | None:
    """Numbers with commas, and ranges, both ends included, with a step.

    >>> numbers("4,8"), numbers("5-20:5")
    ([4, 8], [5, 10, 15, 20])

    Raises:
        ProbeError: if it is no such list.
    """
    import re

    from probe.errors import ProbeError

    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::([1-9]\d*))?)?\s*", part)
        first, last, step = match.groups() if match else ("1", "0", None)
        some = range(int(first), int(last or first) + 1, int(step or 1))
        if not some:
            raise ProbeError(f"--sizes {text} is no list of numbers; write 4,8,12 or 5-50:5")
        found += some
    return found
