"""Stacks that people create: where flows run and keep their state, one small YAML file each in the home.

.. code-block:: yaml

    runner: kubernetes
    options: {namespace: agents, image: ghcr.io/acme/worker:1}
    journal: postgresql://kitaru:${PGPASSWORD}@db.internal/kitaru
    store: s3://acme-kitaru/artifacts
    secrets: {OPENAI_API_KEY: agents-keys/openai}

``${NAME}`` in a URL is read from the environment where it is used, so that no file holds a password.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kitaru_nb.config import CONFIG_FILE, Settings, check_store, load_settings, secrets_in
from kitaru_nb.core.executors import parse_executor
from kitaru_nb.core.runners import BUILT_IN, Runner, unknown_stack
from kitaru_nb.core.runtime import runtime_of
from kitaru_nb.core.unended import unended
from kitaru_nb.errors import KitaruError, KitaruFeatureNotAvailableError, KitaruStateError, KitaruUsageError
from kitaru_nb.journal.open import scheme_of

#: Kind of runner → ("module:Class", the extra that it needs). The class takes the definition.
RUNNERS = {
    "process": ("kitaru_nb.stacks.process:ProcessRunner", None),
    "kubernetes": ("kitaru_nb.stacks.kubernetes:KubernetesRunner", "kubernetes"),
    "aws": ("kitaru_nb.stacks.aws:AwsRunner", "aws"),
    "gcp": ("kitaru_nb.stacks.gcp:GcpRunner", "gcp"),
    "azure": ("kitaru_nb.stacks.azure:AzureRunner", "azure"),
}
#: Runners whose workers aren't on this machine.
ELSEWHERE = tuple(kind for kind in RUNNERS if kind != "process")
FOLDER = "stacks"
#: Variable of workers elsewhere, who have no file: the definition of their stack as JSON, with its name.
DEFINITION = "KITARU_STACK_DEFINITION"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Options(BaseModel):
    """What one kind of runner takes. Each runner has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """The options of a stack. Raises `KitaruUsageError` that says what is wrong with them."""
        try:
            return cls.model_validate(stack.options)
        except ValidationError as error:
            where, made = f"options of stack {stack.name!r}", f"kitaru stack create {stack.name} {stack.runner}"
            missing = [str(found["loc"][0]) for found in error.errors() if found["type"] == "missing"]
            if not missing:
                raise _wrong_field(error, where, cls, f"{made} ... --option NAME=VALUE") from None
            raise KitaruUsageError(
                f"{where}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
                fix=f"{made} ... {' '.join(f'--option {name}=...' for name in missing)}",
            ) from None


class Stack(BaseModel):
    """One stack.

    Attributes:
        runner: who starts workers: ``process``, ``kubernetes``, ``aws``, ``gcp`` or ``azure``.
        options: the runner's own.
        journal, store: URLs; None: those of the home. Workers elsewhere must reach both.
        inline_max_bytes: values up to this size stay in the journal. With a store of objects it is 0 by default, so
            that every value is in the user's bucket.
        executor: where submitted checkpoints run: ``threads`` of the worker, ``dask``, or ``dask://HOST:PORT``.
        environment: variables of workers.
        secrets: variables of workers that come from the platform's own store of secrets: variable → reference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(exclude=True)
    runner: str = "process"
    options: dict[str, Any] = Field(default_factory=dict)
    journal: str | None = None
    store: str | None = None
    inline_max_bytes: int | None = Field(default=None, ge=0)
    executor: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)


def settings_of(name: str, base: Settings) -> Settings:
    """The settings of processes that work on a stack, over those of ``base``. Raises as `find_stack` and `on_stack`."""
    return on_stack(find_stack(name, base.home), base)


def on_stack(stack: Stack, base: Settings) -> Settings:
    """`settings_of` for a definition at hand.

    A worker elsewhere was given those of its own stack: the variables in its URLs are of the desk, not of the worker.

    Raises:
        KitaruUsageError: a URL names a variable that isn't set.
    """
    if _carried().get("name") == stack.name:
        given = load_settings()
        same = {field: getattr(given, field) for field in ("journal", "store", "inline_max_bytes", "executor")}
        return dataclasses.replace(base, stack=stack.name, **same)
    changes: dict[str, Any] = {"stack": stack.name}
    if stack.journal is not None:
        changes["journal"] = filled(stack.journal, f"journal of stack {stack.name!r}")
    if stack.store is not None:
        changes["store"] = filled(stack.store, f"store of stack {stack.name!r}")
        if "://" in stack.store and not stack.store.startswith("file://"):
            changes["inline_max_bytes"] = 0
    if stack.inline_max_bytes is not None:
        changes["inline_max_bytes"] = stack.inline_max_bytes
    if stack.executor is not None:
        changes["executor"] = filled(stack.executor, f"executor of stack {stack.name!r}")
    return dataclasses.replace(base, **changes)


def _carried() -> dict[str, Any]:
    """The definition, with its name, of the stack that this process is a worker of elsewhere; of others none."""
    fields: dict[str, Any] = json.loads(os.environ.get(DEFINITION, "{}"))
    return fields


def filled(text: str, what: str) -> str:
    """``text`` with its ``${NAME}`` from the environment. Raises `KitaruUsageError` for one that isn't set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise KitaruUsageError(f"The {what} needs ${{{found[1]}}}, which is not set.", fix=f"export {found[1]}=...")
        return os.environ[found[1]]

    return _VARIABLE.sub(value, text)


