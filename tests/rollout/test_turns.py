"""Conversations with an environment: order, limits, failures, seeds, and what the model is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.chat import ChatFormat
from posttrain.engine.local.engine import LocalEngine
from posttrain.envs.pool import Lost, Reply
from posttrain.models import LanguageModel
from posttrain.models.flops import FlopCounter
from posttrain.rollout import (
    Limits,
    RolloutRequest,
    collect,
    fit_tasks,
    rollout_from_json,
    rollout_to_json,
    sample,
    sampling_flops,
    score,
)
from posttrain.runs.rollouts import to_disk
from posttrain.types import Group, InputError, Message, Rollout, Sampling, Score, Task
from tests.chat_templates import TOOL, ScriptedEngine, ScriptedEnvironment, styled_tokenizer

TOKENIZER = styled_tokenizer("chatml")
CHAT = ChatFormat(TOKENIZER)
LIMITS = Limits(max_turns=4, max_tokens=4096)
MORE = Reply((Message("user", "more"),), False)
DONE = Reply((), True)
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def tokens(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def plans(count: int, new: int = 500) -> list[RolloutRequest]:
    return [
        RolloutRequest(Task(f"t{i}", f"q{i}", {"n": i}), 0, Sampling(new), 10 + i, episode_seed=70 + i)
        for i in range(count)
    ]


def talk(
    replies: Mapping[int, Sequence[Reply | Lost]],
    *texts: str,
    made: Sequence[RolloutRequest] | None = None,
    limits: Limits = LIMITS,
    backwards: bool = False,
    **options: Any,
) -> tuple[list[Rollout], ScriptedEngine, ScriptedEnvironment]:
    """Conversations in which every model says the same texts in turn."""
    engine = ScriptedEngine(lambda key, turn: (*tokens(texts[turn]), CHAT.turn_end), backwards)
    environment = ScriptedEnvironment(replies, **options)
    made = made or plans(len(replies))
    return sample(engine, CHAT, made, environment=environment, limits=limits), engine, environment


def test_rounds_are_in_step_and_in_the_order_of_the_plans() -> None:
    """Conversation 1 ends after one answer, 0 and 2 after three: they are sampled together whatever ends first, and the
    rollouts stand in the order of the plans. The environment is told columns and seeds, and judges each once."""
    replies = {0: [MORE, MORE, DONE], 1: [DONE], 2: [MORE, MORE, DONE]}
    rollouts, engine, environment = talk(replies, "a", "b", "c")
    assert engine.rounds == [[0, 1, 2], [0, 2], [0, 2]]
    assert [r.task_id for r in rollouts] == ["t0", "t1", "t2"]
    assert environment.episodes == {i: ({"prompt": f"q{i}", "n": i}, 70 + i) for i in range(3)}
    assert environment.finished == [1, 0, 2]
    assert [r.environment_reward for r in rollouts] == [3.0, 1.0, 3.0]
    assert [r.environment_state for r in rollouts] == [b"state 0", b"state 1", b"state 2"]
    assert [m.content for m in rollouts[0].messages] == ["a", "more", "b", "more", "c"]
    assert rollouts[0].text == "a\nb\nc" and rollouts[0].status == "ok"
    again, _, _ = talk(replies, "a", "b", "c", backwards=True)
    assert again == rollouts


def test_turn_seeds_differ_by_rollout_and_turn_and_are_repeated_exactly() -> None:
    replies = {i: [MORE, MORE, DONE] for i in range(3)}
    seeds = [[r.seed for r in asked] for asked in talk(replies, "a", "b", "c")[1].asked.values()]
    assert len({s for of in seeds for s in of}) == 9
    assert [[r.seed for r in asked] for asked in talk(replies, "a", "b", "c")[1].asked.values()] == seeds


def test_the_limit_of_turns_truncates_and_what_was_said_last_is_kept() -> None:
    (rollout,), engine, _ = talk({0: [MORE, MORE]}, "a", "b", limits=Limits(2, 4096))
    assert (rollout.status, rollout.error, len(engine.rounds)) == ("truncated", None, 2)
    assert [m.content for m in rollout.messages] == ["a", "more", "b", "more"]
    assert rollout.environment_reward == 2.0
    assert rollout.segments[0].sampled[-1]


def test_the_limit_of_tokens_shortens_the_last_answer_and_then_truncates() -> None:
    """Of an answer of four tokens (three letters and the end token) after a prompt of n, only two fit."""
    n = len(CHAT.prompt_ids("q0"))
    (short,), engine, environment = talk({0: []}, "xyz", limits=Limits(4, n + 2))
    assert (short.status, short.text, short.response_length) == ("truncated", "xy", 2)
    assert engine.asked[0][0].sampling.max_new_tokens == 2
    assert environment.heard == {} and short.environment_reward == 0.0
    (whole,), engine, _ = talk({0: [MORE]}, "xyz", limits=Limits(4, n + 4))
    assert (whole.status, whole.text, len(engine.rounds)) == ("truncated", "xyz", 1)
    assert len(whole.segments[0].token_ids) == n + 4


def test_an_answer_without_its_end_ends_the_conversation() -> None:
    (rollout,), _, environment = talk({0: []}, "xyz", made=plans(1, new=3), tools=(TOOL,))
    assert (rollout.status, rollout.text) == ("truncated", "xyz") and environment.heard == {}


def test_out_of_time_is_failed_and_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, of which the first replies take eleven."""
    now = [0.0]
    monkeypatch.setattr("posttrain.rollout.turns.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(ScriptedEnvironment):
        def act(self, answers: Mapping[int, Message]) -> dict[int, Reply | Lost]:
            now[0] += 11
            return super().act(answers)

    engine = ScriptedEngine(lambda key, turn: (*tokens("a"), CHAT.turn_end))
    environment = Slow({0: [MORE] * 9, 1: [DONE]})
    slow, quick = sample(engine, CHAT, plans(2), None, environment, Limits(9, 4096, seconds=10))
    assert (slow.status, slow.error) == ("failed", "the conversation was not over within its time limit of 10 s")
    assert slow.environment_reward is None and slow.response_length == 2
    assert (quick.status, quick.environment_reward) == ("ok", 1.0)
    assert environment.finished == [1, 0]


def test_a_lost_environment_fails_its_rollout_alone() -> None:
    replies = {0: [], 1: [MORE, Lost("worker died")], 2: [MORE, DONE]}
    rollouts, engine, environment = talk(replies, "a", "b", first={0: Lost("no port")})
    assert [(r.status, r.error) for r in rollouts] == [("failed", "no port"), ("failed", "worker died"), ("ok", None)]
    assert environment.finished == [0, 1, 2] and engine.rounds == [[1, 2], [1, 2]]
    scores = score(None, [p.task for p in plans(3)], rollouts)
    assert scores == [
        Score(None, reason="no port"),
        Score(None, reason="worker died"),
        Score(2.0, {"environment": 2.0}),
    ]
    assert rollouts[0].prompt_ids == CHAT.prompt_ids("q0") and rollouts[0].response_length == 0


def test_an_environment_lost_at_the_end_fails_too() -> None:
    class LostAtTheEnd(ScriptedEnvironment):
        def finish(self, keys: Sequence[int]) -> dict[int, Any]:
            return {key: Lost("no verdict") for key in keys}

    engine = ScriptedEngine(lambda key, turn: (*tokens("a"), CHAT.turn_end))
    (rollout,) = sample(engine, CHAT, plans(1), None, LostAtTheEnd({0: [DONE]}), LIMITS)
    assert (rollout.status, rollout.error, rollout.environment_reward) == ("failed", "no verdict", None)


def test_tool_results_follow_their_calls_and_ids_count_on() -> None:
    result = [Reply((Message("tool", "2", tool_call_id=f"call{i:05d}"),), False) for i in range(2)]
    (rollout,), _, environment = talk({0: [*result, DONE]}, f"so {CALL}", CALL, "two", tools=(TOOL,))
    calls = [m.tool_calls for m in environment.heard[0]]
    assert [[c["id"] for c in of] for of in calls] == [["call00000"], ["call00001"], []]
    assert calls[0][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert [m.role for m in rollout.messages] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert [m.content for m in rollout.messages] == ["so", "2", "", "2", "two"]
    (row,) = rollout.segments
    assert [TOKENIZER.decode(row.token_ids[s.start : s.stop]) for s in row.sampled_spans] == [
        f"so {CALL}<|im_end|>",
        f"{CALL}<|im_end|>",
        "two<|im_end|>",
    ]


def test_a_call_that_cannot_be_read_is_told_to_the_model_and_not_to_the_environment() -> None:
    (rollout,), _, environment = talk({0: [DONE]}, "<tool_call>{</tool_call>", "sorry", tools=(TOOL,))
    said, told, _ = rollout.messages
    assert said == Message("assistant", "<tool_call>{</tool_call>")
    assert told.role == "user" and told.content.startswith("The tool call could not be read: a tool call is not JSON")
    assert [m.content for m in environment.heard[0]] == ["sorry"]
    assert len(rollout.segments) == 1 and told.content in TOKENIZER.decode(rollout.segments[0].token_ids)


def test_first_observations() -> None:
    messages = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    tasks = [Task("text", "q"), Task("user", messages), Task("none", messages[:1]), Task("nothing", "q")]
    made = [RolloutRequest(task, 0, Sampling(50), 0) for task in tasks]
    first = {0: "see", 1: " see", 2: "see \ud83d"}
    _, engine, _ = talk({i: [DONE] for i in range(4)}, "a", made=made, first=first)
    prompts = [TOKENIZER.decode(asked[0].prompt_ids) for asked in engine.asked.values()]
    end, start = "<|im_end|>\n", "<|im_start|>"
    answer = f"{start}assistant\n"
    assert prompts == [
        f"{start}user\nq\nsee{end}{answer}",
        f"{start}system\ns{end}{start}user\nu see{end}{start}assistant\na{end}{answer}",
        f"{start}system\ns{end}{start}user\nsee ?{end}{answer}",
        f"{start}user\nq{end}{answer}",
    ]


def test_an_observation_that_leaves_no_room_fails_its_rollout() -> None:
    n = len(CHAT.prompt_ids("q0"))
    crowded, fine = talk({0: [], 1: [DONE]}, "a", first={0: "x"}, limits=Limits(4, n + 2))[0]
    assert crowded.status == "failed" and f"has {n + 2} tokens, which leaves no room" in (crowded.error or "")
    assert fine.status == "ok"


def test_a_conversation_that_the_template_refuses_fails_its_rollout() -> None:
    """Gemma's template has no role for tools: the environment is at fault, and the run goes on."""
    chat = ChatFormat(styled_tokenizer("gemma"))
    engine = ScriptedEngine(lambda key, turn: (chat.turn_end,))
    environment = ScriptedEnvironment({0: [Reply((Message("tool", "2"),), False)], 1: [DONE]})
    refused, fine = sample(engine, chat, plans(2), None, environment, LIMITS)
    assert refused.status == "failed" and "there is no role tool" in (refused.error or "")
    assert fine.status == "ok"


def test_prompts_are_checked_for_conversations_before_anything_is_sampled(tiny: LanguageModel) -> None:
    task = Task("t", "q")
    fit_tasks(tiny.chat, [task], 2048, 48, "data.jsonl", (TOOL,))
    with pytest.raises(InputError, match=r"data.jsonl: task t: .*ignores tools"):
        fit_tasks(ChatFormat(styled_tokenizer("gemma")), [task], 2048, 48, "data.jsonl", (TOOL,))
    with pytest.raises(InputError, match=r"data.jsonl: task t: raw text has no turns"):
        fit_tasks(ChatFormat(styled_tokenizer("chatml"), raw=True), [task], 2048, 48, "data.jsonl", ())
    with pytest.raises(InputError, match="limits of turns, tokens and seconds must be above 0"):
        Limits(1, 10, 0.0)


def test_the_environments_reward_is_a_part_beside_others() -> None:
    class Scorer:
        """A reward of 10 for what it can score, noting what it saw."""

        def __init__(self) -> None:
            self.states: list[bytes | None] = []

        def score(self, samples: Sequence[Any], trainer_state: object = None) -> list[Score]:
            self.states += [s.environment for s in samples]
            assert [m.content for m in samples[0].messages] == ["a", "more", "b"]
            assert samples[0].completion_ids == (*tokens("a"), CHAT.turn_end, *tokens("b"), CHAT.turn_end)
            return [Score(10.0, {"r": 10.0}), Score(None, {"r": None}), Score(None, {"r": None}, "timed out")]

    rollouts = talk({i: [MORE, DONE] for i in range(3)}, "a", "b")[0]
    scorer = Scorer()
    assert score(scorer, [p.task for p in plans(3)], rollouts) == [  # type: ignore[arg-type]
        Score(12.0, {"r": 10.0, "environment": 2.0}),
        Score(2.0, {"r": None, "environment": 2.0}),
        Score(None, {"r": None, "environment": 2.0}, "timed out"),
    ]
    assert scorer.states == [b"state 0", b"state 1", b"state 2"]


def test_json_holds_a_conversation_exactly() -> None:
    """Two rows, calls, floats; all but the environment's state, which is not recorded."""
    chat = ChatFormat(styled_tokenizer("mistral"))
    tokenizer = styled_tokenizer("mistral")
    call = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 0.1, "b": [1, "é"]}}]</s>'
    texts = [call, " so</s>", " bye</s>"]
    engine = ScriptedEngine(lambda key, turn: tuple(tokenizer(texts[turn], add_special_tokens=False)["input_ids"]))
    replies = [Reply((Message("tool", "2", tool_call_id="call00000"),), False), MORE, DONE]
    (rollout,) = sample(engine, chat, plans(1), None, ScriptedEnvironment({0: replies}, (TOOL,)), LIMITS)
    assert len(rollout.segments) == 2 and rollout.messages[0].tool_calls
    task = plans(1)[0].task
    (line,), _ = to_disk([rollout_to_json(1, task, rollout, Score(3.0, {"environment": 3.0}), 0.5)])
    again, value = rollout_from_json(json.loads(json.dumps(line, allow_nan=False)), rollout.sampling, chat)
    assert value == Score(3.0, {"environment": 3.0})
    assert again.environment_state is None and rollout.environment_state == b"state 0"
    assert rollout_to_json(1, task, again, value, 0.5) == rollout_to_json(1, task, rollout, value, 0.5)
    assert (again.messages, again.segments) == (rollout.messages, rollout.segments)


