import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, load_model
from probe.taxonomy.judge.judge import CachedJudge, Judge, ScriptedJudge, ask, without_thinking
from probe.taxonomy.judge.language_models import EndpointJudge, LocalJudge

CHAT = "{% for m in messages %}Q: {{ m['content'] }}\nA: {% endfor %}"


class Counting:
    """Answers with the prompt in capitals; fails for those in ``fails``; notes what it was asked."""

    name = "counting"

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def complete(self, prompts):
        self.asked += prompts
        return [None if prompt in self.fails else prompt.upper() for prompt in prompts]


# Cached


def test_answers_are_asked_for_once_and_found_by_the_next_process(tmp_path):
    inner = Counting("c")
    judge = CachedJudge(inner, tmp_path)
    assert isinstance(judge, Judge) and judge.name == "counting"
    assert judge.complete(["a", "b", "a", "c"]) == ["A", "B", "A", None]
    assert inner.asked == ["a", "b", "c"]
    again = Counting()
    judge = CachedJudge(again, tmp_path)
    assert judge.complete(["b", "ä\nö", "a", "c"]) == ["B", "Ä\nÖ", "A", "C"]
    assert again.asked == ["ä\nö", "c"]  # the failure was not kept
    assert judge.hits == 2


def test_judges_that_share_a_folder_keep_their_own_answers(tmp_path):
    CachedJudge(ScriptedJudge(lambda _: "one", "first"), tmp_path).complete(["a"])
    second = CachedJudge(ScriptedJudge(lambda _: "two", "second"), tmp_path)
    assert second.complete(["a"]) == ["two"]
    assert CachedJudge(ScriptedJudge(lambda _: None, "first"), tmp_path).complete(["a"]) == ["one"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_cut_last_line_loses_that_answer_alone_and_spoils_no_later_one(tmp_path, cut):
    CachedJudge(Counting(), tmp_path).complete(["a", "b", "ccc ü"])
    path = tmp_path / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    inner = Counting()
    assert CachedJudge(inner, tmp_path).complete(["a", "b", "ccc ü", "d"]) == ["A", "B", "CCC Ü", "D"]
    # Only the line end was cut: the answer is whole.
    assert inner.asked == (["d"] if cut == 1 else ["ccc ü", "d"])
    last = Counting()
    CachedJudge(last, tmp_path).complete(["a", "b", "ccc ü", "d"])
    assert last.asked == []


def test_an_interrupted_judge_loses_only_the_current_prompts(tmp_path):
    class Breaking(Counting):
        def complete(self, prompts):
            if len(self.asked) >= 64:
                raise KeyboardInterrupt
            return super().complete(prompts)

    prompts = [f"prompt {i}" for i in range(100)]
    with pytest.raises(KeyboardInterrupt):
        CachedJudge(Breaking(), tmp_path).complete(prompts)
    after = Counting()
    assert CachedJudge(after, tmp_path).complete(prompts) == [prompt.upper() for prompt in prompts]
    assert after.asked == prompts[64:]


def test_lines_that_are_no_answers_are_passed_over(tmp_path):
    CachedJudge(Counting(), tmp_path).complete(["a"])
    with (tmp_path / "answers.jsonl").open("ab") as file:
        file.write(b'[1]\n\xff\xfe\n{"key": 3, "answer": "x"}\n{"key": "x", "answer": null}\n\n7\n')
    inner = Counting()
    assert CachedJudge(inner, tmp_path).complete(["a", "b"]) == ["A", "B"]
    assert inner.asked == ["b"]


# Asking


def test_asking_keeps_the_order_and_goes_in_parts():
    inner = Counting("prompt 40")
    sizes = []

    class Sized(Counting):
        def complete(self, prompts):
            sizes.append(len(prompts))
            return inner.complete(prompts)

    prompts = [f"prompt {i}" for i in range(70)]
    assert ask(Sized(), prompts) == [None if i == 40 else f"PROMPT {i}" for i in range(70)]
    assert sum(sizes) == 70 and max(sizes) < 70
    assert ask(Sized(), []) == []


def test_asking_is_silent_unless_told(capsys):
    ask(Counting(), ["a"])
    assert capsys.readouterr().err == ""
    ask(Counting(), ["a"], name="names", progress=True)
    assert "names" in capsys.readouterr().err


def test_a_judge_must_give_one_answer_a_prompt(tmp_path):
    class Short(Counting):
        def complete(self, prompts):
            return super().complete(prompts)[:1]

    for give in (lambda p: ask(Short(), p), CachedJudge(Short(), tmp_path).complete):
        with pytest.raises(ProbeError, match="1 answers to 2 prompts"):
            give(["a", "b"])


def test_what_is_not_text_has_failed():
    class Odd(Counting):
        def complete(self, prompts):
            return [7 for _ in prompts]

    assert ask(Odd(), ["a"]) == [None]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "yes"),
        ("<think>a</think>\n yes ", "yes"),
        ("a</think>yes", "yes"),
        ("<think>a", None),
        ("<think>a</think>b<think>c", None),
        (None, None),
    ],
)
def test_thinking_is_left_out(answer, said):
    assert without_thinking(answer) == said


