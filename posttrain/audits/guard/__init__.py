"""What decides that an answer is wrong; it shares no code with any reward."""

from posttrain.audits.guard.decide import Guard, Judge

__all__ = ["Guard", "Judge"]
