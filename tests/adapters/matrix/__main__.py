"""``python -m tests.adapters.matrix [NAME ...]``: the adapters' contract with the oldest supported and the newest SDKs.

Each SDK gets environments of its own under ``.venv/matrix``, made by uv; they are kept and made anew when what they
need changes. Without names all run. Exit code 1 if one fails.
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
TESTS = ("pytest>=8.2", "pytest-asyncio>=0.24", "pytest-timeout>=2.3", "genai-prices>=0.2")


@dataclass(frozen=True, slots=True)
class Environment:
    """One SDK in one version.

    Attributes:
        packages: requirements beside our own; one that names a package of ours replaces it.
        tests: paths that run there.
    """

    packages: tuple[str, ...]
    tests: tuple[str, ...]


def both(sdk: str, folder: str, oldest: tuple[str, ...], newest: tuple[str, ...]) -> dict[str, Environment]:
    """Oldest and newest of an SDK."""
    contract = (f"tests/adapters/{folder}/test_contract.py",)
    return {f"{sdk}-oldest": Environment(oldest, contract), f"{sdk}-newest": Environment(newest, contract)}


#: The oldest ones are the first that pass, found by trying, and not older than what pyproject.toml admits.
ENVIRONMENTS = {
    **both("anthropic", "anthropic", ("anthropic==0.40.0", "httpx<0.28"), ("anthropic",)),
    **both("openai-agents", "openai_agents", ("openai-agents==0.17.8", "openai<2.40"), ("openai-agents",)),
    **both("pydantic-ai", "pydantic_ai", ("pydantic-ai-slim[openai]==2.68.0",), ("pydantic-ai-slim[openai]",)),
    **both(
        "langgraph", "langgraph", ("langgraph==1.1.3", "langchain-openai==1.0.0"), ("langgraph", "langchain-openai")
    ),
}


def requirements(environment: Environment) -> list[str]:
    """All that is installed there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    replaced = {_name(package) for package in environment.packages}
    ours = [package for package in (*project["dependencies"], *TESTS) if _name(package) not in replaced]
    return sorted([*ours, *environment.packages])


def _name(requirement: str) -> str:
    end = next((n for n, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end].lower()


def python_of(name: str) -> Path:
    """The environment's Python, which is made if it isn't there or needs something else."""
    folder, wanted = FOLDER / name, requirements(ENVIRONMENTS[name])
    stamp = folder / "requirements.json"
    if not stamp.is_file() or json.loads(stamp.read_text()) != wanted:
        uv = ROOT / ".venv" / "bin" / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *wanted]
        subprocess.run(install, check=True)
        stamp.write_text(json.dumps(wanted))
    return folder / "bin" / "python"


def run(name: str) -> bool:
    """Run the tests of one environment; whether they passed."""
    began = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONHOME")}
    environment["PYTHONPATH"] = str(ROOT)
    # Old SDKs use what newer packages call deprecated: that is no failure of ours.
    options = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    command = [python_of(name), "-m", "pytest", *options, *ENVIRONMENTS[name].tests]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    print(f"{name}: {'passed' if ended.returncode == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
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
