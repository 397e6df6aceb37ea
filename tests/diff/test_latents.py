"""Latents of one SAE in two models: planted differences are found, and a model does not differ from itself."""

import copy
import warnings
import weakref

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata

from probe.activations import documents
from probe.adapters import Dictionary
from probe.diff import latent_difference, scaled_latents
from probe.diff.latents import _q_values
from probe.diff.shared import SharedLatents, states_of
from probe.errors import NotApplicable, ProbeError
from probe.hooks import capture
from probe.models import Model, ModelConfig, Pair, PairConfig, Site, load_model
from probe.reports import latent_difference_figure
from tests.adapters.conftest import random_topk
from tests.adapters.test_dictionaries import made

WIDTH = 32


def texts(n=24, length=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(6, 90, (n, length), generator=generator).tolist()


def orthonormal(seed=0, site="hook_embed"):
    """An SAE with orthonormal directions, each read and written by a latent of its own above a threshold."""
    config = JumpReLUSAEConfig(
        d_in=WIDTH, d_sae=WIDTH, apply_b_dec_to_input=False, metadata=SAEMetadata(hook_name=site, model_name="")
    )
    with torch.random.fork_rng(devices=[]):
        sae = JumpReLUSAE(config)
    rows = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed)))[0]
    zero = torch.zeros(WIDTH)
    sae.load_state_dict(
        {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": zero, "b_dec": zero, "threshold": zero + 0.01}
    )
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def base(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")


def paired(base, change=lambda _: None):
    hf = copy.deepcopy(base.hf)
    with torch.no_grad():
        change(hf)
    return Pair(PairConfig("planted", base.config, base.config), base, Model(hf, base.tokenizer, base.config))


def test_a_latent_of_one_model_is_found_and_no_other(base):
    sae = orthonormal()

    def change(hf):
        """Two directions leave every token; a third is added to some."""
        weight = hf.get_input_embeddings().weight
        weight -= weight @ sae.W_dec[[3, 4]].T @ sae.W_dec[[3, 4]]
        weight[20:30] += 2 * sae.W_dec[9]

    found = latent_difference(paired(base, change), sae, texts())
    assert {*found.changed} == {3, 4, 9} and found.doubled and {*found.base_only} == {3, 4}
    assert found.thinking_only == [9] and found.shared.ratio[9] < 0.3  # what is added is ten times what was there
    assert found.frequency[1, [3, 4]].tolist() == [0, 0]
    rest = [i for i in range(WIDTH) if i not in (3, 4, 9)]
    assert torch.equal(found.frequency[0, rest], found.frequency[1, rest]) and (found.q_frequency[rest] == 1).all()
    # Counted by hand, without the first token of each text; no token of these is special.
    ids = torch.tensor(texts())[:, 1:].flatten()
    acts = base.hf.get_input_embeddings().weight[ids] @ sae.W_dec.T
    assert found.tokens == len(ids)
    torch.testing.assert_close(found.frequency[0], (acts > 0.01).float().mean(0))
    torch.testing.assert_close(found.mean[0], (acts * (acts > 0.01)).mean(0), atol=1e-5, rtol=1e-4)
    # The other way round, what is new in the thinking model.
    pair = paired(base, change)
    back = latent_difference(Pair(pair.config, pair.thinking, pair.base), sae, texts())
    assert {*back.thinking_only} == {3, 4} and back.base_only == [9]
    told = back.to_dict()
    assert told["thinking_only"] == back.thinking_only and len(told["latents"]) == 3
    shown = [trace.name for trace in latent_difference_figure(back).data]
    assert shown == ["only in thinking", "only in base"]
    assert "only in" in back._repr_html_() and "tensor" not in repr(back)


@pytest.mark.parametrize("kind", ["topk", "layer norm", "SkipTranscoder"])
def test_a_model_does_not_differ_from_itself(kind, base):
    sae = random_topk() if kind == "topk" else made(kind)
    found = latent_difference(paired(base), sae, texts())
    assert found.changed == [] and (found.q_mean == 1).all() and (found.q_frequency == 1).all()
    assert found.explained[0] == found.explained[1] and found.gap.value == 0 and found.gap.ci == (0, 0)
    # How much is explained, by SAELens and in one piece.
    dictionary, ids = Dictionary.of(sae, base), torch.tensor(texts())
    with torch.no_grad(), capture(base, dictionary.sites) as acts:
        base.hf(ids)
    states, wanted = ([acts[site][:, 1:].flatten(0, 1)] for site in (dictionary.reads, dictionary.writes))
    left = wanted[0] - sae(states[0])
    share = 1 - left.square().sum() / (wanted[0] - wanted[0].mean(0)).square().sum()
    assert found.explained[0].value == pytest.approx(float(share), rel=1e-4)


def test_an_sae_that_fits_one_model_only_is_told(base):
    """The SAE's directions are all that the base has, and the thinking model has others."""
    sae = orthonormal()

    def keep(weight, rows):
        return (weight @ rows.T).relu() @ rows

    fits = paired(
        base, lambda hf: hf.get_input_embeddings().weight.copy_(keep(hf.get_input_embeddings().weight, sae.W_dec))
    )
    found = latent_difference(Pair(fits.config, fits.thinking, fits.base), sae, texts())
    assert found.explained[0].value == pytest.approx(1, abs=1e-3) and found.explained[1].value < 0.8
    assert found.gap.high < -0.2 and found.explained[1].low < found.explained[1].value < found.explained[1].high


def test_scales_are_those_of_the_states_in_one_piece(base):
    """Streamed by text, against the table from all states at once."""

    def change(hf):
        hf.model.layers[0].mlp.down_proj.weight.mul_(3)

    sae, pair = random_topk(), paired(base, change)
    pair.thinking.memory = 8_000  # a few tokens are encoded at a time
    found = latent_difference(pair, sae, texts())
    states = (states_of(model, texts(), "resid_post.1") for model in (pair.base, pair.thinking))
    wanted = scaled_latents(sae, *states)
    assert isinstance(found.shared, SharedLatents)
    for name in ("ratio", "back", "active"):
        torch.testing.assert_close(getattr(found.shared, name), getattr(wanted, name), atol=1e-3, rtol=1e-3)
    assert found.changed and (found.shared.active[0] != found.shared.active[1]).any()


def test_few_texts_are_held_at_a_time(base, monkeypatch):
    known, most, make = [], [], documents._of_any

    def noted(model, each):
        found = make(model, each)
        known.append(weakref.ref(found))
        most.append(sum(other() is not None for other in known))
        return found

    monkeypatch.setattr(documents, "_of_any", noted)
    pair = paired(base)
    pair.thinking.memory = 1  # a text at a time
    latent_difference(pair, random_topk(), texts())
    assert len(known) >= 2 * len(texts()) and max(most) <= 3


def test_other_warnings_are_not_swallowed(base, monkeypatch):
    def odd(*_, **__):
        warnings.warn("odd", stacklevel=1)
        return Site("resid_post", 1)

    monkeypatch.setattr("probe.adapters.sae.dictionaries.check_sae", odd)
    with pytest.warns(UserWarning, match="odd"):
        latent_difference(paired(base), random_topk(), texts(4))


def test_false_discoveries_are_as_rare_as_said():
    generator, planted = torch.Generator().manual_seed(0), 20
    false, hits = [], []
    for _ in range(20):
        apart = torch.randn(32, 400, generator=generator) * torch.rand(400, generator=generator).add(0.1)
        apart[:, :planted] += apart[:, :planted].std(0) * 1.2
        apart[:, -50:] = 0  # latents that are never active
        found = _q_values(apart, 0) <= 0.05
        false.append(float(found[planted:].sum() / found.sum().clamp(min=1)))
        hits.append(float(found[:planted].float().mean()))
        assert not found[-50:].any()
    assert sum(false) / len(false) < 0.08 and sum(hits) / len(hits) > 0.9
    nothing = [bool((_q_values(torch.randn(32, 400, generator=generator), 0) <= 0.05).any()) for _ in range(40)]
    assert sum(nothing) <= 6


def test_a_warning_only_if_the_sae_is_of_neither_model(base):
    hf = copy.deepcopy(base.hf)
    hf.config.name_or_path = "thinker"
    thinking = Model(hf, base.tokenizer, ModelConfig("thinker"))
    pair = Pair(PairConfig("two", base.config, thinking.config), base, thinking)
    own, foreign = random_topk(), random_topk()
    own.cfg.metadata.model_name, foreign.cfg.metadata.model_name = base.name, "a-model-of-others"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latent_difference(pair, own, texts(4))
    with pytest.warns(UserWarning, match="trained on a-model-of-others"):
        latent_difference(pair, foreign, texts(4))


@pytest.mark.parametrize(
    ("sae", "given", "kind", "said"),
    [
        (lambda: random_topk(), texts(1), NotApplicable, "two texts"),
        (lambda: random_topk(), [[8], [9]], NotApplicable, "no token is left"),
        (lambda: random_topk(d_in=16), texts(2), ProbeError, "width 16"),
        (lambda: random_topk(site="blocks.7.hook_resid_post"), texts(2), ProbeError, "has blocks 0 to 3"),
        (lambda: "./none", texts(2), ProbeError, "holds no SAE"),
    ],
)
def test_wrong_input_gets_one_line(sae, given, kind, said, base):
    with pytest.raises(kind, match=said) as raised:
        latent_difference(paired(base), sae(), given)
    assert "\n" not in str(raised.value)
