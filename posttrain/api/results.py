"""What Python's functions give back; each shows itself in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from posttrain.api.inputs import Folder, Written, checked_config, folder_of
from posttrain.api.words import in_python, speaks_python
from posttrain.config import ChatConfig
from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.runs import reader, records
from posttrain.runs.audit import AuditRecord, worst
from posttrain.runs.comparison import Comparison as Compared
from posttrain.runs.comparison import label, label_note, read_comparison, run_folders, sections
from posttrain.runs.reader import Position, Tail
from posttrain.runs.table import Table
from posttrain.stats import FEW_TASKS
from posttrain.threads import configure_threads
from posttrain.types import InputError, Message, Prompt, Sampling

if TYPE_CHECKING:
    from typing import Unpack

    from posttrain.api.options import ChatOptions

Asked = str | Sequence[Mapping[str, Any]]
"""A question, or a conversation as messages with `role` and `content`."""


@dataclass(frozen=True)
class Report:
    """A page that was written; a notebook shows it inline."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" width="100%" height="640" style="border:1px solid #ccc"></iframe>'


@dataclass(frozen=True)
class Run(reader.Run):
    """A run folder (see `runs.reader.Run`), whose model can be asked and whose page can be written."""

    def __str__(self) -> str:
        from posttrain.report.run_view import RunView, run_opening

        return f"{self.path}: {run_opening(RunView(self, self.name)).sentence}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>{self.metrics._repr_html_()}"

    @property
    def events(self) -> Table:
        return _told(super().events)

    def tail(self, since: tuple[Position, Position] | None = None) -> Tail:
        found = super().tail(since)
        return replace(found, events=_told(found.events))

    @property
    def evaluations(self) -> dict[str, records.Evaluation]:
        return {name: Evaluation(**vars(found)) for name, found in super().evaluations.items()}

    def report(self) -> Report:
        """Write the run's page, `report.html`."""
        return write_report(self)

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, prompts: str | Sequence[Mapping[str, Any]], **options: Unpack[ChatOptions]
    ) -> str: ...
    @overload
    def generate(self, prompts: Sequence[Asked], **options: Unpack[ChatOptions]) -> list[str]: ...
    @speaks_python
    def generate(self, prompts: Any, **options: Any) -> str | list[str]:
        """The model's answer to a text or a conversation (messages with `role` and `content`), or its answers to a list
        of these. Options are `temperature` (default 0.7; 0 always takes the most likely token), `top_p`,
        `max_new_tokens`, `seed`, `system`, `chat_template` and `trust_remote_code`. Raises InputError for a prompt that
        does not fit."""
        from posttrain.engine.base import Request

        config = checked_config(ChatConfig, {"model": str(self.path), **options})
        alone = isinstance(prompts, str) or (bool(prompts) and isinstance(prompts[0], Mapping))
        lm, engine = self._loaded(config)
        sampling = Sampling(config.max_new_tokens, config.temperature, top_p=config.top_p)
        asked = [_prompt(prompt, config.system) for prompt in ([prompts] if alone else prompts)]
        requests = [Request(i, tuple(lm.chat.prompt_ids(p)), sampling, config.seed + i) for i, p in enumerate(asked)]
        answers = {i: lm.chat.decode(completion.token_ids) for i, completion in engine.generate(requests)}
        texts = [answers[i] for i in range(len(asked))]
        return texts[0] if alone else texts

    def _loaded(self, config: ChatConfig) -> tuple[Any, Any]:
        """The model and an engine for it, kept for the next prompt."""
        kept: dict[Any, Any] = self.__dict__.setdefault("_kept", {})
        key = config.chat_template, config.trust_remote_code, config.device, config.dtype
        if key not in kept:
            configure_threads()
            from posttrain.engine.open import Slots, open_engine
            from posttrain.models import load_model
            from posttrain.models.compute import compute_for

            lm = load_model(
                str(self.path),
                raw=bool(self.config.get("raw")),
                compute=compute_for(config),
                trust_remote_code=config.trust_remote_code,
                chat_template=config.chat_template,
            )
            kept[key] = lm, open_engine(Slots(), lm)
        found: tuple[Any, Any] = kept[key]
        return found


def _told(events: Table) -> Table:
    """Events whose texts name options as Python writes them."""
    return Table({k: in_python(v) if isinstance(v, str) else v for k, v in row.items()} for row in events)


def _prompt(given: Any, system: str | None) -> Prompt:
    if isinstance(given, str) and system is None:
        return given
    asked = (Message("user", given),) if isinstance(given, str) else tuple(map(Message.from_dict, given))
    return asked if system is None else (Message("system", system), *asked)


