"""A worker that tells the date that it would write into chat templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from posttrain.chat.template_date import template_date


class Today:
    def answer(self, request: Any) -> Iterator[dict[str, str]]:
        yield {"day": template_date().isoformat()}
