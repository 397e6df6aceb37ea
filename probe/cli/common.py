"""What the commands share: options, settings made from them, and output."""

import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")

Pair = Annotated[str | None, typer.Option(help="Name of a pair (see `probe pairs`), or a pair.yaml file.")]
Base = Annotated[
    str | None, typer.Option(help="Folder or hub id of the base model; give it with --thinking, without --pair.")
]
Thinking = Annotated[
    str | None,
    typer.Option(help="Folder or hub id of the thinking model, or of an adapter; give it with --base, without --pair."),
]
ThinkingAlone = Annotated[
    str | None,
    typer.Option(help="Folder or hub id of a thinking model, or of an adapter; give it in place of --pair."),
]
_PROMPT = r"'chat', or a template with {question}; \n is a line end, \t a tab and \\ a backslash."
BasePrompt = Annotated[str | None, typer.Option(help=f"Prompt of the base model: {_PROMPT}")]
ThinkingPrompt = Annotated[str | None, typer.Option(help=f"Prompt of the thinking model: {_PROMPT}")]
_TEMPLATE = "arguments of its chat template, such as enable_thinking=false; commas separate several."
BaseTemplate = Annotated[str | None, typer.Option(help=f"For the base model, {_TEMPLATE}")]
ThinkingTemplate = Annotated[str | None, typer.Option(help=f"For the thinking model, {_TEMPLATE}")]
Problems = Annotated[
    str | None,
    typer.Option(
        help="Problem set: a name such as gsm8k, NAME:PATH of a local copy, a file, or several joined by +; "
        "the pair's own by default."
    ),
]
Grader = Annotated[
    str | None,
    typer.Option(
        help="How answers are graded: exact, numeric, math-verify or close; by default as the problem set says."
    ),
]
FromTraces = Annotated[
    str | None,
    typer.Option(
        help="Folder of `probe traces import`: its traces replace the thinking model's own traces on train and "
        "validation problems."
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="Recipe, a named set of settings that --config and other options override: v1-published or v2-published."
    ),
]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings; options on the command line override it.")]
CategoriesOf = Annotated[
    str | None,
    typer.Option(help="Folder of a run or a discovery; --behaviour may name a category of its taxonomy."),
]
Sentence = Annotated[
    str | None, typer.Option(help="Regular expression; sentences in which it is found are the behaviour.")
]
NPairs = Annotated[int | None, typer.Option(help="Maximum number of text pairs; 48 by default.")]
Context = Annotated[
    int | None, typer.Option(help="Maximum number of tokens of a text, prompt included; 512 by default.")
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Device: cpu, cuda, cuda:N or mps; a CUDA GPU, if any, by default. For a model too large for one GPU: "
        "balanced (over all GPUs), or a list such as cuda:0,cuda:1."
    ),
]
OneDevice = Annotated[
    str | None, typer.Option(help="Device: cpu, cuda, cuda:N or mps; a CUDA GPU, if any, by default.")
]
BaseDevice = Annotated[str | None, typer.Option(help="Device of the base model, if it differs from --device.")]
ThinkingDevice = Annotated[str | None, typer.Option(help="Device of the thinking model, if it differs from --device.")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory for the work on a device, besides the weights, such as 40GB; half of what is free by default."
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Number format of the weights: float32 (default), bfloat16, float16, or auto: that of each checkpoint."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice; 0 by default.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Sampling temperature of both models and every arm; 0 is greedy. By default, the thinking model is "
        "sampled as its generation_config.json says, and the base model and the arms are greedy."
    ),
]
TopP = Annotated[
    float | None, typer.Option(help="With --temperature: sample from the most likely tokens of this total probability.")
]
TopK = Annotated[int | None, typer.Option(help="With --temperature: sample from this many most likely tokens.")]
MinP = Annotated[
    float | None,
    typer.Option(help="With --temperature: drop tokens whose probability is below this share of the highest one."),
]
Engine = Annotated[
    str | None,
    typer.Option(help="Who does the work: here (default), processes:N on this machine, or ray[:ADDRESS] on a cluster."),
]
Train = Annotated[int | None, typer.Option(help="Number of train problems; 400 by default, or all that there are.")]
Validation = Annotated[
    int | None, typer.Option(help="Number of validation problems; 120 by default, or all that there are.")
]
Test = Annotated[int | None, typer.Option(help="Number of test problems; 300 by default, or all that there are.")]
Limit = Annotated[int | None, typer.Option(help="Maximum number of problems of every split, for a first try.")]
MaxNewTokensOfRun = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of tokens of an answer; by default the limit of the run.")
]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of tokens of an answer; by default the limit of the pair.")
]
Look = Annotated[
    int | None,
    typer.Option(min=0, help="Number of validation problems that both models answer first; 30 by default, 0 for none."),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Continue even if the look at both models would stop the run.")]
_URL = (
    "OpenAI-compatible (vLLM, SGLang, llama.cpp …), such as http://localhost:8000/v1; commas separate several, and "
    "#NAME at the end of an address names the model."
)
ThinkingUrl = Annotated[
    str | None, typer.Option(help=f"Addresses of servers that write the thinking model's traces: {_URL}")
]
BaseUrl = Annotated[str | None, typer.Option(help=f"Addresses of servers that write the base model's traces: {_URL}")]


def _asked_anywhere(context: Any, asked: bool) -> bool:
    """Whether --quiet was given, before the command or after it."""
    import os

    quiet = asked or bool(context.find_root().params.get("quiet"))
    if quiet:  # the bars of transformers and of the hub; read when they are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return quiet


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_asked_anywhere,
        help="Show no progress and no tables, only errors and the paths of the results.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Write the results as one JSON document; progress is shown on stderr.")
]
Adapter = Annotated[Path, typer.Argument(help="Folder that `probe adapter tune` wrote.")]
OwnModel = Annotated[
    str | None, typer.Option(help="Folder or hub id of a model; give it with --texts in place of --run.")
]
Texts = Annotated[
    str | None, typer.Option(help="JSONL file of training texts for --model, with 'text' and optionally 'prompt'.")
]


