import torch

from probe.taxonomy.labels import label_behaviours, mask, nearest_sentences

TEXTS = [" Now 2 + 3 = 5.", " That makes 1 + 1 = 2.", " Now 7 + 1 = 8.", " That makes 4 - 4 = 0."] * 25
TEXTS += [" Check that 2 + 3 = 5: right.", " Check that 1 + 1 = 3: wrong."] * 50
BEHAVIOURS = torch.tensor([0] * 100 + [2] * 100)


def test_openings_and_words_that_are_a_behaviours_own() -> None:
    computing, empty, checking = label_behaviours(TEXTS, BEHAVIOURS, 3)
    assert computing.startswith("“Now # + …” / “That makes # …”")
    assert empty == "(no sentences)"
    assert checking.startswith("“Check that # …”")
    assert "right" in checking
    assert "=" not in checking, "what all sentences have says nothing"


def test_the_same_in_any_order() -> None:
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = label_behaviours([TEXTS[i] for i in order], BEHAVIOURS[order], 3)
    assert shuffled == label_behaviours(TEXTS, BEHAVIOURS, 3)


def test_numbers_are_masked() -> None:
    assert mask(" It is 1,234.5 or 7%.") == "It is # or #%."


def test_nearest_sentences_differ_in_more_than_numbers() -> None:
    activations = torch.zeros(200, 3)
    activations[:, 0] = torch.arange(200.0, 0, -1)
    activations[:, 2] = torch.arange(200.0)
    first, none, last = nearest_sentences(TEXTS, activations, BEHAVIOURS)
    assert first == ["Now 2 + 3 = 5.", "That makes 1 + 1 = 2.", "That makes 4 - 4 = 0."]
    assert none == []
    assert last == ["Check that 1 + 1 = 3: wrong.", "Check that 2 + 3 = 5: right."]