@speaks_python
def write_report(folder: Folder) -> Report:
    """Write the HTML page of a run, a comparison, an audit or a recipe's folder. Raises InputError for what was not
    written."""
    from posttrain.report import html

    return Report(html.write_report(folder_of(folder)))


@dataclass(frozen=True, repr=False)
class Evaluation(records.Evaluation):
    """Values of a model on tasks: `rows` has a row a task with its answers, `table` the means with 95% intervals over
    `n` tasks, None where these are too few to tell."""

    @property
    def table(self) -> Table:
        from posttrain.evals.run import summarise

        found = summarise(self.rows).items()
        return Table({"measure": label(name, self.graded), **estimate} for name, estimate in found)

    def __str__(self) -> str:
        return "\n".join(map(str, (self.table, *self._notes)))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_() + "".join(f"<p>{escape(note)}</p>" for note in self._notes)

    @property
    def _notes(self) -> list[str]:
        named = [] if self.suite == RETENTION_SUITE else [label_note(self.graded)]
        return [f"95% intervals over n tasks; below {FEW_TASKS}, values other than 0 and 1 have none", *named]


@dataclass(frozen=True, repr=False)
class Comparison(Written):
    """Runs side by side. `data` is what `compare.json` holds, `runs` the runs by name, `path` the folder where the
    comparison and its page were written, None where they were not."""

    data: Compared
    runs: Mapping[str, Run]
    path: Path | None = None

    @classmethod
    def load(cls, folder: Path) -> Comparison:
        """Read a comparison from the `compare.json` of a folder. Raises InputError if that is missing."""
        if not (folder / "compare.json").exists():
            raise InputError(f"{folder}: holds no comparison (compare.json is missing)")
        data = read_comparison(folder)
        places = run_folders(folder, data)
        return cls(data, {name: Run(place) for name, place in places.items() if place.is_dir()}, folder)

    @property
    def tables(self) -> dict[str, Table]:
        """A table a suite of evaluations, shares in per cent and intervals in brackets; and what each run cost."""
        from posttrain.report.tables import cost_table, result_table

        drawn = [*map(result_table, sections(self.data)), cost_table(self.data)]
        return {
            t.title: Table({"run": row.name, **dict(zip(t.head, row.cells, strict=True))} for row in t.rows)
            for t in drawn
        }

    @property
    def sentences(self) -> list[str]:
        """What the comparison shows, in words."""
        from posttrain.report.words import summary

        return [in_python(sentence) for sentence in summary(self.data)]

    def report(self) -> Report:
        """The page. Raises InputError where the comparison was not written."""
        return write_report(self)

    def __str__(self) -> str:
        tables = [f"{title}\n{table}" for title, table in self.tables.items()]
        return "\n\n".join([*tables, "\n".join(f"- {sentence}" for sentence in self.sentences)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = [f"<h4>{escape(title)}</h4>{table._repr_html_()}" for title, table in self.tables.items()]
        return "".join([*tables, "<ul>", *(f"<li>{escape(s)}</li>" for s in self.sentences), "</ul>"])


@dataclass(frozen=True)
class Audit(Written):
    """What `audit` has found. `record` is what `audit.json` holds, `path` the folder of the audit, None where it was
    not written. `ok`: no finding is critical."""

    record: AuditRecord
    path: Path | None = None

    @property
    def ok(self) -> bool:
        return worst(self.record["findings"]) != "critical"

    @property
    def findings(self) -> Table:
        """The findings from the worst: severity, probe, what is paid that should not be, how much of it, and the answer
        that shows it."""
        from posttrain.report.audit import wrapped_rewards

        return Table(
            {
                "severity": each["severity"],
                "probe": each["probe"],
                "title": each["title"],
                each["measure"]: each["effect"]["value"],
                "response": each["reproducer"] and each["reproducer"]["response"],
                "wrapper": wrapped_rewards(self.record, each),
            }
            for each in self.record["findings"]
        )

    def __str__(self) -> str:
        from posttrain.report.audit import audit_words

        lines = audit_words(self.record)  # a command that grades an answer again is for a shell
        return "\n".join(line if line.startswith("   posttrain ") else in_python(line) for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def report(self) -> Report:
        """The page. Raises InputError where the audit was not written."""
        return write_report(self)


@dataclass(frozen=True)
class DataReport:
    """What `check_data` has found. `ok`: no row has a problem."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__
