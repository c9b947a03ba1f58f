"""A model behind an OpenAI-compatible chat-completions endpoint: teachers and judges.

The key is read from the environment when a connection is made, and is written nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from posttrain.engine.ledger import Spent, counted
from posttrain.runs.files import write_atomic
from posttrain.systems import need_package
from posttrain.tool_calls import with_text_arguments
from posttrain.types import InputError, Message, RunFailed, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    Connection = tuple[AsyncGenerator[AsyncOpenAI, None], AsyncOpenAI, asyncio.Semaphore]

WAIT_SECONDS = 60.0
"""The longest that the client library waits before it tries again."""
SEED_MASK = (1 << 31) - 1
"""Servers differ in how long a seed may be; all take 31 bits."""
MOST_TOKENS = 1 << 31
"""No answer uses as many; a larger count is a fault of the endpoint's."""
REFUSED = {401: "set the key in ${key}", 403: "use a key in ${key} that may", 404: "check the URL and the model's name"}
"""What no further try can mend, and what to do about it."""


class TextModel(Protocol):
    """Whatever answers a conversation in text."""

    def complete(self, messages: Sequence[Message]) -> str: ...


class Answering(Protocol):
    """Whatever answers many questions: an `Endpoint`, or `local_answers.LocalAnswers`."""

    async def answers(self, questions: Sequence[Question]) -> list[Reply | EndpointError]:
        """Answers in the order of the questions, with the error in the place of one that could not be had."""
        ...


class EndpointError(Exception):
    """One request has no answer: it timed out, got an error after all its tries, or what came back is no answer."""


class BudgetSpent(RunFailed):
    """The requests or tokens that were allowed are used up."""


