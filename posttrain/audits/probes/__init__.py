"""The probes of an audit, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.audits.probes.base import Probe
from posttrain.audits.probes.code.exploits import exploits
from posttrain.audits.probes.code.strength import strength
from posttrain.audits.probes.composite import composite
from posttrain.audits.probes.degenerate import degenerate
from posttrain.audits.probes.degraded import degraded
from posttrain.audits.probes.format_only import format_only
from posttrain.audits.probes.many_answers import many_answers
from posttrain.audits.probes.models.best_of_n import under_selection
from posttrain.audits.probes.near_misses import misses, undone
from posttrain.audits.probes.no_variance import no_variance
from posttrain.audits.probes.recall import recall
from posttrain.audits.probes.robust.hostile import hostile
from posttrain.audits.probes.robust.purity import purity
from posttrain.audits.probes.searched import searched
from posttrain.audits.probes.style.padding import padding
from posttrain.audits.probes.style.styles import styles
from posttrain.audits.probes.style.sycophancy import sycophancy
from posttrain.audits.probes.swapped import swapped

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
