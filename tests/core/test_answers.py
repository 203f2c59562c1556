"""What fits as an answer, in words and as a line to type."""

from __future__ import annotations

from typing import Any

import pytest

from kitaru_nb.core.answers import describe_schema, example

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
        ({"enum": ["a", "b"]}, 'one of "a", "b"', '"a"'),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "a whole number", "1"),
        (APPROVAL, "true or false, or an object with approve, message", "true"),
        ({"$ref": "#/$defs/Approval", "$defs": APPROVAL["$defs"]}, "an object with approve, message", None),
        ({"$ref": "https://example.org/x"}, 'JSON that fits {"$ref": "https://example.org/x"}', "'{}'"),
        ({"anyOf": [{"type": "null"}]}, 'JSON that fits {"anyOf": [{"type": "null"}]}', "'{}'"),
    ],
    ids=["boolean", "choice", "optional", "approval", "reference", "foreign reference", "nothing but null"],
)
def test_a_schema_is_told_in_words_with_a_value_that_can_be_typed(
    schema: dict[str, Any], words: str, typed: str | None
) -> None:
    assert describe_schema(schema) == words
    assert example(schema) == (typed or """'{"approve": true, "message": "text"}'""")
