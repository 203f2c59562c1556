"""What every event of a call says about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kitaru_nb.core.engine import Call

#: Of an input's preview so many characters are kept.
INPUT_PREVIEW = 200


def describe(call: Call, started_at: float | None, preview: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """The body of ``checkpoint.started`` (see `kitaru_nb.journal.base`), and the beginning of those that follow it."""
    body: dict[str, Any] = {
        "name": call.name,
        "inputs": [
            [i.name, i.token, preview(i.value)["text"][:INPUT_PREVIEW], *([sources] if sources else ())]
            for i, sources in zip(call.inputs, call.sources or [[]] * len(call.inputs), strict=True)
        ],
    }
    if call.type is not None:
        body["type"] = call.type
    if call.frame.call_id:
        body["parent"] = call.frame.call_id
    if call.place is not None:
        body["place"] = call.place
        if call.frame.scope != call.frame.call_id:
            body["within"] = call.frame.scope
    if call.code is not None:
        body["code"] = call.code
    if call.after:
        body["after"] = list(call.after)
    if call.overridden:
        body["overridden_inputs"] = list(call.overridden)
    if started_at is not None:
        body["started_at"] = started_at
    return body
