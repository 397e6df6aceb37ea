"""Servers on this machine that speak the protocols of several kinds of servers, run a model, and misbehave if told to.

They decode greedily whatever temperature is asked for, unless ``sampled`` is set: then each token is sampled as asked,
with the seed of the request.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from probe.models import Model, Sampling
from probe.traces import decode_greedy, random_key, stream_draws

_DECODING = threading.Lock()  # servers of one test may share a model
Reply = tuple[int, dict[str, str], bytes]


def as_reply(content: Any, status: int = 200, **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(content).encode()


class ModelServer:
    """A server of a model.

    Attributes:
        kind: ``vllm``, ``sglang``, ``llama.cpp`` or ``text``.
        name: what it calls the model.
        before: called with the number of a completion and its body; a reply that it gives is sent instead.
        change: changes the ids that the model emitted.
        requests: the body of every completion, in the order in which they came.
    """

    def __init__(self, model: Model, kind: str = "vllm", name: str = "served") -> None:
        self.model, self.kind, self.name = model, kind, name
        self.before: Callable[[int, dict[str, Any]], Reply | None] = lambda *_: None
        self.change: Callable[[list[int]], list[int]] = lambda tokens: tokens
        self.requests: list[dict[str, Any]] = []
        self.sampled, self.context, self.special, self.adds = True, 4096, True, 0
        self._lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        mine = {"vllm": "/v1/completions", "text": "/v1/completions", "sglang": "/generate", "llama.cpp": "/completion"}
        if path != mine[self.kind]:
            return as_reply({"detail": "Not Found"}, 404)
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
        if (said := self.before(number, body)) is not None:
            return said
        if self.kind == "text" and not isinstance(body["prompt"], str):
            return as_reply({"detail": "prompt must be a string."}, 400)
        if body.get("model") not in (None, self.name) and self.kind != "llama.cpp":
            return as_reply({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
        with _DECODING:
            return getattr(self, f"_{self.kind.replace('.', '_')}")(body)

    def _write(self, ids: list[int], how: dict[str, Any], limit: int, seed: int) -> tuple[list[int], bool]:
        top_k = how.get("top_k")
        sampling = Sampling(how["temperature"], how["top_p"], top_k if top_k and top_k > 0 else None, how["min_p"])
        if sampling.greedy or not self.sampled:
            found = decode_greedy(self.model, [ids], limit)[0]
            tokens, cut = list(found.tokens), found.truncated
        else:
            key = random_key("server", seed)
            _, tokens, cut = next(stream_draws(self.model, [ids], [key], limit, sampling=sampling))
        return self.change(list(tokens)), cut

    def _ended(self, tokens: list[int], cut: bool) -> list[int]:
        return tokens if cut else [*tokens, self.model.eos_ids[0]]

    def _vllm(self, body: dict[str, Any]) -> Reply:
        tokens, cut = self._write(body["prompt"], body, body["max_tokens"], body["seed"])
        choice = {"text": "", "finish_reason": "length" if cut else "stop", "token_ids": self._ended(tokens, cut)}
        usage = {"prompt_tokens": len(body["prompt"]) + self.adds, "completion_tokens": len(tokens) + (not cut)}
        return as_reply({"model": self.name, "choices": [choice], "usage": usage})

    def _text(self, body: dict[str, Any]) -> Reply:
        ids = self.model.tokenizer(body["prompt"]).input_ids
        tokens, cut = self._write(ids, body, body["max_tokens"], body["seed"])
        text = self.model.tokenizer.decode(tokens, skip_special_tokens=not self.special)
        choice = {"text": text, "finish_reason": "length" if cut else "stop"}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(tokens) + (not cut)}
        return as_reply({"model": self.name, "choices": [choice], "usage": usage})

    def _sglang(self, body: dict[str, Any]) -> Reply:
        how = body["sampling_params"]
        tokens, cut = self._write(body["input_ids"], how, how["max_new_tokens"], how["sampling_seed"])
        reason = {"type": "length", "length": len(tokens)} if cut else {"type": "stop", "matched": 1}
        meta = {"finish_reason": reason, "prompt_tokens": len(body["input_ids"])}
        return as_reply({"text": "", "output_ids": self._ended(tokens, cut), "meta_info": meta})

    def _llama_cpp(self, body: dict[str, Any]) -> Reply:
        tokens, cut = self._write(body["prompt"], body, body["n_predict"], body["seed"])
        told = {"stop_type": "limit" if cut else "eos", "tokens_predicted": len(tokens), "model": self.name}
        return as_reply({"content": "", "tokens": tokens, "tokens_evaluated": len(body["prompt"]), **told})

    def listed(self) -> Reply:
        return as_reply({"data": [{"id": self.name, "owned_by": self.kind, "max_model_len": self.context}]})

    def start(self) -> None:
        """Listen; at the port of before, if it was stopped."""
        outer = self
        versions = {
            "/version": {"version": "1.0"},
            "/get_server_info": {"version": "1.0"},
            "/props": {"build_info": "b1"},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.reply(*outer.answer(self.path, body))

            def do_GET(self):
                if self.path == "/v1/models":
                    return self.reply(*outer.listed())
                found = versions.get(self.path)
                return self.reply(*as_reply(found or {}, 200 if found else 404))

            def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size, allow_reuse_address, daemon_threads = 64, True, True

            def handle_error(self, *_):
                pass

        self._http = Http(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening; requests that are worked on are still answered."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()


@contextmanager
def served(model: Model, kind: str = "vllm", name: str = "served") -> Iterator[ModelServer]:
    server = ModelServer(model, kind, name)
    server.start()
    try:
        yield server
    finally:
        server.stop()
