"""Directions, neurons and latents that were planted are found, and in a pair with itself nothing differs."""

import pytest
import torch

import probe
from probe.diff import (
    TokenShift,
    diff_models,
    direction_transfer,
    entropy_neurons,
    entropy_overlap,
    fit_direction,
    head_shift,
    knowledge_maps,
    running_mean,
    scaled_latents,
    shared_latents,
    token_trace,
    usual_parts,
)
from probe.diff.shared import states_of
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import ModelConfig, Pair, PairConfig, load_model
from probe.traces import make_trace
from tests.circuits.conftest import drawn_pairs


@pytest.fixture
def itself(tiny_folder):
    folder = str(tiny_folder("llama"))
    config = PairConfig("itself", base=ModelConfig(folder), thinking=ModelConfig(folder))
    return Pair(config, *(load_model(ModelConfig(folder), device="cpu") for _ in range(2)))


def test_a_direction_that_is_there_is_found_and_one_that_is_not_is_not():
    generator = torch.Generator().manual_seed(0)
    states, labels = torch.randn(400, 16, generator=generator), torch.rand(400, generator=generator) > 0.5
    planted = torch.zeros(16)
    planted[3] = 3.0
    for truth, least, most in ((planted, 0.9, 1.0), (0 * planted, 0.3, 0.7)):
        made = states + torch.where(labels, 1.0, -1.0)[:, None] * truth
        found = fit_direction(made[:200], labels[:200], 0)
        assert least <= float((found.predict(made[200:]) == labels[200:]).float().mean()) <= most
    assert (
        torch.cosine_similarity(fit_direction(states + labels[:, None] * planted, labels, 0).vector, planted, dim=0)
        > 0.9
    )


def test_the_directions_of_a_model_and_itself_are_one(itself):
    pairs = drawn_pairs(rows=40)
    fitted, rest = pairs.split()
    found = direction_transfer(itself, fitted, rest, n_permutations=50)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    table = found.accuracy
    assert len({table[of][on] for of in table for on in table[of]}) == 1
    assert found.steered["base"]["base"] == pytest.approx(found.steered["thinking"]["base"])
    assert 0 < min(found.p.values()) <= max(found.p.values()) <= 1 and "cosine" in found._repr_html_()


def test_maps_of_a_model_and_itself_are_one(itself):
    found = knowledge_maps(itself, drawn_pairs())
    assert found.correlation == pytest.approx(1) and found.largest == 0
    assert torch.equal(found.into_base.values, found.base.values)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_neuron_that_moves_all_logits_alike_is_found(tiny_folder, name):
    model = load_model(ModelConfig(str(tiny_folder(name))), device="cpu")
    mlp = model.hf.transformer.h[-1].mlp.c_proj if name == "gpt2" else model.hf.model.layers[-1].mlp.down_proj
    unembed = model.hf.get_output_embeddings().weight.float()
    unit = torch.nn.functional.normalize(unembed, dim=1)
    # What moves all logits alike: the direction along which the rows' cosines vary least.
    even = torch.linalg.eigh(torch.cov(unit.T)).eigenvectors[:, 0]
    with torch.no_grad():
        if name == "gpt2":
            mlp.weight[5] = 50 * even
        else:
            mlp.weight[:, 5] = 50 * even
    found = entropy_neurons(model)
    assert found.neurons[0] == 5
    written = mlp.weight if name == "gpt2" else mlp.weight.T
    cosines = torch.nn.functional.normalize(written.detach().double(), dim=1) @ unit.detach().double().T
    torch.testing.assert_close(found.spread, cosines.var(1).log().float(), atol=1e-3, rtol=1e-3)
    model.memory = 1  # some rows of the vocabulary at a time
    torch.testing.assert_close(entropy_neurons(model).spread, found.spread)


def test_a_model_shares_all_its_entropy_neurons_with_itself(itself):
    found = entropy_overlap(itself)
    assert found.iou == 1 and found.p < 0.05


def planted_states(n, generator, missing):
    """Sparse codes over six directions; one model lacks those of ``missing``."""
    directions = torch.nn.functional.normalize(torch.randn(6, 24, generator=generator), dim=1)
    codes = torch.rand(n, 6, generator=generator) * (torch.rand(n, 6, generator=generator) < 0.25) * 4
    without = codes.clone()
    without[:, missing] = 0
    noise = 0.01 * torch.randn(2, n, 24, generator=generator)
    return directions, without @ directions + noise[0], codes @ directions + noise[1]


