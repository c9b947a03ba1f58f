"""What `posttrain check-data --model` finds: every row as a run would encode it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.chat import ChatFormat, Ids
from posttrain.config import CheckDataConfig
from posttrain.console import Progress
from posttrain.data.check import SHOWN_PROBLEMS, Spread, found_rows, grouped
from posttrain.data.fitting import DoesNotFit, Fitted, Limit, fit
from posttrain.models import LanguageModel
from posttrain.models.compute import FLOAT32_CPU
from posttrain.models.load import load_model_of
from posttrain.rollout import fitting_prompt
from posttrain.rows import PreferenceRow, Row, StepwiseRow, UnpairedRow, row_texts
from posttrain.train.dpo.data import encode_example
from posttrain.train.reward_model.process import encode_solution, separator_of
from posttrain.train.sft import encode_row
from posttrain.types import InputError, Task

Encode = Callable[[Any, Limit], tuple[list[Ids], bool]]
"""A row as the token rows that are trained (of a task its prompt) within a limit, and whether any was cut."""


@dataclass(frozen=True)
class TokenReport:
    """What a model makes of the rows that could be read.

    `tokens`: of the rows that fit, before any is cut; one of more than `counted` counts as that. `cut`, `unknown` and
    `special` say where rows stand that are cut, hold text for which the tokenizer has no token, or hold its special
    tokens in their text. `problems` are rows of which the chat template loses something or that it refuses (see
    `data.check.grouped`)."""

    model: str
    limit: Limit
    strict: bool
    fitted: Fitted[None]
    tokens: Spread | None
    counted: int
    cut: tuple[str, ...]
    unknown: tuple[str, ...]
    special: tuple[str, ...]
    problem_count: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No row is wrong, and with `strict` none is left out."""
        return not self.problem_count and not (self.strict and self.fitted.left_out)


def check_tokens(config: CheckDataConfig) -> TokenReport:
    """Encode every row of `config.file` as a run would. Raises InputError for a model that cannot be loaded."""
    rows = [(where, row) for where, row in found_rows(config.file, config.columns) if not isinstance(row, InputError)]
    lm = load_model_of(config, str(config.model), compute=FLOAT32_CPU)  # it computes nothing
    limit = Limit.of(config.max_length, lm.context)
    chat = lm.chat_within(limit.tokens)
    longest = chat.longest or lm.context
    encode = _encoder(config, chat, lm, [row for _, row in rows])
    problems: list[tuple[str, str]] = []
    lengths: list[float] = []
    cut: list[str] = []
    unknown: list[str] = []
    sign = _unknown_token(lm)

    def ready(numbered: tuple[int, tuple[str, Row]]) -> tuple[list[None], bool]:
        number, (where, row) = numbered
        progress.advance(number, {})
        try:
            kept, shortened = encode(row, limit)
            whole = encode(row, Limit.of(longest, longest))[0] if shortened else kept
        except DoesNotFit:
            raise
        except InputError as error:
            problems.append((where, str(error)))
            return [], False
        lengths.append(max(map(len, whole)))
        cut.extend([where] * shortened)
        unknown.extend([where] * any(sign in ids for ids in kept))
        return [], shortened

    with Progress("check data", len(rows), unit="rows") as progress:
        fitted = fit(enumerate(rows, start=1), ready)
    return TokenReport(
        lm.name,
        limit,
        config.strict,
        fitted,
        Spread.of(lengths),
        longest,
        tuple(cut),
        tuple(unknown),
        tuple(where for where, row in rows if chat.special_token_in(row_texts(row)) is not None),
        len(problems),
        tuple(grouped(problems)[:SHOWN_PROBLEMS]),
    )


def format_tokens(report: TokenReport) -> str:
    fitted = report.fitted
    lines = [f"with {report.model}, where {report.limit.text}:"]
    if report.tokens is not None:
        more = f" (longer rows count as {report.counted})" if report.tokens.most >= report.counted else ""
        lines.append(f"tokens of a row: {report.tokens.text()}{more}")
    for name, places in (
        ("cut", report.cut),
        ("unknown to the tokenizer", report.unknown),
        ("special tokens in the text", report.special),
    ):
        if places:
            lines.append(f"{name}: {len(places)} of {fitted.rows} rows, the first at {', '.join(places[:3])}")
    if fitted.left_out:
        lines.append(f"left out, as they do not fit: {len(fitted.left_out)} of {fitted.rows} rows:")
        lines += [f"  {row}" for row in grouped((row.where, row.reason) for row in fitted.left_out)[:SHOWN_PROBLEMS]]
    if report.problem_count:
        lines.append(f"problems with the model: {report.problem_count} of {fitted.rows} rows:")
        lines += [f"  {problem}" for problem in report.problems]
    else:
        lines.append("problems with the model: none")
    return "\n".join(lines)


def _encoder(config: CheckDataConfig, chat: ChatFormat, lm: LanguageModel, rows: Sequence[Row]) -> Encode:
    """How the method that the rows are for encodes one; all are of one kind."""
    first = rows[0] if rows else None

    def examples(row: Any, limit: Limit) -> tuple[list[Ids], bool]:
        example, cut = encode_example(chat, row, limit)
        return [example.prompt_ids + ids for ids in example.responses], cut

    def steps(row: Any, limit: Limit) -> tuple[list[Ids], bool]:
        solution, cut = encode_solution(chat, row, limit, separator)
        return [solution.token_ids], cut

    def prompts(task: Any, limit: Limit) -> tuple[list[Ids], bool]:
        return [fitting_prompt(lm.chat, task, lm.context, config.max_new_tokens, config.file)], False

    def conversations(row: Any, limit: Limit) -> tuple[list[Ids], bool]:
        encoded, cut = encode_row(chat, row, limit)
        return [e.token_ids for e in encoded], cut

    if isinstance(first, PreferenceRow | UnpairedRow):
        return examples
    if isinstance(first, StepwiseRow):
        separator = separator_of([row for row in rows if isinstance(row, StepwiseRow)])
        return steps
    return prompts if isinstance(first, Task) else conversations


def _unknown_token(lm: LanguageModel) -> int | None:
    """The token for what the tokenizer has no token for, unless that has another meaning too."""
    unknown: int | None = lm.tokenizer.unk_token_id
    others = {lm.tokenizer.bos_token_id, lm.tokenizer.pad_token_id, *lm.chat.end_ids}
    return None if unknown in others else unknown
