"""Writes the texts of a study of adapters on a single model: word problems to train on, and unrelated prose.

python -m benchmarks.adapter_texts runs/texts
"""

import json
import sys
from pathlib import Path
from pydoc_data.topics import topics

import reasoning_gym

SUMS, PROSE, WORDS = 600, 200, 90


def sums() -> list[dict[str, str]]:
    """Grade-school word problems with their answers (reasoning-gym's gsm_symbolic)."""
    made = reasoning_gym.create_dataset("gsm_symbolic", size=SUMS, seed=0)
    return [{"text": f"Problem: {row['question']}\nAnswer: {row['answer']}"} for row in made]


def prose() -> list[dict[str, str]]:
    """Paragraphs of Python's reference manual, cut to ``WORDS`` words."""
    paragraphs = (" ".join(part.split()) for text in topics.values() for part in text.split("\n\n"))
    return [{"text": " ".join(part.split()[:WORDS])} for part in paragraphs if len(part.split()) > WORDS // 2][:PROSE]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("sums", sums()), ("prose", prose())):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        print(path, len(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
