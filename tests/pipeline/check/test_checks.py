"""Good models pass every check, and the result shows itself and can be kept."""

import json

import pytest
import torch
from transformers import PretrainedConfig
from typer.testing import CliRunner

from probe.cli import app
from probe.errors import ProbeError
from probe.models import Model, ModelConfig, load_model
from probe.pipeline.check import language, settings, tokenizer
from probe.pipeline.check.bench import Bench, difference
from probe.pipeline.check.checks import Check, Checks
from probe.pipeline.check.run import _CHECKS, run_checks
from tests.tiny_models import tiny_config, tiny_model
from tests.tokenizers_of_all_kinds import KINDS

#: What only a trained model can pass.
TRAINED = {"predicts text"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-base", "tiny-rl", "tiny-sft", "tiny-decoupled"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_bundled_model_fails(name, dtype):
    done = run_checks(f"bundled:{name}", device="cpu", dtype=dtype)
    assert done.failed == ()
    measured = {check.name for check in done if check.verdict == "passed"}
    assert {"rotary base", "order of blocks", "causal attention", "token offsets", "decoding = generate"} <= measured


@pytest.mark.slow
def test_a_random_model_passes_what_needs_no_training(any_arch, tiny_folder):
    done = run_checks(str(tiny_folder(any_arch)), device="cpu")
    assert {check.name for check in done.failed} <= TRAINED
    passed = {check.name for check in done if check.verdict == "passed"}
    assert {"hook = hidden states", "residual identities", "causal attention", "cached = uncached", "edits"} <= passed
    assert done["rotary base"].verdict == "not applicable"  # random weights fit no base better than another


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "olmo3", "smollm3", "granite", "glm4", "cohere2", "gpt_oss"])
def test_a_random_model_without_known_sites_passes_what_needs_no_sites(kind, letters):
    config: PretrainedConfig = tiny_config(kind, vocab_size=len(letters))
    done = run_checks(Model(tiny_model(config), letters, ModelConfig(kind)))
    assert {check.name for check in done.failed} <= TRAINED
    assert done["cached = uncached"].verdict == done["decoding = generate"].verdict == "passed"


def test_a_model_past_its_sliding_window_is_checked(tiny_folder):
    done = run_checks(str(tiny_folder("mistral")), device="cpu")
    assert done["past the sliding window"].verdict == "passed"
    assert "within a window of 16" in done["causal attention"].why


@pytest.mark.parametrize("kind", KINDS)
def test_the_offsets_of_every_kind_of_tokenizer_are_right(kind):
    own = KINDS[kind]()
    config = tiny_config("llama", vocab_size=len(own) + 5)
    model = Model(tiny_model(config), own, ModelConfig(kind))
    try:
        found = tokenizer.offsets(Bench(model))
    except ProbeError:
        return  # it has no tokens for these texts
    assert found.verdict == "passed", found.why


def test_text_that_repeats_is_measured_only_where_there_is_something_to_gain():
    model = load_model("bundled:tiny-base", device="cpu")
    with pytest.raises(ProbeError, match="nats a token the first time"):
        language.repetition(Bench(model))


def test_a_difference_is_relative_to_the_size_of_a_token_and_never_hides_infinity():
    wanted = torch.randn(3, 8)
    assert difference(wanted, wanted) == 0
    assert difference(wanted + 5, wanted) < 1e-5  # a shift of all logits changes nothing
    assert difference(wanted * 1.01, wanted) == pytest.approx(0.01, rel=1e-3)
    one = wanted.clone()
    one[1] *= -1
    assert difference(one, wanted) == pytest.approx(2, rel=1e-3)
    one[1, 2] = torch.nan
    assert difference(one, wanted) == float("inf")


def test_losses_that_differ_by_chance_are_not_worse():
    numbers = torch.Generator().manual_seed(0)
    noise = torch.randn(100, generator=numbers, dtype=torch.double)
    worse, limit = language.worse_by(noise, torch.zeros(100), 0.03)
    assert worse <= limit
    worse, limit = language.worse_by(noise + 1, torch.zeros(100), 0.03)
    assert worse > limit
    assert language.worse_by(torch.full((9,), 0.02), torch.zeros(9), 0.03) == (pytest.approx(0.02), 0.03)


def test_users_texts_replace_the_built_in_ones(tmp_path):
    file = tmp_path / "texts.jsonl"
    rows = [{"prompt": "Problem: Leo has 5 stamps.", "text": " Now 5 - 4 = 1. So the answer is 1."}, {"text": "Now."}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    from probe.pipeline.check.run import _read

    model = load_model("bundled:tiny-base", device="cpu")
    [(before, ids), (start, _)] = _read(model, file)
    assert len(start) == 1  # what precedes the first predicted token
    assert model.decode(before) == "Problem: Leo has 5 stamps."
    assert model.decode(ids).strip() == "Now 5 - 4 = 1. So the answer is 1."
    file.write_text("{}\n")
    with pytest.raises(ProbeError, match='and "prompt" if there is one'):
        run_checks(model, texts=file)


def test_a_check_that_raises_fails_and_the_others_are_made():
    model = load_model("bundled:tiny-base", device="cpu")

    def broken(*_, **__):
        raise TypeError("generate is not there")

    model.hf.generate = broken
    done = run_checks(model)
    assert [check.name for check in done.failed] == ["decoding = generate"]
    assert done.failed[0].why == "the check ended with TypeError: generate is not there"
    assert [check.name for check in done] == [name for _, name in _CHECKS]


def test_the_result_shows_itself_and_is_plain_json():
    checks = (
        Check("passes", "batched = single", "failed", "a <batch> gives other logits", 0.5, 1e-4),
        Check("passes", "number formats", "measured", "KL 0.1", 0.1),
        Check("sites", "edits", "passed", "nothing changes", 0, 0),
    )
    done = Checks("tiny", checks, 1.0)
    assert done.failed == checks[:1]
    assert done["edits"] is checks[2]
    assert len(done) == 3
    with pytest.raises(KeyError):
        done["nope"]
    assert json.loads(json.dumps(done.as_dict()))["checks"][0]["limit"] == 1e-4
    assert "a &lt;batch&gt; gives" in done._repr_html_()
    assert "1 passed, 1 failed, 1 measured" in str(done)
    assert done.sentences()[0].startswith("batched = single (failed)")


@pytest.mark.slow
def test_the_command_shows_a_table_and_its_exit_code_says_whether_a_check_failed(tiny_folder):
    shown = CliRunner().invoke(app, ["check", str(tiny_folder("llama"))])
    assert shown.exit_code == 1
    assert "batched = single" in shown.stdout
    assert "predicts text (failed): " in shown.stdout
    done = CliRunner().invoke(app, ["check", "bundled:tiny-rl", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["failed"] == 0


@pytest.mark.slow
def test_smollm2_passes_and_a_wrong_rotary_base_or_template_is_found(smollm2, monkeypatch):
    bench = Bench(smollm2)
    for check in (language.predicts, language.context, language.repetition, tokenizer.offsets, tokenizer.template):
        assert check(bench).verdict == "passed"
    with settings._rotated(smollm2.hf, None, 1e4):  # trained with 1e5
        monkeypatch.setitem(smollm2.hf.config.rope_parameters, "rope_theta", 1e4)
        found = settings.rotary_base(Bench(smollm2))
    assert found.verdict == "failed"
    assert "rope_theta 8e+04" in found.why
    llama3 = (
        "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>"
        "{% endfor %}"
    )
    monkeypatch.setattr(smollm2.tokenizer, "chat_template", llama3)
    assert "another model's" in tokenizer.template(bench).why
