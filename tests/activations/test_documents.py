import pytest

from probe.activations import Document, documents_of, harvest
from probe.activations.documents import runs
from probe.errors import ProbeError
from probe.models import Model, load_model

TEXT = "Now 22 + 9 = 31. Wait, no.\n\nÜber 3 µm!  So 5."


@pytest.fixture
def bytewise(tiny_folder) -> Model:
    return load_model(tiny_folder("llama", "letters"), device="cpu")


def test_sentences_of_a_text(bytewise: Model) -> None:
    (document,) = documents_of(bytewise, [TEXT])
    assert "".join(document.texts) == TEXT and len(document.spans) >= 4
    for (start, end), text in zip(document.spans, document.texts, strict=True):
        assert bytewise.decode(document.ids[start:end]) == text
    assert [span[0] for span in document.spans[1:]] == [span[1] for span in document.spans[:-1]]


def test_a_start_token_is_read_but_has_no_row(bytewise: Model) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = bytewise.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A <pad>", special_tokens=[("<eos>", tokenizer.eos_token_id), ("<pad>", tokenizer.pad_token_id)]
    )
    model = Model(bytewise.hf, tokenizer)
    (document,) = documents_of(model, [TEXT])
    assert document.ids[0] == tokenizer.eos_token_id and document.spans[0][0] == 1
    assert document.spans[-1][1] == len(document.ids), "what the tokenizer puts after a text is left out"
    (empty,) = documents_of(model, [""])
    assert len(empty.ids) == 1 and empty.spans == ()


def test_token_ids_and_documents(bytewise: Model) -> None:
    ready = Document((7, 8), ((1, 2),), name="mine")
    assert documents_of(bytewise, [[5, 6, 7], ready]) == [Document((5, 6, 7), ((0, 3),)), ready]
    got = harvest(bytewise, [[5, 6, 7], ready, "5. ", []], "resid_post.1")
    assert got.index == [(0, 0), (1, 0), (2, 0)]
    assert got.texts == [bytewise.decode([5, 6, 7]), bytewise.decode([8]), "5. "]


def test_rows() -> None:
    document = Document(tuple(range(9)), ((4, 6), (2, 2), (0, 3)))
    assert document.rows("sentence").tolist() == [[0, 4, 6], [2, 0, 3]]
    assert document.rows("token").tolist() == [[0, 4, 5], [0, 5, 6], [2, 0, 1], [2, 1, 2], [2, 2, 3]]
    nothing = Document((), ()).rows("token")
    assert nothing.shape == (0, 3) and runs(nothing[:, 1], nothing[:, 2]).tolist() == []


def test_what_is_no_document() -> None:
    with pytest.raises(ProbeError, match="span 1:4 lies outside the document, which has 3 tokens"):
        Document((1, 2, 3), ((1, 4),))
    with pytest.raises(ProbeError, match="1 spans but 2 texts"):
        Document((1, 2, 3), ((1, 3),), ("a", "b"))
