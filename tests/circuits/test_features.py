"""Scores of latents: complete with the error term, exact where the model is linear, and right for planted latents."""

from dataclasses import replace

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import probe
from probe.adapters import Dictionary
from probe.circuits import (
    feature_check,
    feature_effects,
    feature_places,
    feature_scores,
    latent_detector,
    latent_examples,
)
from probe.circuits.pairs.pairs import Pairs, logit_difference
from probe.errors import NotApplicable, ProbeError
from probe.models import ModelConfig, load_model
from probe.reports import features_figure, shares_figure
from tests.adapters.conftest import random_topk
from tests.adapters.test_dictionaries import made
from tests.circuits.conftest import drawn_pairs

SITES = {
    "resid_post.1": lambda: random_topk(site="blocks.1.hook_resid_post"),
    "attn_out.2": lambda: made("layer norm", hook_name="blocks.2.hook_attn_out"),
    "mlp": lambda: made("JumpReLUSkipTranscoder"),
}


def basis(site, width=32):
    """An SAE without error: a latent for either direction of each coordinate."""
    config = StandardSAEConfig(d_in=width, d_sae=2 * width, metadata=SAEMetadata(hook_name=site))
    with torch.random.fork_rng(devices=[]):
        sae = StandardSAE(config)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    state = {"W_dec": both, "W_enc": both.T.contiguous(), "b_enc": torch.zeros(2 * width), "b_dec": torch.zeros(width)}
    sae.load_state_dict(state)
    return sae.requires_grad_(False)


@pytest.mark.parametrize("site", SITES)
def test_latents_error_and_skip_add_up_to_the_effect_of_the_site(site, llama):
    pairs, off = drawn_pairs(), []
    for steps in (1, 4, 32):
        (found,) = feature_scores(llama, SITES[site](), pairs, steps=steps).sites
        off.append(float((found.latents.sum(1) + found.error + found.skip - found.total).abs().max()))
    assert off[2] < off[1] < off[0] and off[2] < 0.01 * float(found.total.abs().max())
    parts = (found.latents.sum(1), found.error, *([found.skip] if site == "mlp" else []))
    assert all(each.abs().max() > 1e-3 for each in parts), "each part matters, so that leaving one out would be seen"
    # What the whole site does, by a hook of torch's own.
    clean, corrupt, right, wrong = next(iter(pairs))
    module = {"resid_post.1": "layers.1", "attn_out.2": "layers.2.self_attn", "mlp": "layers.1.mlp"}[site]
    module, kept = llama.hf.model.get_submodule(module), []
    measure = logit_difference(right, wrong)
    with torch.no_grad():
        whole = measure(llama.hf(clean).logits)
        handle = module.register_forward_hook(lambda _, __, out: kept.append(out))
        llama.hf(corrupt)
        handle.remove()
        handle = module.register_forward_hook(lambda _, __, ___: kept[0])
        torch.testing.assert_close(found.total, whole - measure(llama.hf(clean).logits), atol=1e-5, rtol=1e-4)
        handle.remove()


def test_scores_are_the_gradients_of_latents_inserted_with_the_error(llama):
    """With one step: autograd through SAELens' own decoder, in a hook of torch's own."""
    sae, (clean, corrupt, right, wrong) = SITES["resid_post.1"](), next(iter(drawn_pairs()))
    layer, states = llama.hf.model.layers[1], []
    handle = layer.register_forward_hook(lambda _, __, out: states.append(out))
    with torch.no_grad():
        for ids in (corrupt, clean):
            llama.hf(ids)
    handle.remove()
    first, last = (sae.encode(each) for each in states)
    middle = ((first + last) / 2).requires_grad_()
    error = sum(state - sae.decode(acts) for state, acts in zip(states, (first, last), strict=True)) / 2
    handle = layer.register_forward_hook(lambda _, __, ___: sae.decode(middle) + error)
    logit_difference(right, wrong)(llama.hf(clean).logits).sum().backward()
    handle.remove()
    wanted = (middle.grad * (last - first)).sum(1)
    (found,) = feature_scores(llama, sae, drawn_pairs(), steps=1).sites
    torch.testing.assert_close(found.latents, wanted, atol=1e-5, rtol=1e-4)
    assert all(each.grad is None for each in llama.hf.parameters())