def test_planted_latents_of_one_model_alone_are_found():
    from probe.adapters import train_sae

    generator = torch.Generator().manual_seed(0)
    directions, base, thinking = planted_states(4000, generator, [1, 4])
    pooled = torch.cat([base[:2000], thinking[:2000]])

    def batches():
        while True:
            yield pooled[torch.randint(len(pooled), (256,), generator=generator)]

    sae = train_sae(batches(), "resid_post.1", latents=12, k=2, steps=600, batch_size=256, lr=3e-3)
    found = scaled_latents(sae, base[2000:], thinking[2000:])
    alike = torch.nn.functional.normalize(sae.W_dec, dim=1) @ directions.T
    whose = {i: int(alike[i].argmax()) for i in range(12) if alike[i].max() > 0.9}
    assert {whose[i] for i in found.thinking_only if i in whose} == {1, 4}
    assert not found.base_only and found.variance_explained > 0.8
    back = scaled_latents(sae, thinking[2000:], base[2000:])
    assert set(back.base_only) == set(found.thinking_only)


def test_latents_of_a_model_and_itself_are_shared(itself):
    texts = [[7 + i, 8 + i, 9 + 2 * i, 10, 11, 12 + i] for i in range(20)]
    found = shared_latents(itself, texts, layer=1, latents=16, k=2, steps=60)
    assert not found.thinking_only and not found.base_only
    live = found.active[1] > 0
    assert torch.allclose(found.ratio[live], torch.ones(int(live.sum())), atol=1e-3)
    with pytest.raises(ProbeError, match="two or more"):
        shared_latents(itself, texts[:1], layer=1)


def test_a_running_mean_forgets():
    values = torch.tensor([1.0, 0.0, 0.0, 4.0])
    torch.testing.assert_close(running_mean(values, 0.5), torch.tensor([1.0, 0.5, 0.25, 2.125]))
    assert torch.equal(running_mean(values, 0.0), values)


@pytest.fixture(scope="module")
def bundled():
    return probe.load_pair("tiny-rl", device="cpu")


