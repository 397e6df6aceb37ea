"""Kill a run at random moments, again and again, and compare it with one that was never killed.

``python -m tests.pipeline.kills 50`` kills until 50 processes have died, over as many runs as that takes.
"""

import json
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.forked import Forked, command, done

SMALL = {
    "pair": "tiny-rl",
    "device": "cpu",
    "shown": 1,
    "look": 0,
    "sizes": {"train": 260, "validation": 6, "test": 66},
    "decoding": {
        "batch_size": 100,
        "max_new_tokens": 6,
        "samples": 4,
        "base": {"temperature": 0.7},
        "thinking": {"temperature": 0.7},
    },
    "taxonomy": {"sites": ["resid_post.1", "resid_post.2"], "sizes": [2, 3], "steps": 10, "seeds": [0], "rivals": []},
    "steering": {"steps": 4, "seeds": [0]},
    "policy": {"steps": 4},
    "distil": {"steps": 3},
    "hybrid": {"arms": ["hybrid", "oracle-free", "single-vector", "lora", "rank-1"]},
}
_TIMED = re.compile(
    r"(done\.json|traces\.parquet|results\.json|report\.html|place\.json|config\.json|\.lock|\.cluster|history\.json|probe\.json)$"
)
"""Files that hold times, costs and places."""


def arguments(file: Path, out: Path, *more: str) -> list[str]:
    """The arguments of the command that begins the run, or resumes it."""
    return ["run", "--config", str(file), "--out", str(out), *more]


def files(out: Path) -> dict[str, bytes]:
    """Every file of a run but those that hold times and places."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not _TIMED.search(path.name)
    }


def kill_and_compare(n: int, home: Path, seed: int = 0, *more: str) -> list[str]:
    """Kill ``n`` processes, and list the files in which a finished run differs from one that was never killed.

    Args:
        n: the number of processes that are killed.
        home: a folder for the runs.
        seed: seeds the moments.
        more: further options of the command.
    """
    file, whole = home / "run.yaml", home / "whole"
    file.write_text(json.dumps(SMALL))
    began = time.monotonic()
    done(command, *arguments(file, whole))
    longest = time.monotonic() - began
    draw, killed, wrong = random.Random(seed), 0, []
    out = home / "killed"
    while killed < n:
        process = Forked(command, *arguments(file, out, *more))
        try:
            code = process.wait(longest * draw.uniform(0.2, 0.9))
        except TimeoutError:
            process.kill()
            killed += 1
            if killed < n:
                continue
        else:
            if code:
                return [f"exit code {code}: {process.stderr[-500:]}"]
        if killed == n:
            done(command, *arguments(file, out))
        there, here = files(whole), files(out)
        wrong += sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
        shutil.rmtree(out)
    return wrong


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_compare(int(sys.argv[1]), Path(folder), 0, *sys.argv[2:])
    sys.stdout.write(f"{sys.argv[1]} kills; files that differ: {found or 'none'}\n")
    sys.exit(bool(found))
