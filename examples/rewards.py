"""The four reward functions of every tutorial, as tutorials write them.

    python examples/rewards.py
    posttrain score --reward examples/rewards.py:boxed_math --data rows.jsonl

They show how rewards are written, and each can be cheated: docs/rewards.md shows how, and what to use in their place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

UNSAFE = ("bomb", "poison", "explosive")


def boxed_math(response: str, answer: str) -> float:
    r"""1.0 if the first `\boxed{}` holds the answer, letter by letter, else 0.0."""
    found = re.search(r"\\boxed\{(.*?)\}", response)
    return 1.0 if found and found.group(1).strip() == answer else 0.0


def code_tests(prompt: str, response: str, entry_point: str | None = None, cases: Sequence[Any] | None = None) -> Any:
    """The share of the cases that the function in the response passes, run in a sandbox. Range [0, 1]."""
    from posttrain.rewards.code.reward import code

    return code(prompt=prompt, response=response, entry_point=entry_point, cases=cases)


def learned(prompt: str, response: str, model_path: str) -> float:
    """The score that a sequence classification model with one label gives the text. No fixed range.

    `model_path` is a folder or a name on the hub, a column or an option: `learned(model_path="...")`."""
    import torch

    tokenizer, model, window = _reward_model(model_path)
    tokens = tokenizer(prompt + "\n" + response, return_tensors="pt", truncation=True, max_length=window)
    with torch.no_grad():
        return float(model(**tokens).logits[0, 0])


def assistant(response: str, answer: str) -> dict[str, float]:
    """0.5 helpful + 0.3 safe + 0.2 concise, each in [0, 1] and logged as a part.

    Helpful: the share of the words of the reference `answer` that occur in the response. Safe: no unsafe word in it.
    Concise: 1 up to 50 words, then falling to 0 at 150."""
    words, wanted = re.findall(r"\w+", response.lower()), set(re.findall(r"\w+", answer.lower()))
    helpful = len(wanted & set(words)) / len(wanted) if wanted else 1.0
    safe = float(not set(UNSAFE) & set(words))
    concise = min(1.0, max(0.0, (150 - len(words)) / 100))
    parts = {"helpful": helpful, "safe": safe, "concise": concise}
    return {"score": 0.5 * helpful + 0.3 * safe + 0.2 * concise, **parts}


@cache
def _reward_model(path: str) -> tuple[Any, Any, int]:
    """Tokenizer, model and the most tokens it reads; loaded once a process."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForSequenceClassification.from_pretrained(path)
    if model.config.num_labels != 1:
        raise ValueError(f"{path} has {model.config.num_labels} labels; a reward model has one")
    return tokenizer, model.eval(), model.config.max_position_embeddings


def main() -> None:
    for response in (r"It is \boxed{4}.", "It is 4.", r"Not \boxed{4} but \boxed{5}."):
        print(f"boxed_math {boxed_math(response, answer='4'):4.1f}  {response}")
    for response in ("Paris is the capital of France.", "", "paris capital france the of is"):
        print(f"assistant  {assistant(response, 'Paris is the capital of France')['score']:4.1f}  {response!r}")


if __name__ == "__main__":
    main()