def test_where_the_metric_is_linear_scores_are_exact_effects(llama):
    sae, pairs = random_topk(site="ln_final.hook_out"), drawn_pairs()
    (found,) = feature_scores(llama, sae, pairs, steps=1).sites
    effects = feature_effects(llama, sae, pairs, range(48))
    torch.testing.assert_close(found.latents, effects, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(effects.sum(1) + found.error, found.total, atol=1e-4, rtol=1e-4)
    assert effects.abs().max() > 0.01


def test_an_exact_effect_is_that_of_saelens_latent(llama):
    """One latent, set to its corrupt value by hand in a hook of torch's own."""
    sae, pairs = SITES["resid_post.1"](), drawn_pairs()
    clean, corrupt, right, wrong = next(iter(pairs))
    latents = feature_scores(llama, sae, pairs).sites[0].latents.abs().mean(0).topk(2).indices.tolist()
    layer, kept = llama.hf.model.layers[1], []
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda _, __, out: kept.append(sae.encode(out)))
        whole = logit_difference(right, wrong)(llama.hf(clean).logits)
        llama.hf(corrupt)
        handle.remove()
        for i, latent in enumerate(latents):
            wanted = kept[0].clone()
            wanted[..., latent] = kept[1][..., latent]
            handle = layer.register_forward_hook(
                lambda _, __, out, wanted=wanted: out + sae.decode(wanted) - sae.decode(kept[0])
            )
            effect = whole - logit_difference(right, wrong)(llama.hf(clean).logits)
            handle.remove()
            torch.testing.assert_close(feature_effects(llama, sae, pairs, latents)[:, i], effect, atol=1e-5, rtol=1e-4)


def test_planted_latents_come_first_and_agree_with_exact_ablation(wired):
    """After block 0 only B and C are read; A is carried along, and D is empty."""
    pairs = drawn_pairs(rows=12)
    found = feature_scores(wired, [basis("blocks.0.hook_resid_post"), basis("blocks.1.hook_resid_post")], pairs)
    low, high = found.sites
    size = low.latents.mean(0).abs()
    coordinate = torch.arange(64) % 32
    read = (coordinate >= 8) & (coordinate < 24)
    assert roc_auc_score(read[size > 0], size[size > 0]) >= 0.95 and not size[coordinate >= 24].any()
    assert roc_auc_score(coordinate >= 24, high.latents.mean(0).abs()) >= 0.9, "the logits read D alone"
    assert low.error.abs().max() < 1e-4 and low.error_share.value == pytest.approx(0, abs=1e-4)
    check = feature_check(wired, found, pairs, n=12)
    assert check.spearman >= 0.8 and check.same_sign >= 0.9 and check.size[0].value > 3 * check.size[1].value
    shown = features_figure(found).to_json() + shares_figure(found).to_json()
    assert "SAE at resid_post.1" in shown and "share of the site" in shown
    assert len(check.names) == 24 and {name for name, _ in check.names} == {
        "SAE at resid_post.0",
        "SAE at resid_post.1",
    }


def test_the_top_is_chosen_on_half_of_the_pairs_and_measured_on_the_others(wired):
    sae, pairs = basis("blocks.0.hook_resid_post"), drawn_pairs(rows=13)
    found = feature_scores(wired, sae, pairs)
    top = found.top(5)
    order = found.sites[0].latents[::2].mean(0).abs().argsort(descending=True)[:5].tolist()
    assert [each.latent for each in top] == order and top[0].score.n == 6
    assert top[0].score.value == pytest.approx(float(found.sites[0].latents[1::2, order[0]].mean()), rel=1e-4)
    marked = replace(pairs, second=(torch.arange(13) < 4,))
    halves = feature_scores(wired, sae, marked)
    order = found.sites[0].latents[4:].mean(0).abs().argsort(descending=True)[:5].tolist()
    assert [each.latent for each in halves.top(5)] == order and halves.top(1)[0].score.n == 4
    assert all(2 / 2**6 <= each.p <= 1 for each in top), "six pairs have 64 patterns of signs"
    told = found.to_dict(5)
    assert len(told["top"]) == 5 and told["sites"][0]["shares"]["error"]["value"] == pytest.approx(0, abs=1e-4)
    assert "SAE at resid_post.0" in found._repr_html_() and "tensor" not in repr(found) + repr(found.sites)