def test_divergence_by_token_is_that_of_two_passes(bundled):
    problems = probe.load_problems("story")
    (problem,) = problems.take("test", 1)
    trace = probe.generate_traces(bundled.thinking, problems, [problem], max_new_tokens=30)[0]
    found = token_trace(bundled, problem, trace)
    log_p = []
    for model in (bundled.base, bundled.thinking):
        prompt = model.prompt_ids(problem.question)
        ids = torch.tensor([[*prompt, *trace.tokens]])
        log_p.append(model.hf(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1))
    expected = torch.nn.functional.kl_div(log_p[0], log_p[1], log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(found.kl, expected, atol=1e-4, rtol=1e-3)
    assert 0 <= found.peak() < len(trace.tokens) and "".join(found.tokens) == trace.text
    empty = make_trace(bundled.thinking, problems, problem, [], False)
    assert len(token_trace(bundled, problem, empty).kl) == 0
    shift = TokenShift.of(found for _ in range(40))
    assert shift.n_traces == 40 and len(shift) == 32 and shift.tokens == 40 * len(found.tokens) and shift[0] is found
    assert shift.kl == pytest.approx(float(found.kl.mean())) and shift.largest_kl == float(found.kl.max())


@pytest.mark.slow
@pytest.mark.long
def test_nothing_differs_between_a_model_and_itself(bundled):
    itself = Pair(bundled.config, bundled.thinking, bundled.thinking)
    found = diff_models(itself, n_problems=16, n_pairs=12, max_new_tokens=160)
    assert set(found.missing) <= {"heads"} and len(found.findings) >= len(usual_parts(None)) - 1
    assert not [each for each in found.findings if each.differs]
    assert "same" in found._repr_html_() and "differs" not in found._repr_html_()


def test_what_cannot_be_compared_is_refused(bundled):
    with pytest.raises(ProbeError, match="no part 'head'; did you mean 'heads'"):
        diff_models(bundled, parts=["head"])
    with pytest.raises(ProbeError, match="no type of sentence is called 'chekc'; did you mean 'check'"):
        diff_models(bundled, behaviour="chekc", n_problems=2, parts=["neurons"])
    with pytest.raises(ProbeError, match="give one as sae="):
        diff_models(bundled, parts=["dictionary"])
    with pytest.raises(ProbeError, match="layer is 99; the models of"):  # before any text is generated
        diff_models(bundled, layer=99, n_problems=2, parts=["latents"])


def test_a_part_that_does_not_apply_is_named_and_an_error_is_raised(bundled, monkeypatch):
    found = diff_models(bundled, n_problems=2, n_pairs=8, max_new_tokens=8, parts=["truth", "neurons"])
    assert found.neurons is not None and "no equation" in found.missing["truth"]
    monkeypatch.setattr("probe.diff.parts.entropy_overlap", lambda _: (_ for _ in ()).throw(ProbeError("broken")))
    with pytest.raises(ProbeError, match="broken"):
        diff_models(bundled, n_problems=2, max_new_tokens=8, parts=["neurons"])


def test_bf16_models_are_compared(tiny_folder):
    folder = str(tiny_folder("llama"))
    config = PairConfig("itself", base=ModelConfig(folder), thinking=ModelConfig(folder))
    half = Pair(config, *(load_model(ModelConfig(folder), device="cpu", dtype="bfloat16") for _ in range(2)))
    assert knowledge_maps(half, drawn_pairs()).largest == 0 and entropy_overlap(half).iou == 1
    assert head_shift(half.base, half.thinking, drawn_pairs(rows=8), steps=1).contrast.abs().max() == 0


def test_too_few_pairs_are_refused(itself):
    pairs = drawn_pairs(rows=8)
    with pytest.raises(ProbeError, match="3 pairs of texts to test on"):
        direction_transfer(itself, pairs, drawn_pairs(rows=3))


def test_groups_of_one_are_split_too():
    from probe.circuits import Pairs

    one = drawn_pairs(rows=4)
    apart = Pairs(
        *(tuple(tensor for tensor in column[0].split(1)) for column in (one.clean, one.corrupt, one.right, one.wrong))
    )
    learned, held = apart.split()
    assert len(learned) == len(held) == 2
    assert torch.equal(torch.cat(held.clean), one.clean[0][1::2]) and torch.equal(
        held.clean[0], one.split()[1].clean[0][:1]
    )


def test_a_sample_of_states_is_of_the_same_tokens_in_every_model_and_as_read_whole(itself):
    texts = [[7 + i, 8 + i, *range(9, 9 + i % 4)] for i in range(12)]
    whole, some, other = (states_of(itself.base, texts, "resid_post.1", most=n, seed=3) for n in (None, 9, 9))
    assert whole.shape == (sum(len(text) - 1 for text in texts), itself.base.d_model) and some.shape[0] == 9
    assert torch.equal(states_of(itself.base, texts, "resid_post.1", most=len(whole)), whole)
    rows = [int((whole == state).all(1).nonzero()[0, 0]) for state in some]
    assert len(set(rows)) > 3 and torch.equal(some, other)
    with capture(itself.base, "resid_post.1") as acts:
        itself.base.hf(torch.tensor([texts[5]]))
    before = sum(len(text) - 1 for text in texts[:5])
    torch.testing.assert_close(whole[before : before + len(texts[5]) - 1], acts["resid_post.1"][0, 1:])


@torch.no_grad()
def test_latents_are_scaled_alike_in_chunks(monkeypatch):
    """Against the formula over all tokens at once."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    generator = torch.Generator().manual_seed(0)
    _, base, thinking = planted_states(50, generator, [1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=24, d_sae=12, k=3))
    monkeypatch.setattr("probe.diff.shared._CHUNK", 7)
    found = scaled_latents(sae, base, thinking)
    f, other, d = sae.encode(thinking), sae.encode(base), sae.W_dec
    for latent in (found.active[1] > 3).nonzero()[:, 0].tolist():
        own = f[:, latent, None] * d[latent]
        beta = [
            float((own * (states - sae.decode(code) + code[:, latent, None] * d[latent])).sum() / own.square().sum())
            for states, code in ((base, other), (thinking, f))
        ]
        assert found.ratio[latent] == pytest.approx(beta[0] / max(beta[1], 1e-6), rel=1e-3, abs=1e-4)
    pooled, made = torch.cat([base, thinking]), torch.cat([sae.decode(other), sae.decode(f)])
    left = (pooled - made).square().sum() / (pooled - pooled.mean(0)).square().sum()
    assert found.variance_explained == pytest.approx(1 - float(left), rel=1e-4)
