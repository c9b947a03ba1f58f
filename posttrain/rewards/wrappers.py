"""Wrappers: from a reward to a stricter, better shaped or more careful one, as `clip(math, low=0)` is."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from posttrain.rewards.calls import renamed
from posttrain.rewards.compose import AnyReward, Values, Wrapped, minimum, wrap
from posttrain.rewards.extract import marked_answers, marks
from posttrain.rewards.extract import strip_thinking as after_thinking
from posttrain.rewards.math.denials import denied
from posttrain.rewards.math.latex import NotLiteral
from posttrain.rewards.math.parse import parse_answer
from posttrain.rewards.math.reward import same_answer
from posttrain.rewards.rules.length import units
from posttrain.types import InputError, Message, Sample

NEGATION = re.compile(r"\b(?:not|never|nor|neither)\b|n't\b", re.IGNORECASE)
MIN_SPREAD = 1e-8
"""A standard deviation below this is none."""
SENTENCE = r"[^.!?\n]*{}[^.!?\n]*[.!?]?"
INJECTION = re.compile(
    "|".join(
        (
            r"<\|[^<>|\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>",
            r"^[ \t]*(?:#+[ \t]*)?(?:system|user|human|assistant|instruction)s?[ \t]*:",
            SENTENCE.format(
                r"\b(?:ignore|disregard|forget|override)\b[^.!?\n]*\b(?:instruction|prompt|rubric|criteria|above)"
            ),
            SENTENCE.format(
                r"\b(?:give|award|assign|rate|score|grade)\s+(?:this|it|me|my|the)\b[^.!?\n]*"
                r"\b(?:full|maximum|highest|top|perfect|10/10|100%)"
            ),
        )
    ),
    re.IGNORECASE | re.MULTILINE,
)


# Strict: what is looked at, and what can be right at all.


def strip_thinking(reward: AnyReward) -> Wrapped:
    """The reward of the response without its reasoning: what stands after the last `</think>`, before a `<think>` that
    is never closed.

    The sampled token ids stay those of the whole response. Range and unit those of the reward; fails where it does.
    Source: final answers of reasoning models, as in DeepSeek-R1 (arXiv:2501.12948)."""
    return wrap("strip_thinking", [reward], edit=partial(_edit_text, change=after_thinking))


def normalised(reward: AnyReward) -> Wrapped:
    """The reward of the response as plain text: Unicode NFC, without invisible and control characters, with `\\n` as
    the end of a line and no blanks there, around the text neither.

    Blanks inside a line stay, since code needs them. Range and unit those of the reward; fails where it does. Source:
    Unicode Standard Annex 15; invisible characters are a way past filters and judges."""
    return wrap("normalised", [reward], edit=partial(_edit_text, change=_plain))


def sanitised(reward: AnyReward) -> Wrapped:
    """The reward of the response without what speaks to a judge: chat control tokens, names of turns at the start of a
    line (`System:`), sentences that tell to ignore instructions or to give full marks.

    For judges and learned rewards, which text can talk to; it takes away known phrases only and is no proof. Range and
    unit those of the reward; fails where it does. Source: the attacks of "One Token to Fool LLM-as-a-Judge"
    (arXiv:2507.08794) and prompt injection (arXiv:2302.12173)."""
    return wrap("sanitised", [reward], edit=partial(_edit_text, change=_sanitise))


def one_answer(reward: AnyReward) -> Wrapped:
    r"""The reward if the response marks exactly one distinct answer after its thinking (`\boxed{}`, `<answer>`, an
    `Answer:` line or `####`), else 0.

    Range that of the reward and 0, in its unit; fails where it does. Source: many answers to choose from are the oldest
    exploit of answer extraction; the rule is that of the reward `math`."""
    return wrap("one_answer", [reward], _one_answer)


def final_answer(reward: AnyReward, *, lists: bool = False) -> Wrapped:
    r"""The reward of the final answer alone, else 0: the reward sees the text of the one answer that the response marks
    after its thinking (without a mark: the whole response), which must be written out, as the reward `math` wants it.

    Several distinct answers are none, and so is a list of values (`3, 4, 5`) unless `lists`, an equation of numbers
    (`7 = 9`), and what the response denies. For rewards that look for
    the reference anywhere: what stands around the answer is not shown to them. Range that of the reward and 0, in its
    unit; fails where it does. Source: the rule of the reward `math`, for rewards of other answers."""
    return wrap("final_answer", [reward], partial(_final_answer, lists=lists), edit=_take_answer)


def literal_only(reward: AnyReward) -> Wrapped:
    r"""The reward if every marked answer after the thinking (without a mark: the whole response) is written out, as the
    reward `math` wants it, else 0: `\boxed{42}` and not `\boxed{6 \times 7}`.

    Range that of the reward and 0, in its unit; fails where it does. Source: symbolic verifiers take work left undone
    for an answer; see the reward `math`."""
    return wrap("literal_only", [reward], _literal_only)


def _one_answer(values: Values, sample: Sample) -> float:
    return values[0] if same_answer(list(dict.fromkeys(marked_answers(after_thinking(sample.text))))) else 0.0


def _final_answer(values: Values, sample: Sample, lists: bool) -> float:
    text = after_thinking(sample.text)
    found = marks(text)
    answers = list(dict.fromkeys(mark.text for mark in found)) or [text]
    if any(denied(text, mark) for mark in found) or any(map(NEGATION.search, answers)):
        return 0.0
    try:
        first = parse_answer(answers[0])
    except NotLiteral:
        return 0.0
    equation = first.kind == "relation" and not first.letters
    return values[0] if same_answer(answers) and not equation and (lists or first.kind != "list") else 0.0


def _take_answer(sample: Sample) -> Sample:
    """The sample with its first marked answer as its last turn; the rule sees to it that there are no others."""
    text = after_thinking(sample.text)
    answer = next(iter(marked_answers(text)), text).strip()
    return replace(sample, messages=(Message("assistant", answer),))


def _literal_only(values: Values, sample: Sample) -> float:
    text = after_thinking(sample.text)
    try:
        for answer in marked_answers(text) or [text]:
            parse_answer(answer)
    except NotLiteral:
        return 0.0
    return values[0]


def _edit_text(sample: Sample, change: Callable[[str], str]) -> Sample:
    messages = (replace(m, content=change(m.content)) if m.role == "assistant" else m for m in sample.messages)
    return replace(sample, messages=tuple(messages))


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))
    return "\n".join(line.rstrip() for line in kept.split("\n")).strip()


def _sanitise(text: str) -> str:
    return INJECTION.sub("", text).strip()


# Shape: how much a value is worth.


def clip(reward: AnyReward, *, low: float = 0.0, high: float = 1.0) -> Wrapped:
    """min(high, max(low, r)).

    Range [low, high], in the unit of the reward; fails where it does, and at the start where low is above high. Source:
    the bounded rewards of DQN (arXiv:1312.5602)."""
    if low > high:
        raise InputError(f"clip has low={low:g} above high={high:g}")
    return wrap("clip", [reward], partial(_clip, low=low, high=high))


def _clip(values: Values, sample: Sample, low: float, high: float) -> float:
    return min(high, max(low, values[0]))


def par(reward: AnyReward, *, column: str | None = None, reference: str | None = None) -> Wrapped:
    """σ(r − r_ref) = 1 / (1 + exp(r_ref − r)): how surely the response beats a reference, as Bradley and Terry have it.

    r_ref is the number in `column`, or what the same reward gives to the text in the column `reference`; give one of
    them. Range (0, 1), a probability. Fails where the reward does, where the column holds no number or text. Source:
    preference as reward, PAR (arXiv:2502.18770)."""
    if (column is None) == (reference is None):
        raise InputError("par needs the reference: column=NAME of a number, or reference=NAME of a text")
    if reference is not None:
        other = wrap("reference", [reward], edit=partial(_take_column, column=reference), columns=(reference,))
        return wrap("par", [reward, other], _par)
    return wrap("par", [reward], partial(_par, column=column), columns=(str(column),))


def _par(values: Values, sample: Sample, column: str | None = None) -> float:
    reference = sample.columns[column] if column is not None else values[1]
    if isinstance(reference, bool) or not isinstance(reference, int | float):
        raise TypeError(f"the column {column!r} holds {reference!r}, not the number of a reference")
    gap = values[0] - reference
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else math.exp(gap) / (1 + math.exp(gap))


def _take_column(sample: Sample, column: str) -> Sample:
    text = sample.columns[column]
    if not isinstance(text, str):
        raise TypeError(f"the column {column!r} holds {text!r}, not the text of a reference")
    return replace(sample, messages=(Message("assistant", text),), completion_ids=())


def cosine_length(
    reward: AnyReward,
    *,
    max_length: int,
    right: tuple[float, float] = (1.0, 0.5),
    wrong: tuple[float, float] = (-1.0, -0.5),
    exceeded: float = -1.0,
    unit: str = "tokens",
) -> Wrapped:
    """A value for right (r ≥ 1) and one for wrong answers, which moves with the length along half a cosine.

    With length n and L = `max_length`: `exceeded` if n ≥ L, else end + ½ (start − end) (1 + cos(π n / L)) with (start,
    end) = `right` or `wrong`. Range: between the least and the greatest of the five, no unit; lengths are counted in
    `unit`: tokens, words or characters. Fails where the reward does, and where tokens are not known. Source:
    Demystifying Long Chain-of-Thought (arXiv:2502.03373), equations 1 and 2, whose scripts have right=[2, 1],
    wrong=[-10, 0] and exceeded=-10; the defaults of `right` and `wrong` are TRL's, where no length is too much."""
    _check_length(max_length, unit)
    rule = partial(_cosine, limit=max_length, right=tuple(right), wrong=tuple(wrong), exceeded=exceeded, unit=unit)
    return wrap("cosine_length", [reward], rule)


