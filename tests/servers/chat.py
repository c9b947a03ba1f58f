"""A server that speaks the chat-completions protocol and does what the last message says, in threads of this
process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class State:
    """What requests share."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.three = threading.Barrier(3)
        self.under_way = 0
        self.seen: dict[str, int] = {}

    def enter(self, path: str, request: dict[str, Any], headers: Message) -> int:
        """Note a request; how many of its kind came before."""
        with self.lock:
            self.under_way += 1
            text = json.dumps(request, sort_keys=True)
            before = self.seen.get(text, 0)
            self.seen[text] = before + 1
            row = {"path": path, "request": request, "key": headers["Authorization"], "cookie": headers["Cookie"]}
            self.log.append(row | {"under_way": self.under_way})
            return before

    def leave(self) -> None:
        """Before the answer is sent: the client may ask again before this thread goes on."""
        with self.lock:
            self.under_way -= 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        before = self.state.enter(self.path, request, self.headers)
        self.answer(request, request["messages"][-1]["content"], before)

    def answer(self, request: dict[str, Any], text: str, before: int) -> None:
        if text == "busy" and before == 0:
            self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
        elif text == "broken":
            self.send(500, {"error": {"message": "out of order"}}, {"Retry-After": "0.05"})
        elif text == "secret":
            self.send(401, {"error": {"message": "who are you?"}})
        elif text == "too long":
            self.send(400, {"error": {"message": "this is\nmore than the context"}})
        elif text == "hang":
            self.state.over.wait(60)
        elif text == "html":
            self.send(200, "<html>not here</html>", {"Content-Type": "text/html"})
        elif text == "torn":
            self.send(200, '{"choices": [')
        elif text == "empty":
            self.send(200, {"object": "something else"})
        elif text == "redirect":
            self.send(307, "", {"Location": f"http://127.0.0.1:{self.server.server_address[1]}/v1/elsewhere"})
        elif text == "tool":
            self.send(200, completion(None, "tool_calls"))
        else:
            if text == "together":
                self.state.three.wait(60)
            reason = "length" if text == "long" else "stop"
            sent = completion(f"{text} {request.get('seed', 0) % 10}", reason)
            if text.startswith("usage "):
                sent["usage"] = {"prompt_tokens": json.loads(text.removeprefix("usage ")), "completion_tokens": 3}
            self.send(200, sent, {"Set-Cookie": "who=you; Path=/"} if text == "cookie" else None)

    def send(self, status: int, body: str | dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.state.leave()
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """The log has it."""


def completion(text: str | None, reason: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": USAGE}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that gave up is no error."""


class ChatServer:
    """A running server by its address, and what it was asked."""

    def __init__(self, url: str, state: State) -> None:
        self.url = url
        self.state = state

    def requests(self) -> list[dict[str, Any]]:
        with self.state.lock:
            return list(self.state.log)


@contextmanager
def serve(handler: type[Handler] = Handler) -> Iterator[ChatServer]:
    """A running server."""
    state = State()
    server = Server(("127.0.0.1", 0), type("Bound", (handler,), {"state": state}))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield ChatServer(f"http://127.0.0.1:{server.server_port}/v1", state)
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
