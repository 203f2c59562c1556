"""What is taken for a secret, and what isn't."""

from __future__ import annotations

import ast

import pytest

from kitaru_nb.promote.secrets import environment_names, find_secrets, is_secret_name


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("client = OpenAI(api_key='sk-proj-" + "Ab12" * 8 + "')", "an OpenAI key"),
        ("x = 'sk-ant-api03-" + "Ab12" * 8 + "'", "an Anthropic key"),
        ("x = 'AKIA" + "ABCD1234" * 2 + "'", "an AWS access key"),
        ("x = 'github_pat_" + "a1B2" * 12 + "'", "a GitHub token"),
        ("x = 'xoxb-123456789012-abcdefABCDEF'", "a Slack token"),
        ("x = 'AIza" + "aB3_x" * 7 + "'", "a Google API key"),
        ("x = 'hf_" + "aB3x" * 9 + "'", "a Hugging Face token"),
        ("x = '-----BEGIN RSA PRIVATE KEY-----'", "a private key"),
        ("x = 'postgresql://ana:hunter2x@db/main'", "a password in a URL"),
        ("password = 'correct-horse9'", "a literal password"),
        ("os.environ['MY_API_KEY'] = 'a8f3b2c9d1e7'", "a literal MY_API_KEY"),
        ("config = {'client_secret': 'a8f3b2c9d1e7'}", "a literal client_secret"),
        ("connect(token='a8f3b2c9d1e7')", "a literal token"),
        ("connect(token=b'a8f3b2c9d1e7')", "a literal token"),
        ("connect(token=SecretStr('a8f3b2c9d1e7'))", "a literal token"),
        ("def connect(host, token='a8f3b2c9d1e7', *, port=1): ...", "a literal token"),
        ("def connect(*, port=1, token='a8f3b2c9d1e7'): ...", "a literal token"),
        ("user, password = 'ana', 'a8f3b2c9d1e7'", "a literal password"),
        ("if password := 'a8f3b2c9d1e7': ...", "a literal password"),
        ("os.environ.setdefault('DB_PASSWORD', 'a8f3b2c9d1e7')", "a literal DB_PASSWORD"),
        ("key = '" + "Ab12xYz9" * 3 + "'", "a literal key"),
        ("headers = {'Authorization': 'Bearer abcdefgh12345678'}", "a bearer token"),
        ("store = 'AccountName=kit;AccountKey=" + "aB3x" * 22 + "=='", "an Azure storage key"),
    ],
    ids=lambda value: None,
)
def test_secrets(line: str, kind: str) -> None:
    found = find_secrets(f"import os\n{line}\n")
    assert [(s.line, s.kind) for s in found] == [(2, kind)]
    assert len(found[0].shown) <= 5 or found[0].kind == "a private key"
    assert find_secrets(f"import os\n{line}  # kitaru: allow\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "api_key = os.environ['OPENAI_API_KEY']",
        "api_key = 'OPENAI_API_KEY'",
        "token = 'your-token-here'",
        "password = 'changeme'",
        "key = 'name'",
        "sort_key = 'created_at'",
        "tokens = 1234567890",
        "url = 'postgresql://user:{password}@db/main'",
        "url = 'https://example.org/path@2'",
        "digest = 'a8f3b2c9d1e7a8f3b2c9d1e7'",
        "message = 'the secret is out, says the token'",
        "plan = 'risk-assessment-and-mitigation-plan'",
        "shown = 'sk-estimator-doc-link-fitted-and-more'",
        "flow.with_options(key='brief-2026-01')",
        "row = {'key': '2024-01-15', 'primary_key': 'user_id2', 'token_type': 'bearer-v2'}",
        "secret_name = 'prod/db-password-2'",
    ],
    ids=lambda value: None,
)
def test_no_secrets(line: str) -> None:
    assert find_secrets(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "db-password: a8f3b2c9d1e7",
        "  - token: 'a8f3b2c9d1e7'  # of the desk",
        '  "client_secret": "a8f3b2c9d1e7",',
        "DB_PASSWORD=a8f3b2c9d1e7",
        "export DB_PASSWORD=a8f3b2c9d1e7",
    ],
    ids=lambda value: None,
)
def test_lines_that_set_a_name_outside_of_python(line: str) -> None:
    assert [s.line for s in find_secrets(f"name: kit\n{line}\n", python=False)] == [2]
    assert find_secrets("token: <your token>\npassword: changeme\nkey: 2024-01-15\n", python=False) == []


def test_names_that_code_asks_its_environment_for() -> None:
    source = (
        "import os\na = os.environ['NEEDED_TOKEN']\nb = os.getenv('REGION', 'eu')\nc = os.environ.get('DB_PASSWORD')\n"
    )
    source += "os.environ['SET'] = '1'\n"
    found = environment_names(ast.parse(source))
    assert found == {"NEEDED_TOKEN": True, "REGION": False, "DB_PASSWORD": False}
    assert [n for n in found if is_secret_name(n)] == ["NEEDED_TOKEN", "DB_PASSWORD"]