@pytest.mark.parametrize("window", [(0, -4), (-4, None), (-20, None)])
def test_in_a_window_too_latents_error_and_skip_add_up(window, llama):
    """The effect is that of the window alone: the site has its clean state at the other tokens."""
    pairs = drawn_pairs()
    (found,) = feature_scores(llama, SITES["mlp"](), pairs, steps=32, window=window).sites
    sums = found.latents.sum(1) + found.error + found.skip
    torch.testing.assert_close(sums, found.total, atol=0.01 * float(found.total.abs().max()), rtol=0)
    clean, corrupt, right, wrong = next(iter(pairs))
    module, kept = llama.hf.model.layers[1].mlp, []
    measure = logit_difference(right, wrong)
    with torch.no_grad():
        whole = measure(llama.hf(clean).logits)
        handle = module.register_forward_hook(lambda _, __, out: kept.append(out))
        llama.hf(corrupt)
        handle.remove()

        def patched(_, __, out):
            out = out.clone()
            out[:, slice(*window)] = kept[0][:, slice(*window)]
            return out

        handle = module.register_forward_hook(patched)
        torch.testing.assert_close(found.total, whole - measure(llama.hf(clean).logits), atol=1e-5, rtol=1e-4)
        handle.remove()
    assert found.latents.abs().max() > 1e-3


def test_places_add_up(llama):
    sae, pairs = SITES["mlp"](), drawn_pairs()
    whole = feature_scores(llama, sae, pairs).sites[0].latents
    latents = whole.mean(0).abs().topk(3).indices.tolist()
    late, places = (feature_places(llama, sae, pairs, latents, last=last) for last in (4, 20))
    assert places.shape == (3, 20) and torch.equal(places[:, -4:], late)
    torch.testing.assert_close(places.sum(1), whole.mean(0)[latents], atol=1e-5, rtol=1e-4)
    assert not places[:, :13].any() and places[:, 13:].any(), "the texts differ from their third token on"


def test_a_small_budget_gives_the_same_scores(tiny_folder, llama):
    """Three tokens are encoded at a time, and one text is read."""
    tight = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu", memory=8_000)
    pairs, sae = drawn_pairs(rows=4), SITES["mlp"]()
    assert len([*Dictionary.of(sae, tight).chunks(9, tight.budget)]) == 3
    (one,), (other,) = (feature_scores(model, sae, pairs).sites for model in (llama, tight))
    torch.testing.assert_close(one.latents, other.latents, atol=1e-5, rtol=1e-4)


def test_half_precision_ranks_latents_alike(tiny_folder, llama):
    half = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu", dtype="bfloat16")
    pairs, sae = drawn_pairs(), SITES["resid_post.1"]()
    exact, rough = (feature_scores(model, sae, pairs).sites[0].latents.mean(0) for model in (llama, half))
    assert spearmanr(exact, rough).statistic > 0.9 and torch.corrcoef(torch.stack([exact, rough]))[0, 1] > 0.97


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda m, p: feature_scores(m, [], p), ProbeError, "no SAE"),
        (lambda m, p: feature_scores(m, "./none", p), ProbeError, "holds no SAE"),
        (lambda m, p: feature_scores(m, random_topk(d_in=16), p), ProbeError, "width 16"),
        (lambda m, p: feature_scores(m, random_topk(), p, metric="logit"), ProbeError, "no metric 'logit'"),
        (lambda m, p: feature_scores(m, random_topk(), p, steps=0), ProbeError, "steps is 0"),
        (lambda m, p: feature_scores(m, random_topk(), p.batches(1)[0]), NotApplicable, "of more problems"),
        (lambda m, p: feature_effects(m, random_topk(), p, [48]), ProbeError, "has no latent 48"),
        (lambda m, p: feature_places(m, random_topk(), p, []), ProbeError, "no latent was named"),
    ],
)
def test_wrong_input_gets_one_line(call, kind, said, llama):
    with pytest.raises(kind, match=said) as raised:
        call(llama, drawn_pairs())
    assert "\n" not in str(raised.value)


def test_texts_that_do_not_differ_have_no_scores(llama):
    (clean, _, right, wrong) = next(iter(drawn_pairs()))
    same = Pairs((clean,), (clean.clone(),), (right,), (wrong,))
    found = feature_scores(llama, random_topk(), same)
    assert not found.sites[0].latents.any() and found.top() == [] and found.sites[0].error_share.value is None
    with pytest.raises(NotApplicable, match="no latent changes"):
        feature_check(llama, found, same)


