"""A small suite that shows what training made a model forget."""

from posttrain.evals.retention.retention import (
    KINDS,
    MAX_NEW_TOKENS,
    Kind,
    RetentionItem,
    as_tasks,
    retention_tasks,
    retention_text,
    score_retention,
)

__all__ = [
    "KINDS",
    "MAX_NEW_TOKENS",
    "Kind",
    "RetentionItem",
    "as_tasks",
    "retention_tasks",
    "retention_text",
    "score_retention",
]