def _cosine(
    values: Values, sample: Sample, limit: int, right: Values, wrong: Values, exceeded: float, unit: str
) -> float:
    length = length_of(sample, unit)
    if length >= limit:
        return exceeded
    start, end = right if values[0] >= 1 else wrong
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * length / limit))


def length_normalised(reward: AnyReward, *, length: int, unit: str = "tokens") -> Wrapped:
    """r / max(1, n / `length`) for r ≥ 0, and r itself below 0.

    What a reward pays beyond `length` is shared out over the response, so that a gain in proportion to padding is none.
    A negative value is not divided: that would pay for length. Range that of the reward, in its unit a `length`; n is
    counted in `unit`: tokens, words or characters. Fails where the reward does, and where tokens are not known.
    Source: after length-normalised rewards such as SimPO's (arXiv:2405.14734); for the sign, what dividing wrong
    answers by their length does (Dr. GRPO, arXiv:2503.20783)."""
    _check_length(length, unit)
    return wrap("length_normalised", [reward], partial(_length_normalised, length=length, unit=unit))


def _length_normalised(values: Values, sample: Sample, length: int, unit: str) -> float:
    value = values[0]
    return value / max(1.0, length_of(sample, unit) / length) if value >= 0 else value


def length_residual(reward: AnyReward, correct: AnyReward | None = None, *, unit: str = "tokens") -> Wrapped:
    """r − β (n − n̄): the reward without what a straight line in the length explains.

    β = ΣΣ (n − n̄_c)(r − r̄_c) / ΣΣ (n − n̄_c)² over the samples of equal correctness c, the value of the reward
    `correct` (a strict verifier; without it all are one class), so that right answers may be longer than wrong ones; n̄
    is the mean of the batch. All samples of a call are the batch: a step in training. Range unbounded, in the unit of
    the reward; n is counted in `unit`: tokens, words or characters. Fails where a reward does, and where tokens are not
    known. Source: length as the main gain of RLHF, "A Long Way to Go" (arXiv:2310.03716); the within-groups estimator
    of panel regression."""
    _check_length(1, unit)
    rewards = [reward] if correct is None else [reward, renamed(correct, "correct")]
    return wrap("length_residual", rewards, partial(_known_length, unit=unit), batch_rule=partial(_residual, unit=unit))


