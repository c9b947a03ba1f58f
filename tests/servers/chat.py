"""A server that speaks the chat-completions protocol and does what the last message says. Run as a process: it prints
its port, and writes a line about every request to the file it is given."""

from __future__ import annotations

import json
import sys
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SLOW_SECONDS = 0.2
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class State:
    """What requests share."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.lock = threading.Lock()
        self.under_way = 0
        self.seen: dict[str, int] = {}

    def enter(self, path: str, request: dict[str, Any], headers: Message) -> int:
        """Note a request; how many of its kind came before."""
        with self.lock:
            self.under_way += 1
            text = json.dumps(request, sort_keys=True)
            before = self.seen.get(text, 0)
            self.seen[text] = before + 1
            with self.log.open("a") as stream:
                row = {"path": path, "request": request, "key": headers["Authorization"], "cookie": headers["Cookie"]}
                stream.write(json.dumps(row | {"under_way": self.under_way}) + "\n")
            return before

    def leave(self) -> None:
        with self.lock:
            self.under_way -= 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        before = self.state.enter(self.path, request, self.headers)
        try:
            self.answer(request, request["messages"][-1]["content"], before)
        finally:
            self.state.leave()

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
            time.sleep(30)
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
            if text == "slow":
                time.sleep(SLOW_SECONDS)
            reason = "length" if text == "long" else "stop"
            sent = completion(f"{text} {request.get('seed', 0) % 10}", reason)
            if text.startswith("usage "):
                sent["usage"] = {"prompt_tokens": json.loads(text.removeprefix("usage ")), "completion_tokens": 3}
            self.send(200, sent, {"Set-Cookie": "who=you; Path=/"} if text == "cookie" else None)

    def send(self, status: int, body: str | dict[str, Any], headers: dict[str, str] | None = None) -> None:
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


def main(handler: type[Handler] = Handler) -> None:
    handler.state = State(Path(sys.argv[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