def settings(cls: type[T], config: Path | None, given: dict[str, Any]) -> T:
    """The dataclass ``cls`` from a YAML file and the given options, which override the file.

    Paths in the file are relative to the file, and paths among the options to the current folder.

    Raises:
        ProbeError: if a key or a value is wrong, or what they name is not there.
    """
    import dataclasses

    from probe.config import from_dict, read_yaml
    from probe.errors import ProbeError
    from probe.files import located

    config = config and config.expanduser()
    merged = merge(located(read_yaml(config), config.parent) if config else {}, given)
    for role in ("base", "thinking"):
        model: Any = merged.get(role)
        if "pair" in merged and isinstance(model, dict) and "path" not in model and role in given:
            raise ProbeError(
                f"--{role}-{next(iter(model))} is for a model given with --{role}, and a pair has its own; "
                f"write a file with probe pairs {merged['pair']}, change it, and give it as --pair"
            )
    if filled := getattr(cls, "filled", None):
        merged = filled(merged)
    fields: Any = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    for field in fields:
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name in given and field.name not in merged:
            raise ProbeError(
                f"no {field.name} given: use --{field.name}, or write it into a file of settings (--config)"
            )
    made = from_dict(cls, merged, str(config or ""))
    if check := getattr(made, "check", None):
        check()
    return made


