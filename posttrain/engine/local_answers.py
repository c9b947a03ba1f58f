"""A model of this machine that answers questions: the counterpart of `endpoint`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posttrain.engine.base import Request
from posttrain.engine.endpoint import EndpointError, Question, Reply
from posttrain.engine.open import Slots, open_engine
from posttrain.models import load_model

if TYPE_CHECKING:
    from posttrain.types import Completion, Sampling


class LocalAnswers:
    """See `endpoint.Answering`. All questions of a call are decoded together, `slots` at once, each from its seed (0
    where it has none).

    A question that does not fit the model's context, or holds a control token of the model (which would be read as one,
    and could end the question early), has an EndpointError for an answer. Raises InputError for a model that cannot be
    loaded or has no chat template for messages."""

    def __init__(self, model: str, sampling: Sampling, slots: int = 32) -> None:
        self._lm = load_model(model)
        self._sampling = sampling
        self._engine = open_engine(Slots(slots), self._lm)

    async def answers(self, questions: Sequence[Question]) -> list[Reply | EndpointError]:
        requests: list[Request] = []
        outcomes: dict[int, Reply | EndpointError] = {}
        for i, question in enumerate(questions):
            request = self._request(i, question)
            if isinstance(request, EndpointError):
                outcomes[i] = request
            else:
                requests.append(request)
        lengths = {request.id: len(request.prompt_ids) for request in requests}
        for i, completion in self._engine.generate(requests):
            outcomes[i] = self._reply(lengths[i], completion)
        return [outcomes[i] for i in range(len(questions))]

    def _request(self, i: int, question: Question) -> Request | EndpointError:
        if control := self._lm.chat.special_token_in(message.content for message in question.messages):
            return EndpointError(f"the question holds {control!r}, a control token of {self._lm.name}")
        ids = tuple(self._lm.chat.prompt_ids(question.messages))
        if len(ids) + self._sampling.max_new_tokens > self._lm.context:
            length = self._lm.chat.counted(len(ids))
            return EndpointError(
                f"a question of {length} and max_new_tokens={self._sampling.max_new_tokens} do not fit the context of "
                f"{self._lm.context} of {self._lm.name}"
            )
        return Request(i, ids, self._sampling, question.seed or 0)

    def _reply(self, prompt_tokens: int, completion: Completion) -> Reply:
        text = self._lm.chat.decode(completion.token_ids.tolist())
        stop = "length" if completion.stop_reason == "length" else "stop"
        return Reply(text, stop, prompt_tokens, len(completion.token_ids))  # type: ignore[arg-type]
