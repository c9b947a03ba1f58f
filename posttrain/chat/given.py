"""Chat templates that replace the tokenizer's own: a Jinja file of the user, or one that we ship."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def shipped_templates() -> list[str]:
    """Their names."""
    return sorted(Path(file.name).stem for file in _folder().iterdir() if file.name.endswith(".jinja"))


def template_text(given: str) -> str:
    """The template that `--chat-template` names. Raises InputError for a file that does not exist."""
    if given in shipped_templates():
        return (_folder() / f"{given}.jinja").read_text(encoding="utf-8")
    file = Path(given)
    if not file.is_file():
        names = ", ".join(shipped_templates())
        raise InputError(f"--chat-template {given}: no such file; give a Jinja file, or the name of a shipped: {names}")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--chat-template {given}: cannot be read as UTF-8 text ({error})") from None
    if not text.strip():
        raise InputError(f"--chat-template {given}: is empty")
    return text


def template_hash(text: str) -> str:
    """SHA-256 of a template's text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def put(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Let the tokenizer write conversations by this template, and be saved with it. What the old one's answers were
    read by goes with the old one."""
    loaded: Any = tokenizer
    loaded.chat_template = text
    if getattr(loaded, "response_template", None) is not None:
        loaded.response_template = None


def _folder() -> Any:
    return resources.files("posttrain.chat") / "templates"
