"""A whole listing that a caller causes and does not wait for: by the queue on AWS, by a thread in `serve`."""

from contextlib import suppress

from ..errors import Conflict
from .lookup import SourcePlan, best_effort

_AGAIN = 120                                # seconds before a source is sent again: as long as a refresh may take
_REMEMBERED = 4096                          # sources beyond which a process forgets what is over


def list_later(plan: SourcePlan) -> None:
    """Have the plan's source listed, unless somebody's snapshot is as fresh as its caller accepts by then. Of many
    callers, in any process, one sends it."""
    later, now = plan.deployment.later, plan.deployment.clock()
    if later.send is None or was_tried(plan):
        return
    note_try(plan)
    with best_effort(plan), suppress(Conflict):         # a conflict: another process has sent it
        plan.store.put("lease", f"{plan.key}/later", b"", version=0, expires=int(now) + _AGAIN)
        later.send(plan.source, plan.arrived - plan.freshness.max_age)


def was_tried(plan: SourcePlan) -> bool:
    """Whether this process has sent the plan's source, or failed to list it for others, in the last two minutes."""
    return plan.deployment.clock() - plan.deployment.later.sent.get(plan.key, 0.0) < _AGAIN


def note_try(plan: SourcePlan) -> None:
    sent, now = plan.deployment.later.sent, plan.deployment.clock()
    if len(sent) >= _REMEMBERED:
        for key in [key for key, at in list(sent.items()) if now - at >= _AGAIN]:
            sent.pop(key, None)
    sent[plan.key] = now
