"""Training: packing, objectives, resuming, and refusals."""

import json
from dataclasses import replace

import pytest
import torch

from probe.adapters import AdapterPlan, Example, Objective, TuneConfig, pack, tune
from probe.adapters.training.objective import kl
from probe.adapters.training.packing import examples_of
from probe.adapters.training.plan import adapted
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from probe.problems import load_problems
from probe.traces import generate_traces
from tests.adapters.conftest import random_topk

CONFIG = TuneConfig(steps=12, batch_tokens=60, pack_to=64, lr=0.01, check_every=3)


def texts(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 25, (n,), generator=generator).tolist()
    ids = [torch.randint(6, 90, (length,), generator=generator).tolist() for length in lengths]
    return [Example((1, *some), 4) for some in ids]


@pytest.fixture
def sae():
    return random_topk()


@pytest.mark.parametrize("length", [1, 40, 1000])
def test_a_text_says_the_same_however_it_is_packed(model, length):
    """One to a row, a few, all in one: each place that counts has the logits of the text alone."""
    examples = texts(6)
    packed = pack(model, examples, length)
    assert packed.counts.sum() == sum(example.counted for example in examples)
    with torch.no_grad():
        logits = packed.logits(model)
        where = packed.segment[packed.counts]
        for i, example in enumerate(examples):
            alone = model.hf(torch.tensor([example.ids])).logits[0, example.start - 1 : -1]
            torch.testing.assert_close(logits[where == i], alone, atol=2e-5, rtol=1e-4)
            assert packed.targets[where == i].tolist() == list(example.ids[example.start :])


@pytest.mark.parametrize("arch", ["qwen3_next", "llama4"])
def test_states_and_chunks_begin_with_each_text(tiny_folder, arch):
    """Texts longer than a chunk; a state goes through a whole row, so that each text has one to itself."""
    model = load_model(tiny_folder(arch, "letters"))
    examples = texts(5)
    packed = pack(model, examples, 60)
    assert len(packed.ids) == (5 if model.state_layers else 2)
    with torch.no_grad():
        logits = packed.logits(model)
        for i, example in enumerate(examples):
            alone = model.hf(torch.tensor([example.ids])).logits[0, example.start - 1 : -1]
            torch.testing.assert_close(logits[packed.segment[packed.counts] == i], alone, atol=5e-5, rtol=1e-4)


def test_the_loss_does_not_depend_on_packing(llama, sae):
    objective = Objective("resa", sae)
    losses = [
        objective.losses(llama, torch.no_grad, pack(llama, texts(6), length)).sum().item() for length in (1, 40, 1000)
    ]
    assert losses[0] > 1e-3
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-4)


