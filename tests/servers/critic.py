"""A chat server that answers, criticises and revises: what it says follows from how often it has been asked."""

from __future__ import annotations

from typing import Any

from tests.servers.chat import Handler, completion


class Critic(Handler):
    """To the prompt `p` it says `p: first`; its critique names the principle; its revisions are `p: revised` and then
    `p: revised twice`. Prompts of certain names make it fail."""

    def answer(self, request: dict[str, Any], text: str, before: int) -> None:
        prompt, *turns = [message["content"] for message in request["messages"]]
        if prompt == "refused":
            self.send(400, {"error": {"message": "no"}})
        elif not turns:
            said = "" if prompt == "silent" else f"{prompt}: first"
            self.send(200, completion(said, "length" if prompt == "endless" else "stop"))
        elif len(turns) == 2:
            principle = "kind" if "is kind" in text else "short"
            self.send(200, completion(f"not {principle}", "length" if prompt == "critique cut" else "stop"))
        else:
            self.send(200, completion(f"{prompt}: revised" + " twice" * turns[0].endswith("revised"), "stop"))
