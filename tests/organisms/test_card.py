"""The cards: figures of the build, and what its maker wrote by hand about these weights."""

import json
import shutil
from pathlib import Path

from probe.organisms.card import write_cards

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
NAMES = ("tiny-base", "tiny-rl", "tiny-sft")


def test_the_shipped_cards_are_those_that_the_command_writes(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        shutil.copy(ARTIFACTS / name / "remarks.md", tmp_path / name)
    write_cards(tmp_path, json.loads((ARTIFACTS / "figures.json").read_text()), seed=0)
    for name in NAMES:
        assert (tmp_path / name / "README.md").read_text() == (ARTIFACTS / name / "README.md").read_text()


def test_another_build_claims_nothing_about_the_shipped_weights(tmp_path):
    write_cards(tmp_path, json.loads((ARTIFACTS / "figures.json").read_text()), seed=7)
    for name in NAMES:
        card = (tmp_path / name / "README.md").read_text()
        assert "--seed 7" in card
        assert "About these weights" not in card
        assert "Known limits" not in card
