"""How the memory of ``probe traces import`` grows with the number of traces, each in a process of its own.

``--quick`` imports a tenth.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.table import Row, report

TOKENS = 8_000
"""Tokens of a trace."""
GROWTH = 1.15
"""How much the peak of memory may grow with ten times the traces."""
_IMPORT = """
import json, resource, sys, time
from probe.models import load_without_weights
from probe.traces import import_traces
began = time.monotonic()
done = import_traces(sys.argv[1], sys.argv[2], load_without_weights("bundled:tiny-rl"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "seconds": time.monotonic() - began, **done.about["counts"]}))
"""


def write(path: Path, n: int) -> None:
    """Write synthetic traces in the words of the bundled models, as chat completions."""
    rng = random.Random(0)
    with path.open("w") as file:
        for i in range(n):
            question = f"Mia has {i} cards. First, Mia finds 3 cards. How many cards does Mia have now?"
            said = " ".join(f"That makes {rng.randint(1, 99)} + {rng.randint(1, 9)} = 12." for _ in range(TOKENS // 10))
            message = {"role": "assistant", "reasoning_content": f" {said} ", "content": f" The answer is {i + 3}."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            record = {"messages": [{"role": "user", "content": question}], "answer": str(i + 3), "choices": [choice]}
            file.write(json.dumps(record) + "\n")


def imported(n: int, folder: Path) -> dict[str, float]:
    """Import that many traces in a process of its own, and return its peak of memory, its time and its counts."""
    write(folder / f"{n}.jsonl", n)
    command = [sys.executable, "-c", _IMPORT, str(folder / f"{n}.jsonl"), str(folder / str(n))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    few, many = (20, 200) if "--quick" in sys.argv else (200, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        found = [imported(n, Path(folder)) for n in (few, many)]
    for each in found:
        print(
            f"{each['traces']:,} traces, {each['tokens']:,} tokens: {each['peak'] / 2**20:,.0f} MiB, "
            f"{each['seconds']:.0f} s, {each['rejects']} rejects"
        )
    ratio = found[1]["peak"] / found[0]["peak"]
    report("imported", [Row(f"{many:,} traces of {TOKENS:,} tokens", f"{few:,} traces", ratio, GROWTH, "lower")])


if __name__ == "__main__":
    main()