def real(tiny: LanguageModel) -> tuple[list[Group], LocalEngine]:
    """Conversations of the tiny model, whose turns end with a letter that is drawn often enough."""
    sampling = Sampling(40, stop=("e", "a", "o", " "))
    made = [RolloutRequest(Task(f"t{i}", f"task {i}"), g, sampling, 2 * i + g) for i in range(3) for g in range(2)]
    replies = {i: [MORE, Reply((Message("tool", "3"),), False), DONE] for i in range(6)}
    engine = LocalEngine(tiny, slots=4)
    return collect(engine, tiny.chat, None, made, None, ScriptedEnvironment(replies), Limits(3, 600)), engine


def test_conversations_of_a_real_model_are_repeated_exactly_and_counted(tiny: LanguageModel) -> None:
    """The counted operations, with one for each multiplied weight, are two for each token the engine forwarded; the
    engine shares what prompts have in common only within the slots it fills at once, so it may forward more."""
    groups, engine = real(tiny)
    assert real(tiny)[0] == groups
    assert [[r.index for r in g.rollouts] for g in groups] == [[0, 1]] * 3
    turns = [sum(1 for s in r.segments for _ in s.sampled_spans) for g in groups for r in g.rollouts]
    assert max(turns) == 3
    counted = sampling_flops(FlopCounter(linear=1, head=0, attention=0), groups)
    assert 0.8 * 2 * engine.forwarded_tokens < counted <= 2 * engine.forwarded_tokens


def test_counted_tokens_are_those_of_every_rounds_forest() -> None:
    """By hand: a prompt of p tokens, answers of 3 and 2 (end tokens included), m tokens between them. Round 1 forwards
    p + 2, round 2 p + 3 + m + 1; the head sees 3 + 2."""
    (rollout,), engine, _ = talk({0: [MORE, DONE]}, "ax", "b")
    p, second = (len(r.prompt_ids) for r in engine.asked[0])
    group = Group(plans(1)[0].task, (rollout,), (Score(1.0),))
    assert sampling_flops(FlopCounter(1, 0, 0), [group]) == 2 * (p + 2 + second + 1)
    assert sampling_flops(FlopCounter(0, 1, 0), [group]) == 2 * (3 + 2)
