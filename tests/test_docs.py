"""The README and the pages of `docs/`: their Python runs, their commands parse, their links lead somewhere."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from probe.cli import app
from probe.models import load_model

ROOT = Path(__file__).parents[1]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
PAGES = [name for name in TEXTS if name.startswith("docs/")]

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)


def fences(text: str, *kinds: str) -> list[str]:
    """The content of the fences of these languages; '' is a fence without a language."""
    return [code for kind, code in _FENCE.findall(text) if kind in kinds]


# Python

IN_ANOTHER_TEST = {"docs/servers.md"}
"""Its Python needs a server, which `tests/traces/test_served.py` starts."""
WITH_PYTHON = [name for name, text in TEXTS.items() if fences(text, "python") and name not in IN_ANOTHER_TEST]


def prompt_length(names: dict[str, Any]) -> int:
    return names["batch"]["input_ids"].shape[1]


RESULTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "README.md": lambda names: 10 <= len(names["circuit"].top(40)) <= 40,
    "docs/activations.md": lambda names: (
        names["acts"]["pattern.1"].shape[-2:] == (prompt_length(names), prompt_length(names))
        and names["steered"].shape[1] == prompt_length(names) + 40
        and next(names["batches"]).shape == (4, names["thinking"].d_model)
    ),
    "docs/behaviours.md": lambda names: len(names["cards"]) == names["taxonomy"].n_behaviours,
    "docs/python.md": lambda names: names["taxonomy"].n_behaviours >= 4,
    "docs/sites.md": lambda names: names["acts"]["experts.2"].shape[1] > names["ids"].shape[1],
}
"""What must hold after the Python of a page has run."""


@pytest.fixture
def given(name: str, tmp_path: Path, words: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What a page takes as given: `docs/sites.md` speaks of any mixture of experts."""
    if name != "docs/sites.md":
        return {}
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    config = MixtralConfig(**sizes, vocab_size=len(words), num_key_value_heads=2, num_local_experts=4)
    config.pad_token_id, config.eos_token_id, config.bos_token_id = words.pad_token_id, words.eos_token_id, None
    MixtralForCausalLM(config).save_pretrained(tmp_path / "experts")
    words.save_pretrained(tmp_path / "experts")
    return {"model": load_model(str(tmp_path / "experts"), device="cpu"), "ids": torch.arange(3, 19)[None]}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_of_a_page_runs(name, given, tmp_path, monkeypatch):
    """All fences of a page run in order, in names of their own."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = given
    for code in fences(TEXTS[name], "python"):
        exec(compile(code, name, "exec"), names)
    assert RESULTS.get(name, bool)(names)


# Commands


def command_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each call of the command, and whether it is complete: one in a sentence may be a part of one."""
    for code in fences(text, "", "yaml", "bash"):
        for line in code.splitlines():
            yield from ((call, True) for call in re.findall(r"(?:^|&& )(probe .*)", line.strip(" #")))
    for span in re.findall(r"`([^`]+)`", _FENCE.sub("", text)):
        yield from (
            (call, False) for call in re.findall(r"(?:^|&& )(?:torchrun .*)?\b(probe [a-z].*)", span, re.DOTALL)
        )


def arguments(call: str) -> list[str]:
    """The words after `probe`, up to a comment, a pipe or the next command."""
    found = shlex.split(re.split(r" 2?> | \| ", call)[0], comments=True)[1:]  # without what the shell does
    ends = [i for i, word in enumerate(found) if word in (">", "|", "&&")]
    return found[: ends[0]] if ends else found


def parse(call: str, *, whole: bool) -> None:
    """Parse a call and run nothing; of a part of one, only the command and the names of its options are checked.

    Raises:
        AssertionError: there is no such command or option.
        typer's UsageError: an option has no value or a wrong one, or an argument is missing.
    """
    words, command, name = arguments(call), typer.main.get_command(app), "probe"
    while words and (inner := getattr(command, "commands", {})):
        if words[0].startswith("-"):
            break
        name = words.pop(0)
        assert name in inner, f"no command {name!r}"
        command = inner[name]
    if whole:
        command.make_context(name, words)
        return
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{name} has no {', '.join(sorted(used - known))}"


CALLS = {name: found for name, text in TEXTS.items() if (found := list(command_lines(text)))}


def test_commands_are_found():
    assert sum(map(len, CALLS.values())) > 100
    assert any(whole and call.startswith("probe report runs/mine ") for call, whole in CALLS["README.md"])
    assert any(call.startswith("probe adapter tune ...") for call, whole in CALLS["docs/adapters.md"] if not whole)


@pytest.mark.parametrize("name", CALLS)
def test_commands_of_a_page_parse(name):
    for call, whole in CALLS[name]:
        parse(call, whole=whole)


@pytest.mark.parametrize(
    "call",
    ["probe rum --pair tiny-rl", "probe run --pear tiny-rl", "probe run --pair", "probe run --limit few", "probe chat"],
)
def test_a_wrong_command_does_not_parse(call):
    with pytest.raises(Exception, match=r"no command|No such option|requires an argument|valid integer|Missing"):
        parse(call, whole=True)


@pytest.mark.parametrize("call", ["probe rum", "probe run --pear tiny-rl ...", "probe adapter tuna"])
def test_a_part_of_a_wrong_command_is_found(call):
    with pytest.raises(AssertionError):
        parse(call, whole=False)


# Links


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: list[str] = []
    for title in re.findall(r"^#+ (.*)$", _FENCE.sub("", text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.append(f"{slug}-{n}" if (n := sum(re.sub(r"-\d+$", "", each) == slug for each in found)) else slug)
    return set(found)


def links(text: str) -> list[str]:
    """The targets of links and pictures that are no web addresses."""
    bare = re.sub(r"`[^`]*`", "", _FENCE.sub("", text))
    found = re.findall(r"\]\(([^)\s]+)\)", bare) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", bare)
    return [each for each in found if not re.match(r"https?:|mailto:", each)]


def broken(name: str, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in links(text):
        file, _, anchor = link.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            found.append(link)
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    assert not broken(name, TEXTS[name])


def test_broken_links_are_found():
    text = "[a](none.md) [b](sites.md) [c](sites.md#none) [d](#e-1) ![e](none.svg) [f](sites.md#sites) `[g](h.md)`"
    assert broken("docs/sites.md", text) == ["none.md", "sites.md#none", "#e-1", "none.svg"]
    assert anchors("# E\n```\n# a comment\n```\n## `E`\n## F: [g](h.md)\n") == {"e", "e-1", "f-g"}


# Pages


def test_the_index_lists_every_page():
    listed = {link for link in links(TEXTS["docs/README.md"]) if "/" not in link}
    missing = {Path(name).name for name in PAGES} - listed - {"README.md"}
    assert not missing, "add a line to docs/README.md"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_with_a_title_and_a_sentence(name):
    title, empty, first = TEXTS[name].splitlines()[:3]
    assert title.startswith("# ") and not empty
    assert re.match(r"[\w`]", first), "begin with a sentence that says what the page explains"


def test_pages_are_not_overlong():
    long = [name for name in PAGES if len(TEXTS[name].splitlines()) > 250]
    assert not long, "divide it into two pages"
