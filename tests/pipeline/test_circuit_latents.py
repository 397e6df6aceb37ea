"""``probe circuits --sae``: latents are one more stage, which an existing folder takes up."""

import json

import pytest

from probe.errors import ProbeError
from probe.models import ModelConfig
from probe.pipeline import CircuitConfig, find_circuit
from probe.pipeline.saes import sae_hash
from tests.adapters.conftest import random_topk

SMALL = {"test": 0, "steps": 2, "draws": 1, "heads": 1, "shares": (0.5, 1.0), "device": "cpu", "method": "eap"}


@pytest.fixture
def given(tiny_folder, tmp_path):
    rows = [
        {
            "clean": f"Tom has {a} cards. He finds {b}",
            "corrupt": f"Tom has {b} cards. He finds {a}",
            "right": f" {a}",
            "wrong": f" {b}",
        }
        for a, b in ((2, 3), (4, 5), (6, 7), (8, 9), (3, 6), (5, 8))
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"thinking": ModelConfig(str(tiny_folder("llama"))), "pairs": str(tmp_path / "pairs.jsonl")} | SMALL


@pytest.mark.slow
def test_latents_are_added_to_a_finished_circuit(given, tmp_path):
    out, sae = tmp_path / "out", tmp_path / "sae"
    random_topk().save_model(str(sae))
    first = find_circuit(CircuitConfig(**given), out)
    assert first["latents"] is None and "<h2>Latents" not in (out / "report.html").read_text()
    kept = {file: file.stat().st_mtime_ns for file in out.glob("*/*.safetensors")}
    second = find_circuit(CircuitConfig(**given, sae=(str(sae),)), out)
    assert kept and kept == {file: file.stat().st_mtime_ns for file in kept}
    assert {**second, "latents": None} == first
    latents = second["latents"]
    assert latents["sites"][0]["reads"] == "resid_post.1" and latents["examples"] is None
    assert latents["top"] and latents["top"][0]["score"]["value"] is not None and latents["check"]["latents"] > 2
    page = (out / "report.html").read_text()
    assert "<h2>Latents" in page and f"{latents['top'][0]['latent']} of {sae}" in page
    before = (out / "results.json").read_bytes()
    find_circuit(CircuitConfig(**given, sae=(str(sae),)), out)
    assert (out / "results.json").read_bytes() == before
    random_topk(seed=1).save_model(str(tmp_path / "other"))
    both = find_circuit(CircuitConfig(**given, sae=(str(sae), str(tmp_path / "other"))), out)
    assert [each["dictionary"] for each in both["latents"]["sites"]] == [str(sae), str(tmp_path / "other")]


def test_an_sae_is_known_by_its_weights_and_its_settings(tmp_path):
    random_topk().save_model(str(tmp_path / "sae"))
    known = {sae_hash(str(tmp_path / "sae"))}
    file = tmp_path / "sae" / "cfg.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"k": 3}))
    known.add(sae_hash(str(tmp_path / "sae")))
    random_topk(seed=1).save_model(str(tmp_path / "sae"))
    assert len({*known, sae_hash(str(tmp_path / "sae")), sae_hash("release/id")}) == 4


@pytest.mark.parametrize(
    ("make", "said"),
    [(None, "no SAE folder"), ({"d_in": 16}, "width 16"), ({"site": "blocks.9.hook_resid_post"}, "has blocks 0 to 3")],
)
def test_an_sae_of_another_model_is_refused_first(make, said, given, tmp_path):
    if make is not None:
        random_topk(**make).save_model(str(tmp_path / "sae"))
    with pytest.raises(ProbeError, match=said):
        config = CircuitConfig(**given, sae=(str(tmp_path / "sae"),))
        config.check()
        find_circuit(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
