"""Kept traces belong to one model, prompt, limit and list of problems; how they were decoded does not matter."""

import shutil
from dataclasses import replace

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import edit
from probe.models import Model, load_model
from probe.problems import load_problems
from probe.traces import generate_traces

N = 5


@pytest.fixture
def model(tiny_folder) -> Model:
    return load_model(tiny_folder("llama", seed=1), device="cpu")


@pytest.fixture
def traced(model, tmp_path):
    """A function that rolls out into one folder, with changes."""
    problem_set = load_problems("story")
    given = {"model": model, "problems": problem_set.take("test", N), "limit": 8, "batch_size": 2}

    def make(**change):
        told = given | change
        return generate_traces(
            told["model"], problem_set, told["problems"],
            max_new_tokens=told["limit"], batch_size=told["batch_size"], folder=told.get("folder", tmp_path / "kept"),
        )  # fmt: skip

    make.problems = problem_set
    return make


CHANGES = {
    "weights": "model.weights differs",
    "one number": "model.weights differs",
    "dtype": "model.dtype: 'float32' there, 'bfloat16' now",
    "prompt": "model.prompt",
    "limit": "max_new_tokens: 8 there, 12 now",
    "questions": "problems differs",
    "order": "problems differs",
    "more": "problems differs",
}


def changed(name: str, model: Model, folder, problem_set) -> dict:
    """The arguments that differ from those of the kept traces."""
    if name == "one number":
        other = load_model(folder, device="cpu")
        other.hf.get_input_embeddings().weight.data[-1, -1] += 1e-3
        return {"model": other}
    if name == "dtype":
        return {"model": load_model(folder, device="cpu", dtype="bfloat16")}
    if name == "prompt":
        return {"model": Model(model.hf, model.tokenizer, replace(model.config, prompt="Q: {question}"))}
    problems = {"order": ("test", N), "more": ("test", N + 1), "questions": ("validation", N)}
    if name in problems:
        some = problem_set.take(*problems[name])
        return {"problems": some[::-1] if name == "order" else some}
    return {"limit": 12}


@pytest.mark.parametrize("name", CHANGES)
def test_the_traces_of_another_are_refused(model, tiny_folder, traced, name):
    traced()
    folder = tiny_folder("llama", seed=1)
    change = changed(name, model, folder, traced.problems)
    if name == "weights":
        change = {"model": load_model(tiny_folder("llama", seed=2), device="cpu")}
    with pytest.raises(ProbeError, match=CHANGES[name]):
        traced(**change)


def test_an_adapter_counts_and_an_edit_is_not_kept(model, tiny_folder, traced, tmp_path):
    from peft import LoraConfig, inject_adapter_in_model

    traced()
    with edit(model, {"resid_post.1": lambda x: x * 2}):
        model.hf(torch.tensor([[1, 2]]))
        with pytest.raises(ProbeError, match=r"edited.*call without a folder"):
            traced(folder=tmp_path / "edited")
    assert not (tmp_path / "edited").exists()
    adapted = load_model(tiny_folder("llama", seed=1), device="cpu")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), adapted.hf)
    with pytest.raises(ProbeError, match="model"):
        traced(model=adapted)


def test_where_a_model_lies_and_how_it_decodes_do_not_count(tiny_folder, traced, tmp_path, monkeypatch):
    first = traced()
    monkeypatch.setattr("probe.traces.generate.stream_greedy", lambda *_: pytest.fail("a model ran"))
    moved = load_model(shutil.copytree(tiny_folder("llama", seed=1), tmp_path / "elsewhere"), device="cpu")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for change in ({"batch_size": 64}, {"model": moved}, {"folder": tmp_path / "link"}):
        assert [trace.tokens for trace in traced(**change)] == [trace.tokens for trace in first]