@pytest.fixture(scope="module")
def rl():
    model, problems = probe.load_pair("tiny-rl").thinking, probe.load_problems("story")
    return model, problems, probe.generate_traces(model, problems, problems.take("train", 16), max_new_tokens=100)


def word_reader(model, words):
    """A latent for each word, active at its token alone."""
    ids = [model.tokenizer.convert_tokens_to_ids(word) for word in words]
    rows = torch.nn.functional.normalize(model.hf.get_input_embeddings().weight.detach().float(), dim=1)
    config = JumpReLUSAEConfig(
        d_in=model.d_model, d_sae=len(ids), apply_b_dec_to_input=False, metadata=SAEMetadata(hook_name="hook_embed")
    )
    with torch.random.fork_rng(devices=[]):
        sae = JumpReLUSAE(config)
    own = rows[ids] @ model.hf.get_input_embeddings().weight.detach().float().T
    best = own.topk(2, dim=1).values
    assert all(own[i].argmax() == each for i, each in enumerate(ids))
    sae.load_state_dict(
        {
            "W_enc": rows[ids].T.contiguous(), "W_dec": rows[ids], "b_enc": torch.zeros(len(ids)),
            "b_dec": torch.zeros(model.d_model), "threshold": best.mean(1),
        }
    )  # fmt: skip
    return sae.requires_grad_(False)


def test_examples_show_what_a_latent_is(rl):
    model, problems, traces = rl
    vocabulary = {word: model.decode([i]).strip() for word, i in model.tokenizer.get_vocab().items()}
    true, stop = (next(word for word, text in vocabulary.items() if text == wanted) for wanted in ("true", "."))
    sae = word_reader(model, [true, stop])
    about, end = latent_examples(model, sae, traces, [0, 1], behaviour="check", problem_set=problems, n=4)
    assert [each.token.strip() for each in about.examples] == ["true"] * 4 and all(e.shows for e in about.examples)
    whole = about.examples[0].before + about.examples[0].token + about.examples[0].after
    assert any(whole == text for trace in traces for text in trace.sentence_texts)
    tokens = [model.decode([i]).strip() for trace in traces for s in trace.sentences for i in trace.tokens[s.token_start : s.token_end]]  # fmt: skip # noqa: E501
    assert about.frequency == pytest.approx(tokens.count("true") / len(tokens))
    assert about.inside.auroc.value == 1 and about.inside.p == 0.001 and about.inside.other_half == 1
    assert about.inside.auroc.n == 8 and about.ahead.auroc.value == 0.5 and about.ahead.p == 1
    assert abs(end.inside.auroc.value - 0.5) < 0.1
    labels = [problems.sentence_type(text) == "check" for trace in traces[1::2] for text in trace.sentence_texts]
    ahead = [
        bool(s.token_start) and trace.tokens[s.token_start - 1] == model.tokenizer.convert_tokens_to_ids(stop)
        for trace in traces[1::2]
        for s in trace.sentences
    ]
    # The first sentence of a trace follows the prompt, whose last token is no stop.
    assert end.ahead.auroc.value == pytest.approx(roc_auc_score(labels, ahead), abs=1e-6)
    assert "«" in about._repr_html_() and about.to_dict()["examples"][0]["shows"] is True
    with pytest.raises(ProbeError, match="no sentence of these"):
        latent_examples(model, sae, traces[:1], [0], behaviour="habits:backtracking")


def test_a_latent_that_reads_a_word_is_found_out(rl):
    """A latent that reads a word fires wherever the word is put, so it is no state of the reasoning."""
    model, _, traces = rl
    words = {model.decode([i]).strip(): word for word, i in model.tokenizer.get_vocab().items()}
    sae = word_reader(model, [words["true"]])
    sae.threshold.zero_()  # in the mean state of a sentence the word is diluted
    acts = probe.harvest(model, traces, "embed")
    has = torch.tensor(["true" in text for trace in traces for text in trace.sentence_texts])
    size = Dictionary.of(sae, model).encode(acts.vectors["embed"].float())[:, 0]
    between = float(size[has].min() + size[~has].max()) / 2
    detector = latent_detector(model, sae, [0], threshold=between)
    assert torch.equal(detector.fires(acts.vectors["embed"].float())[:, 0], has) and has.any()
    config = probe.FalsifyConfig(sentences=10, prefixes=1, samples=1, new_tokens=2)
    (card,) = probe.falsify(model, detector, traces, acts, config=config)
    assert card.verdict == "cue"
