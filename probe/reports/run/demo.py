"""What a demo found, what to open, and what to type next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.reports.run.headline import headline

DEMO_INTRODUCTION = """\
Two bundled pairs of small models, a base and a thinking model each, solve word
problems. How the two models of a pair differ is known by construction:

  tiny-rl   Reinforcement learning taught the base model *when* to write
            sentences that it could already write.
  tiny-sft  Supervised traces taught it *how*: a new operation, sharing equally.

probe finds the behaviours in the thinking model's text and learns one vector
for each. The hybrid is the base model with these vectors added at chosen
tokens. Each control exchanges one part of the hybrid.

This takes about three minutes on two cores. The first figures come soon.
"""
"""What a demo says before it begins."""
_KNOWN = {
    "tiny-rl": "Training taught this model when, not how. Vectors should recover the gap.",
    "tiny-sft": "Training taught this model how. Vectors should recover nothing.",
}


def demo_findings(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was expected of each pair and what was found, as paragraphs.

    Args:
        results: the contents of ``results.json``, by pair.
    """
    return [f"{pair}: {_KNOWN[pair]} {headline(each)[0]}" for pair, each in results.items()]


def demo_next(out: Path, pairs: Mapping[str, Any]) -> str:
    """What to open and what to type after a demo.

    Args:
        out: the folder of the demo.
        pairs: the names of its pairs.
    """
    reports = [f"  {out / pair / 'report.html'}" for pair in pairs]
    run = out / next(iter(pairs))
    return "\n".join(
        (
            "Open in a browser: figures, tests, and every arm's text token by token",
            *reports,
            "",
            "Type next",
            f"  probe chat --run {run} --arm oracle-free    # ask the hybrid a question",
            f"  probe circuits --pair {next(iter(pairs))} --behaviour check    # the heads behind a check",
            "  probe look --base BASE --thinking THINKING --problems gsm8k    # your own pair",
        )
    )
