from dataclasses import replace

import pytest

from probe.errors import ProbeError
from probe.models import GREEDY, Model, load_model
from probe.servers import Answer
from probe.traces.answers import ask_for, emitted


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return load_model(tiny_folder("llama", "letters"), device="cpu")


def read(model: Model, answer: Answer, prompt: str = "Why?", limit: int = 9) -> tuple[str, bool, bool]:
    ids = model.encode_prompt(prompt)
    tokens, cut, certain = emitted(model, ids, answer, limit, "the answer to a")
    return model.decode(tokens), cut, certain


TEXT = Answer(None, "So 7.", stopped=True, count=6, prompt_count=4, model=None)


def test_ids_end_where_decoding_here_would_have_ended(model: Model) -> None:
    ids = tuple(model.encode_prompt("So 7. And on"))
    end = model.eos_ids[0]
    for tokens, stopped, limit, wanted in (
        ((*ids[:5], end), True, 9, ("So 7.", False)),
        (ids[:5], True, 9, ("So 7.", False)),  # without its end token
        ((*ids[:5], end, *ids[5:]), False, 13, ("So 7.", False)),  # a server that ignores the end
        (ids[:5], False, 5, ("So 7.", True)),
        (ids, False, 5, ("So 7.", True)),
    ):
        assert read(model, Answer(tokens, None, stopped, None, None, None), limit=limit)[:2] == wanted
    with pytest.raises(ProbeError, match="9999"):
        read(model, Answer((5, 9999), None, True, None, None, None))


def test_text_is_encoded_exactly_and_its_tokens_are_counted(model: Model) -> None:
    assert read(model, TEXT) == ("So 7.", False, True)
    assert read(model, replace(TEXT, count=5)) == ("So 7.", False, True)  # the end token does not count
    assert read(model, replace(TEXT, stopped=False, count=5)) == ("So 7.", True, True)
    long = "</think>" + "So 7. " * 40
    assert read(model, replace(TEXT, text=long, count=244)) == (long, False, False)  # another encoding of the same
    with pytest.raises(ProbeError, match=r"no </think> in the answer to a.*drops special tokens"):
        read(model, replace(TEXT, count=9))
    # The limit may fall within a character, of which a part was emitted.
    assert read(model, replace(TEXT, text="So 7€\ufffd", count=9, stopped=False)) == ("So 7€", True, True)
    with pytest.raises(ProbeError, match="does not give back the answer to a"):
        read(model, replace(TEXT, text="So \udce2 7"))


@pytest.mark.parametrize(
    ("prompt", "text", "count", "lost"),
    [
        ("Why?<think>", "So 7.", 7, True),
        ("Why?<think>", "So 7.", None, True),
        ("Why?<think>", "So</think> 7.", 7, False),
        ("Why?", "So 7.", 8, True),  # both tags
        ("Why?", "So 7.", 6, False),  # no thinking
        ("<think></think>Why?", "So 7.", 6, False),
    ],
)
def test_special_tokens_that_a_server_drops_are_noticed(model: Model, prompt, text, count, lost) -> None:
    answer = replace(TEXT, text=text, count=count)
    if lost:
        with pytest.raises(ProbeError, match="leaves out part of what llama-letters-0 emits"):
            read(model, answer, prompt)
    else:
        assert read(model, answer, prompt) == (text, False, True)


def test_a_server_that_puts_a_first_token_before_the_text_itself_gets_a_text_without_it(model: Model) -> None:
    ids = model.encode_prompt("Why?")
    assert ask_for(model, ids, 5, GREEDY, 0).text == "Why?"
    assert ask_for(model, ids, 5, GREEDY, 0, by_ids=True).text is None
    assert ask_for(model, ids, 5, GREEDY, -3).seed >= 0
