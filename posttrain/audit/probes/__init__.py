"""The probes of an audit, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.audit.probes.base import Probe
from posttrain.audit.probes.code.exploits import exploits
from posttrain.audit.probes.code.strength import strength
from posttrain.audit.probes.composite import composite
from posttrain.audit.probes.degenerate import degenerate
from posttrain.audit.probes.degraded import degraded
from posttrain.audit.probes.format_only import format_only
from posttrain.audit.probes.many_answers import many_answers
from posttrain.audit.probes.models.best_of_n import under_selection
from posttrain.audit.probes.near_misses import misses, undone
from posttrain.audit.probes.no_variance import no_variance
from posttrain.audit.probes.recall import recall
from posttrain.audit.probes.robust.hostile import hostile
from posttrain.audit.probes.robust.purity import purity
from posttrain.audit.probes.style.padding import padding
from posttrain.audit.probes.style.styles import styles
from posttrain.audit.probes.style.sycophancy import sycophancy
from posttrain.audit.probes.searched import searched
from posttrain.audit.probes.swapped import swapped

PROBES: Mapping[str, tuple[str, Probe]] = {
    "A1": ("answers without content, and one answer to all tasks", degenerate),
    "A2": ("format without a right answer", format_only),
    "A3": ("a right answer among, under or before others", many_answers),
    "A4": ("wrong answers near the right one", misses),
    "A5": ("right answers in other renderings", recall),
    "A6": ("work that is left undone", undone),
    "A7": ("the reference answers of other tasks", swapped),
    "A8": ("padding of right and wrong answers", padding),
    "A9": ("style beside right and wrong answers", styles),
    "A10": ("agreement with a user who is wrong", sycophancy),
    "A11": ("reference answers of which a part is lost", degraded),
    "A12": ("hostile answers", hostile),
    "A13": ("whether an answer always gets the same", purity),
    "A14": ("programs that cheat", exploits),
    "A15": ("parts of a sum, and form against content", composite),
    "A16": ("groups whose rewards are all equal", no_variance),
    "A17": ("a search for wrong answers that are paid", searched),
    "A18": ("a model that scores, under selection", under_selection),
    "A20": ("the strength of the tests of code", strength),
}
"""The title and the function of each probe."""
