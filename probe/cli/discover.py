"""``probe discover``."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.common import (
    Config,
    Device,
    Dtype,
    FromTraces,
    Grader,
    Limit,
    MaxNewTokens,
    Memory,
    MinP,
    Pair,
    Problems,
    Quiet,
    Seed,
    Temperature,
    ThinkingAlone,
    ThinkingPrompt,
    ThinkingTemplate,
    ThinkingUrl,
    TopK,
    TopP,
    Train,
    Validation,
    folder,
    member,
    names,
    numbers,
    sampled,
    settings,
    show,
)


def discover(
    pair: Pair = None,
    thinking: ThinkingAlone = None,
    thinking_prompt: ThinkingPrompt = None,
    thinking_template: ThinkingTemplate = None,
    problems: Problems = None,
    grader: Grader = None,
    traces: FromTraces = None,
    train: Train = None,
    validation: Validation = None,
    limit: Limit = None,
    sites: Annotated[
        str | None,
        typer.Option(help="Sites to try, such as resid_post.1,resid_post.2; six evenly spaced blocks by default."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Numbers of behaviours to try, such as 4,8,12 or 5-50:5; they follow the model's width by default."
        ),
    ] = None,
    rivals: Annotated[
        str | None,
        typer.Option(help="Methods to compare with the SAE, such as agglomerative,jumprelu; 'none' compares none."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of the chat model that names the behaviours; none by default."),
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server that serves the model named by --judge.")
    ] = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/NAME-behaviours by default.")] = None,
    device: Device = None,
    memory: Memory = None,
    dtype: Dtype = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    thinking_url: ThinkingUrl = None,
    quiet: Quiet = False,
) -> None:
    """Find the behaviours of a thinking model, and test them.

    The tests tell whether a behaviour is more than its cue words.

    Tries every site, size and seed, chooses one by a fixed rule, and scores,
    names and tests each behaviour. Edit taxonomy/behaviours.yaml to rename or
    merge behaviours, then run the command again to apply the changes.
    An interrupted discovery resumes when the same command is run again.

    Problems need no known answers. If a problem set has fewer problems than
    --train and --validation ask for, all of them are used.

    Example: probe discover --pair tiny-rl --sites resid_post.1,resid_post.2 --sizes 2-16:2

    Example: probe discover --pair orz-1.5b --problems mine.jsonl --limit 50

    Example: probe discover --thinking org/name --thinking-prompt chat --problems gsm8k --judge org/chat-model
    """
    from probe.pipeline import DiscoverConfig

    others = [] if rivals == "none" else names(rivals)
    given = {
        "pair": pair,
        "thinking": member("thinking", thinking, thinking_prompt, thinking_template),
        "problems": problems,
        "grader": grader,
        "traces": traces,
        "taxonomy": {"sites": names(sites), "sizes": numbers(sizes), "rivals": others},
        "judge": {"model": judge, "url": judge_url},
        "device": device,
        "memory": memory,
        "dtype": dtype,
        "sizes": {"train": train, "validation": validation, "limit": limit},
        "decoding": {"max_new_tokens": max_new_tokens, "thinking": sampled(temperature, top_p, top_k, min_p)},
        "seed": seed,
        "thinking_url": names(thinking_url),
    }
    chosen = settings(DiscoverConfig, config, given)
    out = folder(out, Path("runs") / f"{chosen.name}-behaviours")
    from probe.pipeline import discover as run_discover  # slow to import: settings are checked first
    from probe.reports import discovery_table

    found = run_discover(chosen, out, progress=not quiet)
    show(discovery_table(found), f"Taxonomy: {out / 'taxonomy'}", f"Report:   {out / 'report.html'}", quiet=quiet)
