"""The API, fuzzed from its own OpenAPI document: no request makes it fail, and answers are as they are described."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis import openapi as documents
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.stacks.process import _children
from kitaru_nb.surfaces.http.openapi import document
from kitaru_nb.surfaces.operations.table import OPERATIONS
from tests.http import flows
from tests.http.httpkit import OWNER, SECONDS, Served

#: Whose answers hold pairs: the fuzzer makes of ``prefixItems`` what its own validator refuses.
PAIRS = {"executions.stats"}
#: What would start processes, or wait, for each example.
LEFT_OUT = {"executions.run", "events", "events.poll", "doctor"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[schemathesis.BaseSchema, Served]]:
    """A server with executions to ask for, and its description."""
    folder = tmp_path_factory.mktemp("fuzz")
    runtime = Runtime(Settings(folder / "home", durability="process"))
    for flow, inputs in ((flows.brief, {"topic": "x"}), (flows.many, {"count": 3}), (flows.failing, {})):
        exec_id = create_execution(runtime, flow, inputs).exec_id
        advance(runtime, exec_id, flow, poll_seconds=0.0)
    served = Served(runtime, folder)
    served.start()
    served.api.desk.answers.seconds = 0.0  # the limit has tests of its own
    yield documents.from_dict(document() | {"servers": [{"url": f"{served.url}/api"}]}), served
    served.close()
    for process, *_ in (worker for workers in _children.values() for worker in workers):
        process.wait(timeout=SECONDS)
    runtime.journal.close()


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS if operation.name not in LEFT_OUT])
def test_no_request_makes_it_fail(api: tuple[schemathesis.BaseSchema, Served], name: str, mode: str) -> None:
    schema, served = api
    operation = schema.find_operation_by_id(name)

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=GenerationMode(mode)))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url=f"{served.url}/api", headers={"Authorization": f"Bearer {OWNER}"})
        checks = [not_a_server_error, status_code_conformance, content_type_conformance]
        if name not in PAIRS:
            checks.append(response_schema_conformance)
        case.validate_response(answer, checks=checks)

    try:
        ask()
    except Unsatisfiable:
        assert mode == "negative"  # there is nothing that could be wrong
