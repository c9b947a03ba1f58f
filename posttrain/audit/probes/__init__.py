"""The probes of an audit, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.audit.probes.base import Probe
from posttrain.audit.probes.degenerate import degenerate
from posttrain.audit.probes.searched import searched
from posttrain.audit.probes.swapped import swapped

PROBES: Mapping[str, tuple[str, Probe]] = {
    "A1": ("answers without content, and one answer to all tasks", degenerate),
    "A7": ("the reference answers of other tasks", swapped),
    "A17": ("a search for wrong answers that are paid", searched),
}
"""The title and the function of each probe."""
