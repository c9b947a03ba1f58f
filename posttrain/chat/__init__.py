"""Between conversations and token ids: chat templates, trained spans, end tokens, tool calls.

`format` is what the rest uses; `template` writes conversations as text, `pieces` text as tokens, and `calls` reads
tool calls out of sampled text.
"""

from posttrain.chat.calls import ParsedTurn
from posttrain.chat.format import ChatFormat, EncodedPair, EncodedRow
from posttrain.chat.pieces import Ids

__all__ = ["ChatFormat", "EncodedPair", "EncodedRow", "Ids", "ParsedTurn"]