def test_kl_is_zero_for_the_same_and_that_of_torch():
    logits = torch.randn(2, 5, 9)
    other = torch.randn(2, 5, 11)
    torch.testing.assert_close(kl(logits, logits), torch.zeros(2, 5), atol=1e-6, rtol=0)
    expected = torch.nn.functional.kl_div(
        other[..., :9].log_softmax(-1), logits.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(kl(logits, other), expected)


@pytest.mark.parametrize("insert", ["sae", "noise", "random-sae", "shuffled-decoder"])
def test_every_insertion_is_made_up_for_and_the_model_is_as_it_was(llama, sae, tmp_path, insert):
    before = {name: tensor.clone() for name, tensor in llama.hf.state_dict().items()}
    random_state = torch.get_rng_state()
    done = tune(llama, texts(12), texts(4, 1), Objective("resa", sae, insert), folder=tmp_path, config=CONFIG)
    # Noise is another at every step, so that it can be damped and not undone.
    assert done.best["loss"] < (0.99 if insert == "noise" else 0.97) * done.history[0]["loss"]
    assert torch.equal(torch.get_rng_state(), random_state), "the caller's random numbers are not touched"
    after = llama.hf.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert done.cost["tokens"] > 0 and done.cost["flops"] > done.cost["tokens"] and done.cost["peak_memory"] > 0
    again = tune(llama, texts(12), texts(4, 1), Objective("resa", sae, insert), folder=tmp_path, config=CONFIG)
    assert again.history == json.loads(json.dumps(done.history)), "it is there already"


def test_objectives_reach_what_they_want(llama, sae, tiny_folder, tmp_path):
    source = load_model(ModelConfig(str(tiny_folder("llama", seed=2))), device="cpu")
    wanted = {
        "steer": Objective("steer-distil", sae, latents=(3, 7), value=6.0),
        "source": Objective("source-distil", source=source),
        "features": Objective("feature-match", sae, latents=(3, 7), source=source),
        "ce": Objective("ce"),
        "chen": Objective("chen", sae),
    }
    for name, objective in wanted.items():
        done = tune(llama, texts(12), texts(4, 1), objective, folder=tmp_path / name, config=CONFIG)
        assert done.best["loss"] < 0.99 * done.history[0]["loss"], name
    card = json.loads((tmp_path / "features" / "adapter_config.json").read_text())
    assert {name.split(".")[2] for name in card["target_modules"]} == {"0", "1"}, "those above the site cannot learn"


def test_layers_that_cannot_learn_are_refused_by_name(llama, sae, tmp_path):
    stopped = Objective("resa", sae, through=False)
    with pytest.raises(ProbeError, match=r"reaches the LoRA at blocks 0, 1 \(28 tensors\).* give blocks 2 to 3"):
        tune(llama, texts(4), texts(2), stopped, folder=tmp_path, plan=AdapterPlan(layers=(0, 1, 2)), config=CONFIG)
    assert not (tmp_path / "history.json").exists()
    done = tune(llama, texts(8), texts(2), stopped, folder=tmp_path, config=CONFIG)
    assert done.best["loss"] < done.history[0]["loss"]
    matched = Objective("feature-match", sae, latents=(1,), value=3.0)
    with pytest.raises(ProbeError, match="at blocks 2, 3"):
        tune(
            llama, texts(4), texts(2), matched, folder=tmp_path / "m", plan=AdapterPlan(layers=(1, 2, 3)), config=CONFIG
        )


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5])
def test_interrupted_and_resumed_is_as_never_interrupted(llama, sae, tmp_path, monkeypatch, at):
    """Bit for bit, with Adam's moments, dropout and the order of the texts; also before the first checkpoint."""
    plan, objective = AdapterPlan(dropout=0.1), Objective("resa", sae)
    whole = tune(llama, texts(12), texts(4, 1), objective, folder=tmp_path / "whole", plan=plan, config=CONFIG)
    real, calls = Objective.scoring, []

    def dies(self, model, plain, batch, chunk):
        if torch.is_grad_enabled():  # the proof of life, and then the steps
            calls.append(None)
        if len(calls) > 1 + at:
            raise Killed
        return real(self, model, plain, batch, chunk)

    monkeypatch.setattr(Objective, "scoring", dies)
    with pytest.raises(Killed):
        tune(llama, texts(12), texts(4, 1), objective, folder=tmp_path / "cut", plan=plan, config=CONFIG)
    monkeypatch.undo()
    with pytest.raises(ProbeError, match="holds another adapter, interrupted"):
        tune(
            llama, texts(12), texts(4, 1), objective, folder=tmp_path / "cut", plan=plan, config=replace(CONFIG, lr=0.5)
        )
    resumed = tune(llama, texts(12), texts(4, 1), objective, folder=tmp_path / "cut", plan=plan, config=CONFIG)
    assert resumed.history == whole.history
    assert (tmp_path / "cut" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "whole" / "adapter_model.safetensors"
    ).read_bytes()
    assert not (tmp_path / "cut" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "resah"}, "no objective 'resah'; did you mean 'resa'"),
        ({"name": "resa", "insert": "nois"}, "no insert 'nois'; did you mean 'noise'"),
        ({"name": "resa"}, "resa needs an SAE"),
        ({"name": "steer-distil"}, "steer-distil needs an SAE and latents"),
        ({"name": "source-distil"}, "source-distil needs a source model"),
    ],
)
def test_what_makes_no_objective_is_refused(more, said):
    with pytest.raises(ProbeError, match=said):
        Objective(**more)


def test_bad_plans_and_folders_are_refused_before_a_step(llama, sae, tmp_path):
    objective = Objective("resa", sae)
    for plan, said in (
        (AdapterPlan(layers=(9,)), "plan.layers has 9; .* blocks 0 to 3"),
        (AdapterPlan(modules=("c_attn",)), "plan.modules has 'c_attn'; a block of .* has down_proj"),
    ):
        with pytest.raises(ProbeError, match=said):
            tune(llama, texts(4), texts(2), objective, folder=tmp_path / "x", plan=plan, config=CONFIG)
    with pytest.raises(ProbeError, match="nothing to train on"):
        tune(llama, texts(4), [], objective, folder=tmp_path / "x", config=CONFIG)
    tune(llama, texts(4), texts(2), objective, folder=tmp_path / "y", config=replace(CONFIG, steps=1))
    with pytest.raises(ProbeError, match=r"holds another adapter \(texts differs\): name another folder"):
        tune(llama, texts(5), texts(2), objective, folder=tmp_path / "y", config=replace(CONFIG, steps=1))


def test_every_architecture_gets_a_lora_and_loses_it(model):
    before = model.hf(torch.tensor([[1, 8, 9]])).logits
    with adapted(model, AdapterPlan(), Objective("ce"), seed=0) as wrapped:
        tensors = [tensor for name, tensor in wrapped.named_parameters() if "lora_B" in name]
        assert len(tensors) >= 4 * model.n_layers
        with torch.no_grad():
            for tensor in tensors:
                tensor.add_(0.1)
        assert not torch.allclose(model.hf(torch.tensor([[1, 8, 9]])).logits, before)
    assert torch.equal(model.hf(torch.tensor([[1, 8, 9]])).logits, before)


def test_traces_count_from_behind_the_prompt(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama")), prompt="Problem: {question}\nSolution:"), device="cpu")
    problems = load_problems("story")
    some = problems.take("train", 2)
    traces = generate_traces(model, problems, some, max_new_tokens=6)
    for example, trace, problem in zip(examples_of(model, traces, some), traces, some, strict=True):
        prompt = model.prompt_ids(problem.question)
        assert example.ids[example.start :][:6] == trace.tokens and list(example.ids[: example.start]) == prompt


def test_a_training_that_diverges_says_at_which_step(model, tmp_path):
    config = replace(CONFIG, lr=1e30)
    with pytest.raises(ProbeError, match=r"the loss at step [1-9] of the adapter of .* is not finite"):
        tune(model, texts(12), texts(4, 1), Objective("ce"), folder=tmp_path, plan=AdapterPlan(), config=config)
