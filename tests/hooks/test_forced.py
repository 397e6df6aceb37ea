"""A forced pass gives logits of some tokens at a time: those of the model itself, for any architecture and budget."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.peak import Peak
from probe.hooks import capture, edit, force, forced_pass, in_rows
from probe.models import Model, ModelConfig, load_model
from tests.supported_models import some_prompts, tokenizer
from tests.tiny_models import tiny_config, tiny_model

TEXTS = [[5, 6, 7, 8, 9], [9, 4], [], [7, 8, 9]]
PROMPTS = [[20, 21, 22], list(range(30, 37)), [5], [6, 7]]


@pytest.fixture
def model(decoding_arch, tiny_folder):
    return load_model(ModelConfig(str(tiny_folder(decoding_arch, tokenizer="letters"))), device="cpu")


def plain(model, forced):
    """Logits by transformers alone, row by row."""
    found = []
    for ids, valid, columns, emitted in zip(forced.ids, forced.valid, forced.predicts, forced.emitted, strict=True):
        with torch.no_grad():
            logits = model.hf(ids[valid][None]).logits[0]
        found.append(logits[columns[emitted]])
    return found


def test_any_chunk_gives_the_logits_of_the_model_itself(model):
    forced = force(model, PROMPTS, TEXTS)
    wanted = plain(model, forced)
    ran = forced_pass(model, forced, "resid_post.1")
    for size in (1, 3, 100):
        logits, tokens = (torch.cat(each) for each in zip(*ran.in_chunks(size), strict=True))
        torch.testing.assert_close(logits, torch.cat(wanted), atol=2e-5, rtol=1e-4)
        assert tokens.tolist() == [token for text in TEXTS for token in text]
    best = ran.over_logits(lambda logits, tokens: torch.stack([logits.argmax(-1), tokens], -1))
    for row, text in enumerate(TEXTS):
        assert best[row, : len(text)].tolist() == [[int(w.argmax()), t] for w, t in zip(wanted[row], text, strict=True)]
        assert not best[row, len(text) :].any()


@pytest.mark.parametrize("kind", ["gemma3", "cohere2", "granite", "opt", "bert", "modernbert-decoder", "gpt_oss"])
def test_what_a_model_does_around_its_head_is_done(kind):
    """A wrapped text model, scales and caps of logits, a trunk in another, and a transform before the unembedding."""
    model = Model(tiny_model(tiny_config(kind)), tokenizer())
    forced = force(model, some_prompts(), [[5, 6, 7], [8], [9, 10]])
    logits = torch.cat([some for some, _ in forced_pass(model, forced).in_chunks(2)])
    torch.testing.assert_close(logits, torch.cat(plain(model, forced)), atol=1e-3, rtol=1e-3)


def test_hooks_of_others_see_the_pass_alone(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    forced = force(model, PROMPTS[:2], TEXTS[:2])
    before = forced_pass(model, forced).logits
    with capture(model, "resid_post.2", stop=False) as acts:
        inside = forced_pass(model, forced).logits
    assert torch.equal(inside, before) and acts["resid_post.2"].shape[:2] == forced.ids.shape
    with edit(model, {"logits": lambda logits: logits + torch.arange(logits.shape[-1])}):
        edited = forced_pass(model, forced).logits
    torch.testing.assert_close(edited[0], before[0] + torch.arange(before.shape[-1]))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


def test_a_small_budget_runs_fewer_rows_and_changes_nothing(model):
    forced = force(model, PROMPTS, TEXTS)
    sizes = []

    def read(some):
        sizes.append(len(some.ids))
        ran = forced_pass(model, some, "resid_post.1")
        return ran.over_logits(lambda logits, _: logits.argmax(-1)), ran.predicting("resid_post.1")

    tokens, states = in_rows(model, forced, read, what="reading")
    assert sizes == [len(TEXTS)]
    model.memory = 1
    again, same = in_rows(model, forced, read, what="reading")
    assert sizes[1:] == [1] * len(TEXTS)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(same, states, atol=2e-5, rtol=1e-4)


def test_memory_that_runs_out_halves_the_rows(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    forced = force(model, PROMPTS, TEXTS)

    def read(some):
        if len(some.ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (forced_pass(model, some, "resid_post.1", logits=False).whole["resid_post.1"],)

    (states,) = in_rows(model, forced, read, what="reading")
    whole = forced_pass(model, forced, "resid_post.1", logits=False).whole["resid_post.1"]
    torch.testing.assert_close(states, whole)


def large(vocab):
    """A shallow model with a vocabulary as large as real ones have."""
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, max_position_embeddings=1024, **shape))
    return Model(hf, tokenizer())


def test_logits_of_a_batch_are_never_held():
    model = large(50_000)
    model.memory = 32 << 20
    peaks = {}
    for length in (100, 200):
        forced = force(model, [[5]] * 4, [[6] * length] * 4)
        with Peak() as held:
            forced_pass(model, forced).over_logits(lambda logits, _: logits.argmax(-1))
        peaks[length] = held.peak
    assert peaks[100] < 18 << 20, "a chunk of 8 MB and a view of the unembedding of 6 MB; those of the batch take 80 MB"
    assert peaks[200] <= 1.1 * peaks[100]
