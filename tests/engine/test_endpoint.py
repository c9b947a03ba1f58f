"""The endpoint against a real server process: answers, faults of every kind, the cache and the budget."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.engine.endpoint import BudgetSpent, Endpoint, EndpointError, Question, Reply, _kept, _reply
from posttrain.engine.ledger import counted
from posttrain.types import InputError, Message, RunFailed, Sampling
from tests.servers.chat import ChatServer


def endpoint(server: ChatServer, **options: Any) -> Endpoint:
    return Endpoint(server.url, "teacher", Sampling(64, temperature=0.7, top_p=0.9), **options)


def ask(text: str, seed: int | None = None) -> Question:
    return Question((Message("system", "Be brief."), Message("user", text)), seed)


def test_a_request_says_what_was_asked_and_the_answer_comes_back(server: ChatServer) -> None:
    model = endpoint(server)
    assert model.complete([Message("user", "hello")]) == "hello 0"
    assert model.replies([ask("hi", seed=4), ask("long", seed=(1 << 40) + 5)]) == [
        Reply("hi 4", "stop", 7, 3),
        Reply("long 5", "length", 7, 3),
    ]
    assert (model.requests, model.tokens) == (3, 30)
    first, *together = (row["request"] for row in server.requests())
    assert first == {
        "model": "teacher",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    system = {"role": "system", "content": "Be brief."}
    assert {request["seed"]: request["messages"] for request in together} == {  # they may arrive in either order
        4: [system, {"role": "user", "content": "hi"}],
        5: [system, {"role": "user", "content": "long"}],
    }
    assert len(together) == 2
    assert {row["key"] for row in server.requests()} == {"Bearer sk-of-the-test"}


def test_answers_come_in_order_and_few_at_a_time(server: ChatServer) -> None:
    """The server answers when three have asked, and never have four."""
    model = endpoint(server, concurrency=3)
    replies = model.replies([ask("together", seed=i) for i in range(9)])
    assert [r.text for r in replies if isinstance(r, Reply)] == [f"together {i}" for i in range(9)]
    assert max(row["under_way"] for row in server.requests()) == 3


def test_a_busy_server_is_asked_again(server: ChatServer) -> None:
    model = endpoint(server)
    assert model.complete([Message("user", "busy")]) == "busy 0"
    assert len(server.requests()) == 2
    assert model.requests == 1


@pytest.mark.parametrize(
    ("text", "said", "tries"),
    [
        ("broken", "answers 500: .*out of order", 3),
        ("hang", r"no answer within 1 s in 3 tries", 3),
        ("too long", "answers 400: .*more than the context", 1),
        ("html", "malformed: no chat completion but '<html>not here</html>'", 1),
        ("torn", "malformed", 1),
        ("empty", "malformed: no chat completion", 1),
        ("tool", "holds no text .*'tool_calls'", 1),
    ],
)
def test_a_fault_is_an_error_of_its_request_alone(server: ChatServer, text: str, said: str, tries: int) -> None:
    model = endpoint(server, retries=2, timeout_seconds=1 if text == "hang" else 60)
    good, bad = model.replies([ask("hello", seed=1), ask(text)])
    assert good == Reply("hello 1", "stop", 7, 3)
    assert isinstance(bad, EndpointError)
    assert "\n" not in str(bad)
    with pytest.raises(EndpointError, match=said):
        raise bad
    asked = [row for row in server.requests() if row["request"]["messages"][-1]["content"] == text]
    assert len(asked) == tries


def test_a_refused_key_stops_at_once(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-wrong")
    model = endpoint(server, key_variable="TEACHER_KEY", concurrency=1)
    with pytest.raises(InputError, match=r"answers 401: .*who are you.*set the key in \$TEACHER_KEY") as caught:
        model.replies([ask("secret", seed=i) for i in range(20)])
    assert "sk-wrong" not in str(caught.value)
    assert len(server.requests()) == 1


def test_questions_go_to_the_named_address_alone(server: ChatServer) -> None:
    model = endpoint(server, concurrency=1)
    with pytest.raises(InputError, match=r"answers 307: it redirects to .*/v1/elsewhere, which is not followed"):
        model.complete([Message("user", "redirect")])
    assert {row["path"] for row in server.requests()} == {"/v1/chat/completions"}


def test_cookies_are_not_kept(server: ChatServer) -> None:
    endpoint(server, concurrency=1).replies([ask("cookie", seed=i) for i in range(3)])
    assert [row["cookie"] for row in server.requests()] == [None] * 3


@pytest.mark.parametrize("usage", ["1.5", "-1000000", '"many"', "true", "null", "[1]", "1e300", str(10**30)])
def test_a_usage_that_is_no_count_counts_as_none(server: ChatServer, tmp_path: Path, usage: str) -> None:
    model = endpoint(server, cache=tmp_path, ledger=tmp_path / "spent", max_tokens=100)
    assert model.replies([ask(f"usage {usage}")]) == [Reply(f"usage {usage} 0", "stop", 0, 3)]
    assert (tmp_path / "spent").read_text().split() == ["1", "3"]


@pytest.mark.parametrize("content", ["1 1.5", "1 -3", "7", "1 2 3", "one two"])
def test_a_ledger_that_holds_no_counts_is_named(server: ChatServer, tmp_path: Path, content: str) -> None:
    (tmp_path / "spent").write_text(content)
    model = endpoint(server, cache=tmp_path, ledger=tmp_path / "spent", max_tokens=100)
    with pytest.raises(InputError, match=r"spent counts requests and tokens, but holds .*; delete it"):
        model.replies([ask("hello")])
    assert not server.requests()
    assert (tmp_path / "spent").read_text() == content


@pytest.mark.parametrize("there", [True, False])
def test_a_ledger_is_not_written_through_a_link(server: ChatServer, tmp_path: Path, there: bool) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.touch()
    (tmp_path / "spent").symlink_to(victim)
    model = endpoint(server, cache=tmp_path, ledger=tmp_path / "spent", max_tokens=100)
    with pytest.raises(InputError, match="spent must count requests and tokens, and cannot be opened"):
        model.replies([ask("hello")])
    assert not server.requests()
    assert victim.exists() == there and (not there or victim.read_text() == "")


def test_a_pipe_is_no_ledger(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "spent")
    with pytest.raises(InputError, match="it is no file"), counted(tmp_path / "spent"):
        pass


@pytest.mark.parametrize(
    "reply",
    [{"text": None}, {"text": "a", "stop_reason": "x"}, {"prompt_tokens": 1.5}, {"completion_tokens": -1}, "a", None],
)
def test_a_kept_answer_that_is_none_is_asked_for_again(tmp_path: Path, reply: Any) -> None:
    whole = {"text": "a", "stop_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"reply": whole}))
    assert _kept(file) == Reply("a", "stop", 1, 1)
    file.write_text(json.dumps({"reply": whole | reply if isinstance(reply, dict) else reply}))
    assert _kept(file) is None


@pytest.mark.parametrize("message", ["text", 3, ["text"]])
def test_a_message_of_no_form_is_an_error_of_its_request(message: Any) -> None:
    with pytest.raises(EndpointError, match="holds no text"):
        _reply(SimpleNamespace(choices=[SimpleNamespace(message=message)]))


def test_a_server_that_is_not_there(server: ChatServer) -> None:
    nowhere = Endpoint("http://127.0.0.1:9/v1", "m", Sampling(4), retries=1)
    with pytest.raises(RunFailed, match=r"http://127.0.0.1:9/v1 cannot be reached in 2 tries"):
        nowhere.complete([Message("user", "hello")])


def test_the_cache_answers_the_second_time(server: ChatServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    questions = [ask("hello", seed=1), ask("hello", seed=2), ask("broken")]
    once = endpoint(server, cache=cache, retries=0).replies(questions)
    asked = len(server.requests())
    assert asked == 3
    again = endpoint(server, cache=cache, retries=0)
    assert again.replies(questions[:2]) == once[:2]
    assert len(server.requests()) == asked and (again.requests, again.tokens) == (0, 0)
    again.replies(questions[2:])  # an error is no answer to keep
    assert len(server.requests()) == asked + 1
    hotter = Endpoint(server.url, "teacher", Sampling(64, temperature=0.8, top_p=0.9), cache=cache)
    hotter.replies(questions[:1])  # and another request has an answer of its own
    assert len(server.requests()) == asked + 2
    assert all("sk-of-the-test" not in file.read_text() for file in cache.iterdir())


@pytest.mark.parametrize(("budget", "made"), [({"max_requests": 4}, 4), ({"max_tokens": 25}, 3)])
def test_a_spent_budget_stops_and_keeps_what_there_is(
    server: ChatServer, tmp_path: Path, budget: dict[str, int], made: int
) -> None:
    questions = [ask("hello", seed=i) for i in range(6)]
    model = endpoint(server, cache=tmp_path / "cache", concurrency=1, **budget)
    (name, value), *_ = budget.items()
    with pytest.raises(BudgetSpent, match=rf"budget of {name}={value} is spent \({made} requests, {made}0 tokens\)"):
        model.replies(questions)
    assert len(server.requests()) == made
    with pytest.raises(BudgetSpent):
        model.replies(questions)
    assert len(endpoint(server, cache=tmp_path / "cache").replies(questions)) == len(server.requests()) == 6


def test_what_an_endpoint_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="neither top_k nor stop strings"):
        Endpoint("http://127.0.0.1:9/v1", "m", Sampling(4, top_k=3))
