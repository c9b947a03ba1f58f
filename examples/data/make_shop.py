"""Purchases by a tool: conversations to imitate, and tasks for the environment `examples/my_env.py:Shop`."""

from __future__ import annotations

import random
from typing import Any

Row = dict[str, Any]

ITEMS = ("apples", "pears", "plums", "figs", "limes", "melons", "grapes", "dates")
ASKS = ("Buy {} {}.", "I need {} {}, please.", "Get me {} {}.")
BUY: Row = {
    "type": "function",
    "function": {
        "name": "buy",
        "description": "Buy something.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string", "description": "What to buy."},
                "count": {"type": "integer", "description": "How many."},
            },
            "required": ["item"],
        },
        "return": {"type": "string"},
    },
}
"""The tool as the environment offers it."""


def files() -> dict[str, list[Row]]:
    """The rows by file name; no request is in both."""
    purchases = [(ask, item, count) for ask in ASKS for item in ITEMS for count in range(1, 7)]
    draw = random.Random(5)
    draw.shuffle(purchases)
    rows = [(ask.format(count, item), item, count, draw.randint(count, 9)) for ask, item, count in purchases]
    return {
        "shop_demos.jsonl": [demo(*row) for row in rows[:48]],
        "shop_tasks.jsonl": [
            {"prompt": asked, "item": item, "count": count, "budget": budget}
            for asked, item, count, budget in rows[48:]
        ],
    }


def demo(asked: str, item: str, count: int, budget: int) -> Row:
    """A conversation in which the model buys what is asked for; the budget stands where the environment writes it."""
    call = {"name": "buy", "arguments": {"item": item, "count": count}}
    messages = [
        {"role": "user", "content": f"{asked}\nYou have {budget} coins."},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": f"{budget - count} coins left"},
        {"role": "assistant", "content": f"Bought {count} {item}."},
    ]
    return {"messages": messages, "tools": [BUY]}
