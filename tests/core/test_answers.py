"""What fits as an answer, in words and as a line to type."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from kitaru_nb.core.answers import answering, answering_here, describe_schema, example, validate
from kitaru_nb.errors import KitaruWaitValidationError
from kitaru_nb.model import Wait, utc

APPROVAL = {
    "$defs": {
        "Approval": {
            "type": "object",
            "properties": {
                "approve": {"type": "boolean"},
                "message": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
        }
    },
    "anyOf": [{"$ref": "#/$defs/Approval"}, {"type": "boolean"}],
}


@pytest.mark.parametrize(
    ("schema", "words", "typed"),
    [
        ({"type": "boolean"}, "true or false", "true"),
        ({"enum": ["a", "b"]}, 'one of "a", "b"', "a"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "a whole number", "1"),
        (APPROVAL, "true or false, or an object with approve, message", "true"),
        ({"$ref": "#/$defs/Approval", "$defs": APPROVAL["$defs"]}, "an object with approve, message", None),
        ({"$ref": "https://example.org/x"}, 'JSON that fits {"$ref": "https://example.org/x"}', "'{}'"),
        ({"enum": ["$(id)"], "type": "string"}, 'one of "$(id)"', "'$(id)'"),
        ({"enum": ["5"], "type": "string"}, 'one of "5"', "5"),
        ({"enum": ["5"]}, 'one of "5"', """'"5"'"""),
        ({"anyOf": [{"type": "null"}]}, 'JSON that fits {"anyOf": [{"type": "null"}]}', "'{}'"),
    ],
    ids=[
        "boolean",
        "choice",
        "optional",
        "approval",
        "reference",
        "foreign reference",
        "for a shell",
        "a number as text",
        "a number or text",
        "nothing but null",
    ],
)
def test_a_schema_is_told_in_words_with_a_value_that_can_be_typed(
    schema: dict[str, Any], words: str, typed: str | None
) -> None:
    assert describe_schema(schema) == words
    assert example(schema) == (typed or """'{"approve": true, "message": "text"}'""")


def wait_of(name: str, schema: dict[str, Any]) -> Wait:
    return Wait("w1", "kr-0123456789ab", name, None, schema, "pending", utc(0.0))


def test_a_line_to_type_runs_nothing_that_somebody_wrote_into_a_name_or_a_choice() -> None:
    wait = wait_of("ok; $(id)", {"enum": ["it's `id`"], "type": "string"})
    assert shlex.split(answering(wait, wait.exec_id)) == [
        *("kitaru", "executions", "input", wait.exec_id, "--wait", "ok; $(id)", "--value", "it's `id`")
    ]
    assert shlex.split(answering_here(wait)) == ["%kitaru", "input", "ok; $(id)", "it's `id`"]
    for line in (answering(wait, wait.exec_id), answering_here(wait)):
        assert shlex.quote("ok; $(id)") in line
        assert shlex.quote("it's `id`") in line


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [float("-inf")], {1, 2}], ids=["nan", "inf", "in", "set"]
)
def test_what_json_has_no_form_for_is_no_answer(value: Any) -> None:
    with pytest.raises(KitaruWaitValidationError, match="is no answer for wait 'n': it isn't JSON") as caught:
        validate(wait_of("n", {}), value)
    assert caught.value.fix == "kitaru executions input kr-0123456789ab --wait n --value '{}'"