def merge(file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the file, overridden by the given options; an option that is None was not given.

    Models given one way replace models that the file names the other way.

    >>> merge({"pair": "tiny-rl", "seed": 1, "base": None}, {"seed": 2, "base": {"path": "./b", "prompt": None}})
    {'seed': 2, 'base': {'path': './b'}}
    >>> merge({"adapter": {"tune": {"steps": 1, "rank": 4}}}, {"adapter": {"tune": {"steps": 2}}})
    {'adapter': {'tune': {'steps': 2, 'rank': 4}}}
    """
    given = {key: _given(value) for key, value in given.items() if _given(value) not in (None, {})}
    file = dict(file)
    if "pair" in given:
        file = {key: value for key, value in file.items() if key not in ("base", "thinking")}
    elif any("path" in given.get(role, {}) for role in ("base", "thinking")):
        file.pop("pair", None)
    for key, value in given.items():
        old = file.get(key)
        file[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return file


def _given(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _given(item) for key, item in value.items() if _given(item) not in (None, {})}


def folder(out: Path | None, usual: Path) -> Path:
    """The folder of ``--out``, or the usual one.

    Raises:
        ProbeError: if it is a file.
    """
    from probe.errors import ProbeError

    chosen = (out or usual).expanduser()
    if chosen.exists() and not chosen.is_dir():
        raise ProbeError(f"--out {chosen} is a file: name a folder")
    return chosen


def show(table: Any, *lines: str, quiet: bool = False) -> None:
    """Print a table and, below it, lines that are not wrapped, so that a path in them can be copied.

    Args:
        quiet: print the lines alone.
    """
    from rich.console import Console

    if not quiet:
        Console().print(table)
        if lines:
            typer.echo()
    for line in lines:
        typer.echo(line)


def write_json(found: Any) -> None:
    """Write a JSON document on stdout."""
    import json

    typer.echo(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))


def only_json(asked: bool) -> AbstractContextManager[Any]:
    """Send to stderr what libraries print meanwhile, if stdout is for a JSON document."""
    return redirect_stdout(sys.stderr) if asked else nullcontext()


def names(text: str | None) -> list[str] | None:
    """The names in a comma-separated list; None stays None.

    >>> names("resid_post.1, resid_post.2")
    ['resid_post.1', 'resid_post.2']
    """
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def sampled(
    temperature: float | None, top_p: float | None, top_k: int | None, min_p: float | None
) -> dict[str, Any] | None:
    """The sampling settings that the options give; None if no option is given.

    >>> sampled(0.6, 0.95, None, None)
    {'temperature': 0.6, 'top_p': 0.95}
    """
    given = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    return {name: value for name, value in given.items() if value is not None} or None


def member(role: str, path: str | None, prompt: str | None, template: str | None) -> dict[str, Any]:
    """The settings of a model that options give.

    Args:
        role: ``base`` or ``thinking``, as in the names of the options.

    Raises:
        ProbeError: if the arguments of the chat template are no list of KEY=VALUE.
    """
    return {"path": path, "prompt": line_ends(prompt), "template": arguments(template, f"--{role}-template")}


def line_ends(text: str | None) -> str | None:
    r"""The text of an option, in which ``\n`` stands for a line end, ``\t`` for a tab and ``\\`` for a backslash.

    >>> line_ends(r"Q: {question}\nAnswer in \boxed{} with \\nabla.")
    'Q: {question}\nAnswer in \\boxed{} with \\nabla.'
    """
    import re

    stands = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
    return None if text is None else re.sub(r"\\[nt\\]", lambda found: stands[found[0]], text)


def arguments(text: str | None, option: str) -> dict[str, Any] | None:
    """The arguments in a comma-separated list of KEY=VALUE, with values as YAML reads them; None stays None.

    >>> arguments("enable_thinking=false, reasoning_effort=high", "--thinking-template")
    {'enable_thinking': False, 'reasoning_effort': 'high'}

    Raises:
        ProbeError: if the text is not such a list.
    """
    import yaml

    from probe.errors import ProbeError

    if text is None:
        return None
    found: dict[str, Any] = {}
    for part in names(text) or []:
        key, sign, value = part.partition("=")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            sign = ""
        if not (sign and key.strip() and found.get(key.strip()) is not None):
            raise ProbeError(f"{option} has {part!r}; write KEY=VALUE, such as enable_thinking=false")
    return found


def numbers(text: str | None, option: str = "--sizes") -> list[int] | None:
    """The numbers in a comma-separated list of numbers and ranges FIRST-LAST:STEP, both ends included.

    >>> numbers("4,8"), numbers("5-20:5")
    ([4, 8], [5, 10, 15, 20])

    Raises:
        ProbeError: if the text is not such a list.
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
            raise ProbeError(f"{option} {text} is not a list of numbers; write 4,8,12 or 5-50:5")
        found += some
    return found
