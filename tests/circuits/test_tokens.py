"""Attribution to tokens is transformers' own gradient, at any site, and explains each sentence by what comes before."""

import pytest
import torch

from probe.circuits import logit_difference, sentence_attribution, token_attribution
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs
from tests.tiny_models import tiny_config, tiny_model

SPANS = [(1, 3), (3, 4), (4, 9)]


def by_hand(hf, ids, value):
    """Gradient × embedding, from the embeddings alone."""
    embedded = hf.get_input_embeddings()(ids).detach().requires_grad_()
    logits = hf(inputs_embeds=embedded[None]).logits[0]
    (slope,) = torch.autograd.grad(value(logits), embedded)
    return (slope * embedded.detach()).sum(-1)


def test_a_token_adds_gradient_times_state(llama):
    ids = drawn_pairs().clean[0][0]
    right, wrong = torch.tensor([7]), torch.tensor([11])
    found = token_attribution(llama, ids, logit_difference(right, wrong))
    expected = by_hand(llama.hf, ids, lambda logits: logits[-1, 7] - logits[-1, 11])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    # At the last block only the last token counts, and the final norm's output is linear in what is read.
    last = token_attribution(llama, ids, logit_difference(right, wrong), "final_norm")
    logits = llama.hf(ids[None]).logits[0, -1]
    torch.testing.assert_close(last[-1], logits[7] - logits[11], atol=1e-5, rtol=1e-4)
    assert last[:-1].abs().max() == 0
    assert not any(module.training for module in llama.hf.modules())
    with pytest.raises(ProbeError, match=r"pattern\.1 has no state for each token"):
        token_attribution(llama, ids, logit_difference(right, wrong), "pattern.1")


def test_a_sentence_is_explained_by_what_comes_before(llama):
    ids = drawn_pairs().clean[0][0]
    found = sentence_attribution(llama, ids, SPANS, sentences=[1, 2])

    def value(logits):
        said = logits.log_softmax(-1)[3:8]
        return said.gather(1, ids[4:9, None]).mean()

    torch.testing.assert_close(found.scores[2], by_hand(llama.hf, ids, value), atol=1e-6, rtol=1e-4)
    assert found.scores[0].isnan().all() and found.scores[1, 3:].abs().max() == 0
    assert float(found.by_sentence()[2, 0]) == pytest.approx(float(found.scores[2, 1:3].sum()), abs=1e-6)
    links = found.source(2).links
    assert links is not None and int(links[0][4, 0]) == int(found.scores[2].abs().argmax())
    assert (
        float(links[1][4, 0]) == pytest.approx(float(found.scores[2][links[0][4, 0]])) and links[1][0].abs().max() == 0
    )
    with pytest.raises(ProbeError, match="put the prompt before the sentences"):
        sentence_attribution(llama, ids, [(0, 3)])


def test_states_are_not_dropped_out(words, tmp_path):
    """Blocks that are checkpointed are in training mode, in which OPT drops out states."""
    config = tiny_config("opt", vocab_size=len(words), dropout=0.3, attention_dropout=0.3)
    tiny_model(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model, ids = load_model(ModelConfig(str(tmp_path)), device="cpu"), drawn_pairs().clean[0][0]
    once, again = (sentence_attribution(model, ids, SPANS) for _ in range(2))
    assert once.scores.abs().max() > 0 and torch.equal(once.scores, again.scores)

    def value(logits):
        return logits.log_softmax(-1)[3:8].gather(1, ids[4:9, None]).mean()

    torch.testing.assert_close(once.scores[2], by_hand(model.hf, ids, value), atol=1e-5, rtol=1e-3)
