"""Python in the sandbox as a tool."""

from __future__ import annotations

import time

from posttrain.sandbox.box import Box, BoxLost

OUTPUT_BYTES = 1 << 20
"""A program that writes more is stopped."""
PROGRAM = """\
import linecache, os, sys, traceback
os.dup2(1, 2)
source = {source!r}
linecache.cache["<code>"] = (len(source), None, [line + "\\n" for line in source.split("\\n")], "<code>")
try:
    exec(compile(source, "<code>", "exec"), {{"__name__": "__main__"}})
except Exception as error:
    sys.stdout.flush()
    error.__traceback__ = error.__traceback__.tb_next
    traceback.print_exception(error)
    sys.exit(1)
"""
"""What the sandbox runs: the code with its errors beside its output, and without our frames in the traceback."""


class Python:
    """One tool, `python`, which runs a program in a sandbox of its own: no network, no files of this machine, no
    memory of the call before. `seconds` is what one call may take, processor time and wall-clock time alike.

    It has no reward of its own. Raises InputError where no sandbox starts, see `rewards.sandbox`."""

    def __init__(self, *, seconds: float = 5.0, allow_unsafe: bool = False) -> None:
        self._seconds = seconds
        self._unsafe = allow_unsafe
        Box("candidate", seconds, allow_unsafe).close()  # where none starts it is no fault of what the model writes

    def reset(self) -> None: ...

    def python(self, code: str) -> str:
        """Run a Python program and return what it prints. Nothing is kept from one call to the next.

        Args:
            code: The program; print what you want to see.

        Returns:
            Standard output and errors.
        """
        with Box("candidate", self._seconds, self._unsafe) as box:
            deadline = time.monotonic() + self._seconds
            program = PROGRAM.format(source=code)
            try:
                box.send({"sources": [("", program)], "stdin": b""}, deadline)
                output, status = box.output(OUTPUT_BYTES, deadline)
            except BoxLost as lost:
                return f"error: the program was stopped: {lost}"
        text = output.decode(errors="replace")
        if status not in (0, 1) or (status and not text):
            return f"{text}error: the program ended with status {status}"
        return text or "(no output)"