def _known_length(values: Values, sample: Sample, unit: str) -> float:
    length_of(sample, unit)  # here a failure costs this sample only
    return values[0]


def _residual(rows: Sequence[Values], samples: Sequence[Sample], unit: str) -> list[float]:
    lengths = [length_of(sample, unit) for sample in samples]
    classes: dict[tuple[float, ...], list[int]] = {}
    for i, row in enumerate(rows):
        classes.setdefault(tuple(row[1:]), []).append(i)
    along, square = 0.0, 0.0
    for members in classes.values():
        middle = math.fsum(lengths[i] for i in members) / len(members)
        along += math.fsum((lengths[i] - middle) * rows[i][0] for i in members)
        square += math.fsum((lengths[i] - middle) ** 2 for i in members)
    slope = along / square if square else 0.0
    mean = math.fsum(lengths) / max(1, len(lengths))
    return [row[0] - slope * (n - mean) for row, n in zip(rows, lengths, strict=True)]


def length_of(sample: Sample, unit: str) -> int:
    return len(units(sample.text, sample.completion_ids, unit))


def _check_length(length: int, unit: str) -> None:
    if length < 1 or unit not in ("tokens", "words", "characters"):
        raise InputError(f"a length is at least 1 in tokens, words or characters, not {length} {unit}")


