from dataclasses import replace

import pytest
import torch

from probe.errors import ProbeError
from probe.taxonomy import TaxonomyConfig
from probe.taxonomy.sae.segments import Segments
from probe.taxonomy.sae.starts import _moved, spherical_centres
from probe.taxonomy.sae.train import _Sweep, train_saes
from probe.taxonomy.search.search import Split, Survey

CONFIG = TaxonomyConfig(sizes=(4, 6, 9), seeds=(0, 1), k=3, steps=120, batch_size=128)


@pytest.fixture(scope="module")
def split(planted) -> Split:
    return Survey.of(planted(900, 0), planted(300, 1), "resid_post.1", TaxonomyConfig()).read()


def test_losses_and_gradients_are_those_of_each_sae_alone(split: Split) -> None:
    """The sweep never writes a reconstruction down; SAELens' own top-k SAE, one at a time, does."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    torch.manual_seed(0)
    sweep = _Sweep(split.x, CONFIG, CONFIG.sizes)
    with torch.no_grad():
        for parameter in sweep.parameters:
            parameter.add_(0.3 * torch.randn_like(parameter))
    batch = torch.stack([split.x[:64], split.x[64:128]])
    losses = sweep.step(batch)
    losses.sum().backward()
    for seed in range(2):
        for size, at in enumerate(sweep.segments.slices()):
            encoder, decoder = sweep.encoder[seed, :, at].detach(), sweep.decoder[seed, at].detach()
            peer = TopKTrainingSAE(
                TopKTrainingSAEConfig(d_in=32, d_sae=encoder.shape[1], k=3, rescale_acts_by_decoder_norm=False)
            )
            with torch.no_grad():
                peer.W_enc.copy_(encoder)
                peer.W_dec.copy_(torch.nn.functional.normalize(decoder, dim=1))
            done = peer.training_forward_pass(TrainStepInput(batch[seed], {}, None, 0, False))
            mse = done.losses["mse_loss"]
            torch.testing.assert_close(losses[seed, size], mse, rtol=1e-4, atol=1e-6)
            (expected,) = torch.autograd.grad(mse, peer.W_enc)
            torch.testing.assert_close(sweep.encoder.grad[seed, :, at], expected, rtol=1e-3, atol=1e-6)


def test_trained_together_or_alone_they_are_the_same(split: Split) -> None:
    together = train_saes(split.x, split.x_validation, CONFIG.sizes, replace(CONFIG, patience=100))
    assert set(together) == {(size, seed) for size in CONFIG.sizes for seed in CONFIG.seeds}
    alone = train_saes(split.x, split.x_validation, (6,), replace(CONFIG, patience=100, seeds=(1,)))
    torch.testing.assert_close(alone[6, 1].decoder, together[6, 1].decoder, rtol=1e-3, atol=1e-3)


def test_each_keeps_its_best_state(split: Split) -> None:
    sweep = _Sweep(split.x, CONFIG, CONFIG.sizes)
    trained = train_saes(split.x, split.x_validation, CONFIG.sizes, CONFIG)
    before, after = sweep.weights(), {at: each.explained(split.x_validation) for at, each in trained.items()}
    for at, weights in before.items():
        assert after[at] >= weights.explained(split.x_validation) - 1e-6
        torch.testing.assert_close(trained[at].decoder.norm(dim=1), torch.ones(at[0]))
    losses = sweep.losses(split.x_validation)
    for i, seed in enumerate(CONFIG.seeds):
        for j, size in enumerate(CONFIG.sizes):
            assert 1 - losses[i, j].item() == pytest.approx(before[size, seed].explained(split.x_validation), abs=1e-5)


def test_a_useless_rate_does_no_harm_and_ends_early(split: Split) -> None:
    wild = replace(CONFIG, lr=30.0, steps=100_000, check_every=5, patience=1)
    started = _Sweep(split.x, wild, wild.sizes).weights()
    trained = train_saes(split.x, split.x_validation, wild.sizes, wild)
    for at, weights in trained.items():
        assert weights.explained(split.x_validation) >= started[at].explained(split.x_validation) - 1e-6


def test_dead_latents_are_revived(split: Split) -> None:
    sweep = _Sweep(split.x, CONFIG, CONFIG.sizes)
    optimiser = torch.optim.Adam(sweep.parameters, lr=1e-3)
    sweep.step(torch.stack([split.x[:512], split.x[:512]])).sum().backward()
    optimiser.step()
    with torch.no_grad():
        sweep.encoder[1, :, 5] = 0.0
    before = sweep.encoder.detach().clone(), sweep.decoder.detach().clone()
    sweep.revive(split.x, optimiser)
    row = sweep.decoder[1, 5].detach()
    assert (split.x @ row).max() == pytest.approx(1, abs=1e-5), "it is one of the sentences now"
    assert torch.equal(sweep.encoder[1, :, 5].detach(), row)
    assert optimiser.state[sweep.decoder]["exp_avg"][1, 5].abs().sum() == 0
    others = torch.ones(19, dtype=torch.bool)
    others[5] = False
    assert torch.equal(sweep.encoder.detach()[:, :, others], before[0][:, :, others]), "what fires is left alone"
    assert torch.equal(sweep.decoder.detach()[0], before[1][0])


def test_the_start_is_scaled_so_that_the_error_is_least(split: Split) -> None:
    sweep = _Sweep(split.x, CONFIG, CONFIG.sizes)
    losses = sweep.losses(split.x)
    for factor in (0.9, 1.1):
        with torch.no_grad():
            sweep.encoder.mul_(factor)
        assert (sweep.losses(split.x) > losses).all()
        with torch.no_grad():
            sweep.encoder.div_(factor)


def test_k_larger_than_a_size(split: Split) -> None:
    trained = train_saes(split.x, split.x_validation, (2, 6), replace(CONFIG, steps=30))
    assert trained[2, 0].k == 2
    assert trained[2, 0].latents(split.x).shape == (len(split.x), 2)


def test_centres_start_where_sentences_are(split: Split) -> None:
    centres = spherical_centres(split.x, (6, 8), seed=0)
    assert centres.shape == (14, 32)
    torch.testing.assert_close(centres.norm(dim=-1), torch.ones(14))
    owner: dict[str, set[int]] = {}
    for text, at in zip(split.texts, (split.x @ centres[:6].T).argmax(1).tolist(), strict=True):
        owner.setdefault(text.split()[0], set()).add(at)
    assert sorted(at for ats in owner.values() for at in ats) == list(range(6)), "one centre a planted behaviour"
    assert torch.equal(spherical_centres(split.x, (6, 8), seed=0), centres)


def test_a_centre_without_sentences_goes_to_the_worst_served() -> None:
    degrees = torch.deg2rad(torch.tensor([0.0, 1, 2, 90]))
    x = torch.stack([degrees.cos(), degrees.sin()], 1)
    segments = Segments((2,))
    cosine, latent = torch.tensor([[1.0], [1.0], [1.0], [0.1]]), torch.zeros(4, 1, dtype=torch.long)
    centres = _moved(x, segments, cosine, latent)
    torch.testing.assert_close(centres[1], x[3])
    torch.testing.assert_close(centres[0], torch.nn.functional.normalize(x.sum(0), dim=0))


def test_segments() -> None:
    segments = Segments((2, 3))
    values = torch.tensor([[1.0, 5.0, 7.0, 2.0, 9.0]])
    assert segments.padded(values, 0.0).tolist() == [[[1, 5, 0], [7, 2, 9]]]
    best, at = segments.best(values)
    assert best.tolist() == [[5, 9]]
    assert at.tolist() == [[1, 4]]
    assert [values[0, part].tolist() for part in segments.slices()] == [[1, 5], [7, 2, 9]]


def test_a_training_that_diverges_says_at_which_step(split: Split) -> None:
    config = replace(CONFIG, sizes=(4,), seeds=(0,), lr=1e30, steps=20, check_every=5)
    with pytest.raises(ProbeError, match="the loss of an SAE at step 5 is not finite"):
        train_saes(split.x, split.x_validation, config.sizes, config)