@dataclass(frozen=True)
class Question:
    """A conversation to answer. Questions that differ in nothing but `seed` have answers of their own."""

    messages: tuple[Message, ...]
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """An answer, why it ended, and the tokens it used as the endpoint counts them (0 where it does not)."""

    text: str
    stop_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Endpoint:
    """See `TextModel`. Answers by `model` at `url`, drawn as `sampling` says (temperature, top-p, most new tokens).

    `concurrency` requests are under way at once. A try may take `timeout_seconds`; one that times out or gets 429 or
    5xx is followed by up to `retries` more, each after a longer wait. With `cache`, a folder, the same request (URL,
    model, messages, sampling, seed) gets the same answer from there and costs nothing. Once `max_requests` are made or
    answers have used `max_tokens`, no request is made any more; those under way are still answered, and kept in the
    cache. With `ledger`, a file, the budget is that of all processes, now and later, that count in that file.

    Raises InputError where the client library is missing or the endpoint refuses key or model, BudgetSpent, and
    RunFailed where the endpoint cannot be reached."""

    url: str
    model: str
    sampling: Sampling
    key_variable: str = field(default="OPENAI_API_KEY", kw_only=True)
    concurrency: int = field(default=8, kw_only=True)
    timeout_seconds: float = field(default=120.0, kw_only=True)
    retries: int = field(default=5, kw_only=True)
    cache: Path | None = field(default=None, kw_only=True)
    max_requests: int | None = field(default=None, kw_only=True)
    max_tokens: int | None = field(default=None, kw_only=True)
    ledger: Path | None = field(default=None, kw_only=True)
    requests: int = field(default=0, init=False)
    """Requests made so far, tries of one counted once."""
    tokens: int = field(default=0, init=False)
    """Tokens that their answers used."""

    def __post_init__(self) -> None:
        need_package("openai", "an endpoint")
        if self.sampling.top_k or self.sampling.stop:
            raise InputError("an endpoint takes neither top_k nor stop strings; leave them out")
        self._stopped: InputError | RunFailed | None = None
        self._connections: dict[asyncio.AbstractEventLoop, Connection] = {}

    def complete(self, messages: Sequence[Message]) -> str:
        """The text of one answer. Raises EndpointError where there is none."""
        (reply,) = self.replies([Question(tuple(messages))])
        if isinstance(reply, EndpointError):
            raise reply
        return reply.text

    def replies(self, questions: Sequence[Question]) -> list[Reply | EndpointError]:
        """`answers`, for callers without an event loop."""
        self._stopped = None
        return asyncio.run(self.answers(questions))

    async def answers(self, questions: Sequence[Question]) -> list[Reply | EndpointError]:
        """See `Answering`. Calls in one event loop share connections, `concurrency`, and what stopped one of them."""
        client, slots = await self._connection()
        outcomes = list(await asyncio.gather(*(self._answer(client, slots, question) for question in questions)))
        if self._stopped is not None:
            raise self._stopped
        return outcomes

    async def _connection(self) -> tuple[AsyncOpenAI, asyncio.Semaphore]:
        """Those of the running loop: to make a client takes longer than many an answer."""
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            client = self._client(loop)
            self._connections[loop] = client, await anext(client), asyncio.Semaphore(self.concurrency)
        return self._connections[loop][1:]

    async def _client(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[AsyncOpenAI, None]:
        """A client that is closed with the loop, which ends its asynchronous generators."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        key = os.environ.get(self.key_variable) or "none"  # the library insists on one, many servers do not
        # Questions go to the URL that the user named and nowhere else, and no answer leaves anything for the next.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        http = DefaultAsyncHttpxClient(follow_redirects=False, cookies=no_cookies)
        try:
            async with AsyncOpenAI(
                base_url=self.url,
                api_key=key,
                timeout=self.timeout_seconds,
                max_retries=self.retries,
                http_client=http,
            ) as client:
                yield client
        finally:
            del self._connections[loop]

    async def _answer(self, client: AsyncOpenAI, slots: asyncio.Semaphore, question: Question) -> Reply | EndpointError:
        request = self._request(question)
        file = self._cache_file(request)
        if file is not None and (kept := _kept(file)) is not None:
            return kept
        async with slots:
            if self._stopped is None:
                self._claim()
            if self._stopped is not None:
                return EndpointError(str(self._stopped))
            try:
                reply = _reply(await self._ask(client, request))
            except EndpointError as error:
                return error
            except (InputError, RunFailed) as error:  # the others under way still end, and are kept
                self._stopped = self._stopped or error
                return EndpointError(str(error))
        with self._spent() as spent:
            spent.tokens += reply.tokens
            self.tokens += reply.tokens
        if file is not None:
            _keep(file, request, reply)
        return reply

    async def _ask(self, client: AsyncOpenAI, request: dict[str, Any]) -> Any:
        """What the endpoint sends, after further tries where the client library makes them."""
        import openai

        tries = f"{self.retries + 1} tries" if self.retries else "1 try"
        end = (self.timeout_seconds + WAIT_SECONDS) * (self.retries + 1)  # for one that sends a byte now and then
        try:
            async with asyncio.timeout(end):
                return await client.chat.completions.create(**request)
        except (openai.APITimeoutError, TimeoutError):
            raise EndpointError(f"{self.url}: no answer within {self.timeout_seconds:g} s in {tries}") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise RunFailed(f"endpoint {self.url} cannot be reached in {tries}: {cause}") from None
        except openai.APIStatusError as error:
            said = f"{self.url} answers {error.status_code}: {' '.join(_reason(error).split())[:200]}"
            if (remedy := REFUSED.get(error.status_code)) is not None:
                raise InputError(f"endpoint {said}; {remedy.replace('{key}', self.key_variable)}") from None
            if 300 <= error.status_code < 400:
                to = error.response.headers.get("location", "nowhere")[:200]
                raise InputError(
                    f"endpoint {self.url} answers {error.status_code}: it redirects to {to}, which is not followed; "
                    "give the URL of the endpoint itself"
                ) from None
            raise EndpointError(said) from None
        except (ValueError, openai.APIResponseValidationError) as error:  # a body that is no JSON
            raise EndpointError(f"{self.url}: the answer is malformed: {' '.join(str(error).split())[:200]}") from None

    def _request(self, question: Question) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [_wire(message) for message in question.messages],
            "max_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
        }
        return request if question.seed is None else request | {"seed": question.seed & SEED_MASK}

    def _cache_file(self, request: dict[str, Any]) -> Path | None:
        if self.cache is None:
            return None
        text = json.dumps({"url": self.url, **request}, sort_keys=True)
        return self.cache / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def _claim(self) -> None:
        with self._spent() as spent:
            over = None
            if self.max_requests is not None and spent.requests >= self.max_requests:
                over = f"max_requests={self.max_requests}"
            elif self.max_tokens is not None and spent.tokens >= self.max_tokens:
                over = f"max_tokens={self.max_tokens}"
            if over is None:
                spent.requests += 1
                self.requests += 1
                return
        anew = "" if self.ledger is None else f", or delete {self.ledger} to count anew,"
        self._stopped = BudgetSpent(
            f"endpoint {self.url}: the budget of {over} is spent ({spent.requests} requests, {spent.tokens} tokens); "
            f"the answers so far are kept, so raise it{anew} and go on with --resume"
        )

    @contextmanager
    def _spent(self) -> Iterator[Spent]:
        if self.ledger is None:
            yield Spent(self.requests, self.tokens)  # these are added to by themselves
            return
        with counted(self.ledger) as spent:
            yield spent


def _kept(file: Path) -> Reply | None:
    """The answer in a file of the cache; None if no file can be read, and the endpoint is asked again."""
    try:
        reply = Reply(**json.loads(file.read_text(encoding="utf-8") if file.is_file() else "")["reply"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None
    counts = (reply.prompt_tokens, reply.completion_tokens)
    whole = isinstance(reply.text, str) and reply.stop_reason in ("stop", "length")
    return reply if whole and all(count == _count(count) for count in counts) else None


def _keep(file: Path, request: Mapping[str, Any], reply: Reply) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_suffix(f".{os.getpid()}")  # another process may be writing the same answer
        write_atomic(own, json.dumps({"request": request, "reply": asdict(reply)}, ensure_ascii=False) + "\n")
        own.replace(file)
    except OSError as error:
        raise InputError(f"the cache {file.parent} cannot be written ({error.strerror})") from None


def _reason(error: Any) -> str:
    told = error.body.get("message") if isinstance(error.body, Mapping) else None
    return str(told or error.message)


def _wire(message: Message) -> dict[str, Any]:
    """A message as the protocol knows it, which has no place for reasoning, and in which arguments are JSON text."""
    out = {key: value for key, value in message.to_dict().items() if key != "reasoning"}
    if message.tool_calls:
        out["tool_calls"] = [with_text_arguments(call) for call in message.tool_calls]
    return out


def _reply(sent: Any) -> Reply:
    choices = getattr(sent, "choices", None)
    if not (isinstance(choices, list) and choices and getattr(choices[0], "message", None)):
        raise EndpointError(f"the answer is malformed: no chat completion but {' '.join(str(sent).split())[:100]!r}")
    content, reason = getattr(choices[0].message, "content", None), getattr(choices[0], "finish_reason", None)
    if not isinstance(content, str) or reason == "content_filter":
        raise EndpointError(f"the answer holds no text (it ended with {reason!r})")
    usage = getattr(sent, "usage", None)
    return Reply(
        text=content.encode(errors="replace").decode(),  # half a character fits no file
        stop_reason="length" if reason == "length" else "stop",
        prompt_tokens=_count(getattr(usage, "prompt_tokens", None)),
        completion_tokens=_count(getattr(usage, "completion_tokens", None)),
    )


def _count(sent: Any) -> int:
    """A count that an endpoint sent, which the client library does not check; 0 for what can be none."""
    return sent if type(sent) is int and 0 <= sent <= MOST_TOKENS else 0