# Local


def greedy(model: Model, ids: list[int], n: int) -> list[int]:
    """Greedy tokens by transformers itself."""
    with torch.no_grad():
        rows = torch.tensor([ids])
        out = model.hf.generate(rows, attention_mask=torch.ones_like(rows), do_sample=False, max_new_tokens=n)
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("chat", [False, True])
def test_a_local_judge_answers_as_transformers_does(tiny_folder, chat):
    model = load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt="{question}"), device="cpu")
    if chat:
        model.tokenizer.chat_template = CHAT
    prompts = ["why?", "a much longer prompt than that", "so"]
    ids = [model.tokenizer(f"Q: {p}\nA: " if chat else p, add_special_tokens=False).input_ids for p in prompts]
    free = [greedy(model, row, 30) for row in ids]
    model.eos_ids = (free[0][7],)  # where the first one now ends; the others may not
    expected = [
        model.decode(tokens[: tokens.index(free[0][7])]).strip() if free[0][7] in tokens else None for tokens in free
    ]
    judge = LocalJudge(model, max_new_tokens=30, batch_size=2)
    assert isinstance(judge, Judge)
    assert judge.complete(prompts) == expected
    assert expected[0] is not None
    # An answer that has not ended is none.
    assert LocalJudge(model, max_new_tokens=free[0].index(free[0][7])).complete(prompts[:1]) == [None]


def test_prompts_that_leave_no_room_fail_alone(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt="{question}"), device="cpu")
    model.eos_ids = tuple(range(len(model.tokenizer)))  # every answer ends at once
    judge = LocalJudge(model, max_new_tokens=12)
    assert judge.complete(["x" * 501, "x" * 500, "", "x"]) == [None, "", None, ""]
    assert judge.complete([]) == []


def test_a_local_judges_limits(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"), device="cpu")
    with pytest.raises(ProbeError, match=r"judge\.batch_size is 0"):
        LocalJudge(model, batch_size=0)
    with pytest.raises(ProbeError, match="reads 512 tokens at most"):
        LocalJudge(model, max_new_tokens=512)
    # Cached answers are found by the name: what changes answers changes it.
    asked = load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt="Q: {question}"), device="cpu")
    names = {LocalJudge(each, max_new_tokens=n).name for each in (model, asked) for n in (5, 6)}
    assert len(names) == 4


@pytest.mark.slow
def test_a_real_chat_model_answers(smollm2):
    judge = LocalJudge(smollm2, max_new_tokens=40)
    france, again = judge.complete(["What is the capital of France?", "What is the capital of France?"])
    assert france is not None and "Paris" in france and france == again


# Endpoint

Reply = tuple[int, dict[str, str], bytes]


def chat_reply(text: str | None, reason: str = "stop") -> Reply:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


class Server:
    """A server on this machine; ``reply(prompt, nth)`` is its answer to the nth try of a prompt."""

    def __init__(self) -> None:
        self.reply: Callable[[str, int], Reply] = lambda prompt, _: chat_reply(prompt.upper())
        self.requests: list[tuple[str, dict, str | None]] = []
        self.hold = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                nth = sum(prompt == seen["messages"][0]["content"] for _, seen, _ in outer.requests)
                outer.requests.append((self.path, body, self.headers["Authorization"]))
                status, headers, content = outer.reply(prompt, nth)
                if status == 0:  # say nothing
                    outer.hold.wait(10)
                    return
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 64  # else a burst of connections waits a second

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.hold.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.close()