def stack_names(home: Path | None = None) -> list[str]:
    """Names of the stacks that somebody created."""
    folder = (home or load_settings().home) / FOLDER
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_stack(name: str, home: Path | None = None) -> Stack:
    """A stack by name, a built-in one included.

    Raises:
        KitaruFeatureNotAvailableError: nobody created it; lists what there is.
        KitaruUsageError: its file isn't right; names the field.
    """
    if name in BUILT_IN:
        return Stack(name=name)
    home = home or load_settings().home
    path = home / FOLDER / f"{name}.yaml"
    if not _NAME.fullmatch(name) or not path.is_file():
        fields = _carried()
        if fields.pop("name", None) == name:
            return parse_stack(name, fields, DEFINITION)
        raise unknown_stack(name, stack_names(home))
    try:
        return parse_stack(name, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except yaml.YAMLError as error:
        raise KitaruUsageError(f"{path} is not valid YAML: {_line(error)}.", fix=f"edit {path}") from error


def parse_stack(name: str, fields: Any, where: str) -> Stack:
    """A stack from its fields. Raises `KitaruUsageError` that names the first field that is wrong."""
    if not _NAME.fullmatch(name) or name in BUILT_IN:
        raise KitaruUsageError(
            f"{name!r} can't be the name of a stack: expected lower-case letters, digits and '-', 2 to 40 of them, "
            f"beginning with a letter, and none of {', '.join(BUILT_IN)}.",
            fix="kitaru stack create my-stack process",
        )
    if not isinstance(fields, Mapping):
        raise KitaruUsageError(f"{where} holds {type(fields).__name__}; expected fields such as 'runner: process'.")
    try:
        stack = Stack.model_validate({**fields, "name": name})
    except ValidationError as error:
        raise _wrong_field(error, where, Stack, f"kitaru stack create {name} RUNNER") from None
    if stack.executor is not None:
        parse_executor(stack.executor)
    if stack.runner not in RUNNERS:
        raise KitaruUsageError(
            f"runner is {stack.runner!r} ({where}); expected one of {', '.join(RUNNERS)}.",
            fix=f"kitaru stack create {name} kubernetes",
        )
    if stack.journal is not None and not stack.journal.startswith("${"):
        scheme_of(stack.journal)
    if stack.store is not None and not stack.store.startswith("${"):
        check_store(stack.store, where)
    for text, what in ((stack.journal, "journal"), (stack.store, "store")):
        if text is not None and secrets_in(_VARIABLE.sub("", text)):
            raise KitaruUsageError(
                f"{what} holds a password ({where}); a stack's file must not.",
                fix="write it as ${NAME}, and export NAME where it is used",
            )
    return stack


def save_stack(stack: Stack, home: Path | None = None) -> Path:
    """Write a stack's file, whole or not at all; its path."""
    folder = (home or load_settings().home) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stack.name}.yaml"
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    fields = stack.model_dump(exclude_defaults=True) | {"runner": stack.runner}
    beside.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    beside.replace(path)
    return path


