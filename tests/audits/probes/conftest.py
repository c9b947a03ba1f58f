from __future__ import annotations

import pytest

from posttrain.audits.subject import Subject
from posttrain.rewards.scorer import Scorer


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes grade in the test's process what they would grade in a worker of its own."""

    def apart(self: Subject, seconds: float | None = None, server: str = "") -> Scorer:
        return Scorer(self.scorer.specs, columns=self.scorer.columns, timeout_seconds=60, workers=0)

    monkeypatch.setattr(Subject, "apart", apart)