def test_an_endpoint_is_asked_as_its_interface_wants(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-1\n")
    judge = EndpointJudge(f"{server.url}/", "big", key_env="MY_KEY")
    assert isinstance(judge, Judge)
    prompts = [f"prompt {i}" for i in range(20)]
    assert judge.complete(prompts) == [prompt.upper() for prompt in prompts]
    path, body, key = server.requests[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret-1"
    assert body["model"] == "big" and body["temperature"] == 0
    assert "secret-1" not in judge.name
    assert EndpointJudge(f"{server.url}/chat/completions", "big").url == judge.url


def test_temporary_failures_are_tried_again(server):
    def reply(prompt: str, nth: int) -> Reply:
        broken = {"busy": (429, {"Retry-After": "0"}, b""), "down": (503, {"Retry-After": "0"}, b"")}
        return broken[prompt] if nth < 2 else chat_reply("at last")

    server.reply = reply
    assert EndpointJudge(server.url, "m", retries=2).complete(["busy", "down"]) == ["at last", "at last"]
    assert len(server.requests) == 6


def test_other_failures_affect_one_prompt_and_are_explained(server):
    odd: dict[str, Reply] = {
        "500": (500, {"Retry-After": "0"}, b"out of order"),
        "400": (400, {}, b"too long"),
        "text": (200, {"Retry-After": "0"}, b"<html>"),
        "other": (200, {}, b'{"choices": []}'),
        "list": (200, {}, b"[]"),
        "empty": chat_reply(" "),
        "none": chat_reply(None),
        "cut": chat_reply("ye", "length"),
        "silent": (0, {}, b""),
    }
    server.reply = lambda prompt, _: odd.get(prompt) or chat_reply("fine")
    judge = EndpointJudge(server.url, "m", timeout=0.4, retries=0)
    assert judge.complete(["good", *odd, "good"]) == ["fine", *[None] * len(odd), "fine"]
    for prompt, why in (("500", "HTTP 500: out of order"), ("cut", "cut"), ("silent", "TimeoutError")):
        judge.complete([prompt])
        assert judge.last_error is not None and why in judge.last_error
    # A refusal is not tried again, an outage is, a given number of times.
    judge = EndpointJudge(server.url, "m", retries=2)
    server.requests.clear()
    assert judge.complete(["400"]) == [None] and len(server.requests) == 1
    server.requests.clear()
    assert judge.complete(["500"]) == [None] and len(server.requests) == 3


def test_keys_that_are_missing_or_wrong_are_the_users(server, monkeypatch):
    server.reply = lambda *_: (401, {}, b"who are you")
    with pytest.raises(ProbeError, match="needs a key; set the environment variable OPENAI_API_KEY"):
        EndpointJudge(server.url, "m").complete(["a"])
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    with pytest.raises(ProbeError, match="refuses the key in OPENAI_API_KEY") as error:
        EndpointJudge(server.url, "m").complete(["a"] * 30)
    assert "secret-2" not in str(error.value)


def test_a_model_or_an_address_that_is_not_there(server):
    server.reply = lambda *_: (404, {}, b"no model m")
    with pytest.raises(ProbeError, match="has no such address or model 'm': no model m"):
        EndpointJudge(server.url, "m").complete(["a"])
    for url in ("file:///etc/hosts", "localhost:8000", "http://"):
        with pytest.raises(ProbeError, match="http address"):
            EndpointJudge(url, "m")
    with pytest.raises(ProbeError, match=r"judge\.timeout is 0"):
        EndpointJudge(server.url, "m", timeout=0)


def test_a_server_that_was_never_reached_is_an_error_and_one_that_went_away_is_a_failure():
    server = Server()
    judge = EndpointJudge(server.url, "m", retries=0)
    assert judge.complete(["a"]) == ["A"]
    server.close()
    assert judge.complete(["a"]) == [None]
    with pytest.raises(ProbeError, match="nothing answers at"):
        EndpointJudge(server.url, "m", retries=0).complete(["a"])
