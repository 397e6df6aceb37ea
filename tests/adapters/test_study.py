"""Rows of a study: their names, what is measured of them, and their controls."""

import numpy as np
import pytest
import torch

from probe.adapters import EvaluationData, Objective, Row, attached, lora_tensors, measure, random_like, summary, tune
from probe.adapters.training.objective import kl
from probe.errors import ProbeError
from probe.files import read_json
from probe.statistics import mean_interval
from tests.adapters.conftest import random_topk
from tests.adapters.test_attach import tuned
from tests.adapters.test_tune import CONFIG, texts


@pytest.mark.parametrize(
    ("name", "row", "control"),
    [
        ("resa", Row("resa", "resa"), "resa:noise"),
        ("resa-stopped:random-sae", Row("resa-stopped:random-sae", "resa", False, "random-sae"), "resa-stopped:noise"),
        ("resa:noise", Row("resa:noise", "resa", True, "noise"), None),
        ("ce", Row("ce", "ce"), None),
        ("source-distil", Row("source-distil", "source-distil"), None),
    ],
)
def test_a_row_says_what_it_is(name, row, control):
    assert Row.parse(name) == row and row.control == control


@pytest.mark.parametrize(("name", "said"), [("resah", "did you mean 'resa'"), ("resa:nois", "did you mean 'noise'")])
def test_an_unknown_row_is_refused(name, said):
    with pytest.raises(ProbeError, match=said):
        Row.parse(name)


def test_what_is_measured_is_what_full_passes_give(llama, tmp_path):
    folder, text = tuned(llama, tmp_path), texts(1, 5)[0]
    answers = iter([[0.0, 1.0], [1.0, 1.0]])
    found = measure(llama, folder, EvaluationData([text], [text], lambda: next(answers)))
    where, ids = slice(text.start - 1, -1), torch.tensor([text.ids])
    with torch.no_grad():
        plain = llama.hf(ids).logits[0, where]
        with attached(llama, folder):
            on = llama.hf(ids).logits[0, where]
    targets = ids[0, text.start :]
    ce = [torch.nn.functional.cross_entropy(logits, targets).item() for logits in (plain, on)]
    assert found["deployed"] == pytest.approx([kl(plain, on).mean().item()], rel=1e-4)
    assert found["ce"] == found["general"] == pytest.approx([ce[1] - ce[0]], rel=1e-3)
    assert found["solved"] == [1.0, 0.0], "without the adapter first"
    assert "inserted" not in found


@pytest.mark.parametrize("insert", ["sae", "noise"])
def test_what_is_in_the_way_is_measured_too(llama, tmp_path, insert):
    sae = random_topk()
    objective = Objective("resa", sae, insert)
    tune(llama, texts(9), texts(3, 1), objective, folder=tmp_path, config=CONFIG)
    found = measure(llama, tmp_path, EvaluationData(texts(6, 5)), objective)
    again = measure(llama, tmp_path, EvaluationData(texts(6, 5)), objective)
    assert found == again and found["inserted"] != found["adapted"]
    assert sum(found["adapted"]) < sum(found["inserted"]), "what it was trained for"


def test_a_random_adapter_is_as_large_in_every_module_and_another(llama, tmp_path):
    folder = tuned(llama, tmp_path / "one", alpha=3.0)
    random, other = (random_like(folder, tmp_path / str(seed), seed) for seed in (0, 1))
    real, a, b = lora_tensors(folder), lora_tensors(random), lora_tensors(other)
    for name in {name.partition(".lora_")[0] for name in real}:
        deltas = [t[f"{name}.lora_B.weight"] @ t[f"{name}.lora_A.weight"] for t in (real, a, b)]
        assert deltas[1].norm().item() == pytest.approx(deltas[0].norm().item(), rel=1e-4)
        for x, y in ((0, 1), (1, 2)):
            assert torch.cosine_similarity(deltas[x].flatten(), deltas[y].flatten(), dim=0).abs() < 0.5
    assert read_json(random / "probe.json") == read_json(folder / "probe.json")
    with attached(llama, random):
        pass


def test_differences_are_paired_by_text_and_seed():
    """What all texts share cancels; an unpaired interval would be wide."""
    generator = torch.Generator().manual_seed(0)
    hard = 10 * torch.rand(40, generator=generator)
    rows = {
        "resa": [{"ce": (hard + 1.0 + 0.01 * seed).tolist()} for seed in range(3)],
        "resa:noise": [{"ce": (hard + 0.01 * seed).tolist()} for seed in range(3)],
    }
    table = summary(rows, {"resa": "resa:noise"})
    assert table["resa"]["against"] == "resa:noise" and "against" not in table["resa:noise"]
    apart, alone = table["resa"]["difference"]["ce"], table["resa"]["measures"]["ce"]
    assert apart["value"] == pytest.approx(1.0) and apart["ci"] == pytest.approx((1.0, 1.0))
    assert alone["ci"][1] - alone["ci"][0] > 1.0


def test_intervals_know_of_seeds():
    """Texts that agree and seeds that do not: the interval is as wide as the seeds are apart."""
    values = torch.tensor([[1.0] * 50, [2.0] * 50, [3.0] * 50])
    found = mean_interval(values.numpy())
    assert found.value == 2.0 and found.ci[0] <= 1.34 and found.ci[1] >= 2.66
    assert mean_interval(values[0].numpy()).ci == (1.0, 1.0)
    share = mean_interval(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert share.value == 1.0 and share.ci[0] >= 0.5 and share.ci[1] <= 1.5
    assert mean_interval(np.zeros(3), np.zeros(3)).value is None