def delete_stack(name: str, *, force: bool = False) -> None:
    """Remove a stack's file. Executions that are on it keep their history.

    Args:
        force: also while executions are on it that have not ended, which nobody could go on with. Its journal isn't
            asked.

    Raises:
        KitaruUsageError: it is built in.
        KitaruStateError: it is in use, by what names no stack or by an execution; or its journal can't be asked.
        KitaruFeatureNotAvailableError: there is no such stack.
    """
    if name in BUILT_IN:
        raise KitaruUsageError(f"The stack {name!r} is built in; it can't be deleted.", fix="kitaru stack list")
    find_stack(name)
    settings = load_settings()
    if name == settings.stack:
        fix = "unset KITARU_STACK" if "KITARU_STACK" in os.environ else "kitaru stack use local"
        raise KitaruStateError(f"The stack {name!r} is in use; it can't be deleted.", fix=fix)
    if not force and (found := _used_by(name)) is not None:
        forced = f"kitaru stack delete {name} --force"
        raise KitaruStateError(f"The stack {name!r} can't be deleted: {found[0]}", fix=f"{found[1]}  # or: {forced}")
    (settings.home / FOLDER / f"{name}.yaml").unlink()


def _used_by(name: str) -> tuple[str, str] | None:
    """(why it is in use, or can't be known not to be; the line to type), or None."""
    try:
        found = next((row for row in unended(runtime_of(name).journal) if row.stack == name), None)
    except KitaruError as error:
        return f"whether executions are on it can't be asked. {error.message}", error.fix or "kitaru stack list"
    if found is None:
        return None
    cancel = f"KITARU_STACK={name} kitaru executions cancel {found.exec_id}"
    return f"execution {found.exec_id} is on it, and has not ended.", cancel


def use_stack(name: str, home: Path | None = None) -> Path:
    """Make a stack the one in use: the setting ``stack`` of ``config.toml``, whose path is returned.

    Raises as `find_stack`.
    """
    find_stack(name, home)
    path = (home or load_settings().home) / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    setting = f'stack = "{name}"'
    changed, found = re.subn(r"(?m)^stack\s*=.*$", setting, text, count=1)
    # Settings stand before the tables of the file.
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(changed if found else f"{setting}\n{text}", encoding="utf-8")
    beside.replace(path)
    return path


def runner_of_stack(name: str) -> Runner:
    """The runner of a stack that somebody created, with the connections that it has; a new one when its file changed.

    Raises as `find_stack`, and for options that can't be.
    """
    stack = find_stack(name)
    known = _runners.get(name)
    if known is None or known[0] != stack:
        known = _runners[name] = (stack, runner_for(stack))
    return known[1]


_runners: dict[str, tuple[Stack, Runner]] = {}


def extra_of(settings: Settings) -> str | None:
    """The extra that the runner of the stack of ``settings`` needs, or None. Raises as `find_stack`."""
    return RUNNERS[find_stack(settings.stack, settings.home).runner][1]


def runner_for(stack: Stack) -> Runner:
    """The runner of a definition.

    Raises:
        KitaruFeatureNotAvailableError: what this kind of runner needs is not installed.
        KitaruUsageError: an option that can't be.
    """
    target, extra = RUNNERS[stack.runner]
    module, _, name = target.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise KitaruFeatureNotAvailableError(
            f"Stack {stack.name!r} runs on {stack.runner}, which needs a package that isn't installed: {error}.",
            fix=f"pip install 'kitaru-nb[{extra}]'",
        ) from error
    runner: Runner = made(stack)
    return runner


def _wrong_field(error: ValidationError, where: str, model: type[BaseModel], fix: str) -> KitaruUsageError:
    """The first thing that a definition has wrong, in words."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        there = ", ".join(name for name, known in model.model_fields.items() if not known.exclude)
        return KitaruUsageError(f"{where}: there is no {field!r}. There is: {there}.", fix=f"remove {field}")
    return KitaruUsageError(f"{where}: {field} is {first['input']!r}: {first['msg']}.", fix=fix)


def _line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
