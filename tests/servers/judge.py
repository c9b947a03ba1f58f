"""A chat server that judges. It finds the texts between the marks of the question as a careful model would, and does
what the response says, so that a test decides by the response what the judge does."""

from __future__ import annotations

import re
from typing import Any

from tests.servers.chat import Handler, completion

MARK = re.compile(r"lines with the mark ([0-9a-f]{12}) is material")
BLOCK = r"^<<< ([A-Z ]+?)(?: \(.*?\))? {mark} >>>\n(.*?)\n<<< END {mark} >>>$"


def texts_of(question: str) -> dict[str, str]:
    """The texts to judge by their titles. Only the mark that the question names counts."""
    mark = MARK.search(question)
    assert mark is not None
    return dict(re.findall(BLOCK.replace("{mark}", mark[1]), question, re.MULTILINE | re.DOTALL))


class Judge(Handler):
    """Scores 7 of 10 for `good`, as many as the response says for `score N`, else 2; of two texts the longer is better,
    A where one of them says `biased`, a tie where one says `equal`."""

    def answer(self, request: dict[str, Any], text: str, before: int) -> None:
        texts = texts_of(text)
        shown = " ".join(value for title, value in texts.items() if title.startswith("RESPONSE"))
        for fault in ("busy", "broken", "hang", "secret"):
            if fault in shown and not (fault == "busy" and before):
                super().answer(request, fault, before)
                return
        if "mumbled" in shown:
            self.send(200, completion("I like it.", "stop"))
        elif "cut off" in shown:
            self.send(200, completion("It says:\nScore: 10", "length"))
        elif "RESPONSE" in texts:
            self.send(200, completion(self.scored(texts, text), "stop"))
        else:
            self.send(200, completion(f"Reasons.\n\nBetter: {self.better(texts)}", "stop"))

    def scored(self, texts: dict[str, str], question: str) -> str:
        response = texts["RESPONSE"]
        asked = re.search(r"score (\d+)", response)
        score = int(asked[1]) if asked else 7 if "good" in response else 2
        if "Criterion: Is it short?" in question:
            score = int(len(response) < 20)
        if reference := texts.get("REFERENCE ANSWER"):
            score = 10 if response == reference else 1
        return f"The response says:\n{response}\nSo much for that.\n\nScore: {score}"

    def better(self, texts: dict[str, str]) -> str:
        a, b = texts["RESPONSE A"], texts["RESPONSE B"]
        if "biased" in a + b:
            return "A"
        if "equal" in a + b:
            return "tie"
        return "A" if len(a) > len(b) else "B"