# Ensemble: several members that judge the same thing.


def ensemble_min(*members: AnyReward) -> Wrapped:
    """The least of the members: what all of them grant.

    Range as the members give it, in their unit, which must be one and the same. Null where a member is; fails where one
    does. Source: worst-case optimisation of reward model ensembles (arXiv:2310.02743)."""
    return replace(minimum(*members), name="ensemble_min")


def ensemble_uncertainty(*members: AnyReward, penalty: float = 1.0) -> Wrapped:
    """mean − `penalty` · variance of the members (the population variance).

    Range up to the greatest member, in their unit, which must be one and the same. Null where a member is; fails where
    one does. Source: uncertainty-weighted optimisation of reward model ensembles (arXiv:2310.02743)."""
    return wrap("ensemble_uncertainty", members, partial(_uncertainty, penalty=penalty))


def _uncertainty(values: Values, sample: Sample, penalty: float) -> float:
    mean, spread = _mean_and_sd(values)
    return mean - penalty * spread**2


def ensemble_zscored(*members: AnyReward, penalty: float = 1.0) -> Wrapped:
    """mean − `penalty` · standard deviation of the members, each first brought to mean 0 and standard deviation 1 over
    the batch, so that members of different scales count alike.

    All samples of a call are the batch: a step in training; a member that is constant over it is 0. Range unbounded, in
    standard deviations. Null where a member is; fails where one does. Source: after uncertainty-weighted ensembles
    (arXiv:2310.02743), with the lower confidence bound of Bayesian optimisation."""
    return wrap("ensemble_zscored", members, batch_rule=partial(_zscored, penalty=penalty))


def _zscored(rows: Sequence[Values], samples: Sequence[Sample], penalty: float) -> list[float]:
    columns = []
    for column in zip(*rows, strict=True):
        mean, spread = _mean_and_sd(column)
        columns.append([(value - mean) / spread if spread > MIN_SPREAD else 0.0 for value in column])
    scores = []
    for row in zip(*columns, strict=True):
        mean, spread = _mean_and_sd(row)
        scores.append(mean - penalty * spread)
    return scores


def _mean_and_sd(values: Values) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
