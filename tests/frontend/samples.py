"""Values that the pages show, made of the model's own classes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import matplotlib as mpl
from pydantic import BaseModel, Field, TypeAdapter

from kitaru_nb.model import (
    Artifact,
    CallInput,
    CheckpointAttempt,
    CheckpointCall,
    Execution,
    ExecutionStatus,
    FailureInfo,
    LogEntry,
    Wait,
)

NOW = datetime.now(timezone.utc)
EXEC = "kr-3m9x2q7d0a1b"
OTHER = "kr-3m9x0000zzzz"
HOSTILE = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\u202egnp.exe\x1b[31m\x00 "quoted" &amp;'
)


def picture() -> bytes:
    """A small plot as PNG."""
    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2.2))
    axes = figure.subplots()
    axes.plot([1, 3, 2, 5, 4, 6])
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def artifact(call: str | None, name: str, text: str, **more: Any) -> Artifact:
    """An artifact that shows ``text``."""
    values: dict[str, Any] = {
        "artifact_id": f"{EXEC}/{call or ''}/{name}",
        "name": name,
        "kind": "output",
        "serializer": "json",
        "python_type": "builtins.str",
        "media_type": "application/json",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "size": len(text),
        "preview": {"text": text},
        "exec_id": EXEC,
        "producing_call": call,
    }
    return Artifact(**(values | more))


def call(call_id: str, seconds: float = 1.0, start: float = 0.0, **more: Any) -> CheckpointCall:
    """A checkpoint that ran."""
    name = more.pop("name", call_id)
    started = NOW - timedelta(minutes=3) + timedelta(seconds=start)
    values: dict[str, Any] = {
        "call_id": call_id,
        "name": name,
        "selector": name,
        "checkpoint_type": None,
        "status": "completed",
        "started_at": started,
        "ended_at": started + timedelta(seconds=seconds),
        "artifacts": (artifact(call_id, "output", f"what {name} made"),),
        "attempts": (CheckpointAttempt(f"{call_id}.1", "completed", started, started + timedelta(seconds=seconds)),),
    }
    return CheckpointCall(**(values | more))


def read(name: str, source: str, preview: str = "…") -> CallInput:
    """An input that came from ``source``."""
    return CallInput(name, None, preview, (source,))


def model_call(call_id: str, parent: str, start: float, *, reused: bool = False, text: str = "") -> CheckpointCall:
    """A call of a language model inside ``parent``."""
    return call(
        call_id,
        2.4,
        start,
        parent=parent,
        name="analyst.model",
        selector=f"analyst.model#{call_id[-1]}",
        checkpoint_type="model_call",
        status="reused" if reused else "completed",
        metadata={
            "model": "gpt-5-mini",
            "input_tokens": 1840,
            "output_tokens": 212,
            "cost": 0.0031,
            "preview": text or "→ search(query='battery prices 2026')",
        },
    )


def calls() -> list[CheckpointCall]:
    """A flow with an agent, tools, a table, a picture and a failed attempt that was retried."""
    frame = {
        "columns": ["region", "cells", "price", "note"],
        "rows": [
            ["EU", 1200, 98.5, "falling"],
            ["US", 950, 104.25, None],
            ["CN", 5400, 71.0, "<b>bold?</b>"],
            ["JP", 310, 111.75, "steady"],
        ],
        "shape": [4, 4],
    }
    failed = CheckpointAttempt(
        "load.1",
        "failed",
        NOW - timedelta(minutes=3),
        NOW - timedelta(minutes=3) + timedelta(seconds=2),
        FailureInfo(
            "connection reset by peer", "ConnectionResetError", "Traceback (most recent call last):\n  …", "user"
        ),
    )
    load = call("load", 3.2, 0, checkpoint_type="cell", inputs=(read("topic", "input:topic", "'battery cells'"),))
    table = artifact("load", "prices", "DataFrame 4 rows × 4 columns", preview={"text": "", "table": frame})
    table = replace(table, names=("prices",), media_type="application/vnd.apache.parquet", serializer="parquet")
    load = replace(load, artifacts=(table,), attempts=(failed, *load.attempts))
    chart = call("chart", 0.8, 4, checkpoint_type="cell", inputs=(read("prices", "load", "DataFrame 4 rows"),))
    shown = artifact("chart", "figure", "<Figure>", preview={"image": base64.b64encode(picture()).decode()})
    chart = replace(chart, artifacts=(replace(shown, media_type="image/png", size=len(picture())),))
    agent = call(
        "agent",
        14.6,
        5,
        name="analyst",
        checkpoint_type="agent_run",
        inputs=(read("prices", "load", "DataFrame 4 rows × 4 columns"), read("topic", "input:topic", "'battery'")),
        artifacts=(artifact("agent", "output", json.dumps({"headline": "Cell prices fall", "risk": 0.2})),),
    )
    inside = [
        model_call("m1", "agent", 5),
        call(
            "t1",
            0.6,
            8,
            parent="agent",
            name="search",
            checkpoint_type="tool_call",
            inputs=(read("arguments", "m1", '{"query": "battery prices 2026"}'),),
        ),
        model_call("m2", "agent", 9),
        call(
            "t2",
            1.1,
            12,
            parent="agent",
            name="read_page",
            checkpoint_type="tool_call",
            inputs=(read("arguments", "m2", "{}"),),
        ),
        model_call("m3", "agent", 14, text="Prices fell by 14 % since spring."),
    ]
    inside = [replace(c, after=(inside[i - 1].call_id,) if i else ()) for i, c in enumerate(inside)]
    brief = call(
        "brief",
        2.1,
        21,
        checkpoint_type="cell",
        status="reused",
        original_exec_id=OTHER,
        original_call_id="brief",
        inputs=(read("findings", "agent", "{…}"), read("figure", "chart", "<Figure>")),
    )
    publish = call("publish", 1, 30, status="running", ended_at=None, artifacts=(), inputs=(read("text", "brief"),))
    return [load, chart, agent, *inside, brief, publish]


class Address(BaseModel):
    """Where to send it."""

    street: str = Field(min_length=3)
    city: str = "Vienna"


class Decision(BaseModel):
    """What to do with the brief."""

    approved: bool
    channel: str = Field(json_schema_extra={"enum": ["mail", "blog", "nowhere"]})
    priority: int = Field(ge=1, le=5, description="1 is the most urgent.")
    budget: float | None = None
    comment: str = ""
    recipients: list[str] = Field(default_factory=list, max_length=3)
    address: Address | None = None


def wait(name: str = "approve", schema: Mapping[str, Any] | None = None, **more: Any) -> Wait:
    """A question that nobody has answered."""
    values: dict[str, Any] = {
        "wait_id": f"w-{name}",
        "exec_id": EXEC,
        "name": name,
        "question": "Publish this brief?\n\nCell prices fell by 14 % since spring, most of it in China.",
        "schema": schema or {"type": "boolean"},
        "status": "pending",
        "created_at": NOW - timedelta(minutes=2),
        "after": ("brief",),
    }
    return Wait(**(values | more))


def decision_schema() -> dict[str, Any]:
    """JSON Schema of a model with every kind of field."""
    return TypeAdapter(Decision).json_schema()


def execution(exec_id: str = EXEC, **more: Any) -> Execution:
    """The execution of `calls`, or another one in a list."""
    values: dict[str, Any] = {
        "exec_id": exec_id,
        "flow_name": "battery-brief",
        "status": ExecutionStatus.WAITING,
        "created_at": NOW - timedelta(minutes=3),
        "updated_at": NOW - timedelta(minutes=2),
        "inputs": {"topic": "'battery cells'", "limit": "4"},
        "metadata": {"source": "offline"},
        "waits": (wait(),),
    }
    return Execution(**(values | more))


def listed(count: int = 120) -> list[Execution]:
    """Executions of a page or two."""
    statuses = list(ExecutionStatus)
    flows = ["battery-brief", "invoice-check", "nightly-report", "support-agent"]
    found = [execution()]
    for i in range(1, count):
        status = statuses[(i * 5) % len(statuses)]
        created = NOW - timedelta(minutes=7 * i)
        ended = created + timedelta(seconds=11 * i % 400 + 0.4) if status.ended else None
        found.append(
            execution(
                f"kr-3m9w{i:08d}",
                flow_name=flows[i % 4],
                status=status,
                created_at=created,
                updated_at=ended or created + timedelta(minutes=1),
                ended_at=ended,
                original_exec_id=EXEC if i % 9 == 4 else None,
                deployment="battery-brief v3" if i % 11 == 5 else None,
                waits=(),
            )
        )
    return found


def node(kind: str, node_id: str, name: str, **more: Any) -> dict[str, Any]:
    """A node of a graph as it travels."""
    values: dict[str, Any] = {
        "node_id": node_id,
        "kind": kind,
        "name": name,
        "selector": name,
        "type": None,
        "status": "completed",
        "started_at": None,
        "ended_at": None,
        "duration": None,
        "tokens": 0,
        "cost": 0.0,
        "parent": None,
        "failure": None,
    }
    return values | more


def graph(made: Execution, of: list[CheckpointCall]) -> dict[str, Any]:
    """The graph of an execution as it travels."""
    nodes = [node("input", f"input:{name}", name, status="input") for name in made.inputs]
    for c in of:
        tokens = int(c.metadata.get("input_tokens", 0)) + int(c.metadata.get("output_tokens", 0))
        nodes.append(
            node(
                "checkpoint",
                c.call_id,
                c.name,
                selector=c.selector,
                type=c.checkpoint_type,
                status=c.status,
                duration=c.duration,
                tokens=tokens,
                cost=c.metadata.get("cost", 0.0),
                parent=c.parent,
            )
        )
    nodes += [node("wait", f"wait:{w.wait_id}", w.name, status=w.status) for w in made.waits]
    edges = [
        {"source": source, "target": c.call_id, "kind": "data"} for c in of for i in c.inputs for source in i.sources
    ]
    edges += [{"source": before, "target": c.call_id, "kind": "order"} for c in of for before in c.after]
    edges += [{"source": b, "target": f"wait:{w.wait_id}", "kind": "order"} for w in made.waits for b in w.after]
    edges += [{"source": c.parent, "target": c.call_id, "kind": "nested"} for c in of if c.parent]
    return {"exec_id": made.exec_id, "status": made.status.value, "seq": 100, "nodes": nodes, "edges": edges}


def big_graph(count: int) -> dict[str, Any]:
    """``count`` checkpoints: each reads one that came shortly before it, every tenth another one too."""
    nodes = [
        node("checkpoint", f"c{i}", f"step {i}", status="reused" if i % 7 else "completed", duration=0.01 * i)
        for i in range(count)
    ]
    edges = [{"source": f"c{i - 1 - i % 5}", "target": f"c{i}", "kind": "data"} for i in range(6, count)]
    edges += [{"source": f"c{i - 37}", "target": f"c{i}", "kind": "order"} for i in range(40, count, 10)]
    return {"exec_id": EXEC, "status": "completed", "seq": 9, "nodes": nodes, "edges": edges}


def logs() -> list[LogEntry]:
    """What was printed and logged."""
    lines = [
        ("load", "INFO", "stdout", "reading prices.csv"),
        ("load", "WARNING", "logging", "connection reset, trying again"),
        ("load", "INFO", "stdout", "4 rows"),
        ("chart", "INFO", "stderr", "matplotlib: using agg"),
        ("analyst", "ERROR", "logging", "page not found: /prices/2025"),
    ]
    return [
        LogEntry(text, level, NOW - timedelta(seconds=170 - 7 * i), source, name, name)
        for i, (name, level, source, text) in enumerate(lines)
    ]
