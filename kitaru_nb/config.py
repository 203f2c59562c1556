"""Where things are kept, and the few settings: environment first, then ``config.toml`` in the home, then defaults."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kitaru_nb.errors import KitaruUsageError

HOME_FOLDER = ".kitaru"
CONFIG_FILE = "config.toml"
DEFAULT_INLINE_MAX_BYTES = 16 * 1024

_TABLES = ("models", "prices")
#: Parameters of libpq whose values nobody may see.
_SECRETS = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process of kitaru_nb runs with.

    Attributes:
        home: folder of the journal, artifacts and settings.
        journal: URL of the journal: ``sqlite:///path``, ``postgresql://…``, ``https://…`` of a server, or ``memory://NAME``;
            None is ``journal.db`` in the home.
        store: URL of the artifact store (fsspec); None is the folder ``artifacts`` in the home.
        inline_max_bytes: values up to this size travel inside the journal's event.
        durability: ``power`` survives power loss, ``process`` only the death of processes.
        trust_pickle: whether pickled values of this store may be loaded.
        lease_seconds: how long a silent worker on another host keeps its lease.
        stack: where flows run, and keep their state, that name no stack themselves.
        executor: where submitted checkpoints run: ``threads``, ``dask``, ``dask://HOST:PORT``.
    """

    home: Path
    journal: str | None = None
    store: str | None = None
    inline_max_bytes: int = DEFAULT_INLINE_MAX_BYTES
    durability: Literal["power", "process"] = "power"
    trust_pickle: bool = True
    lease_seconds: float = 30.0
    stack: str = "local"
    executor: str = "threads"

    @property
    def journal_url(self) -> str:
        """URL of the journal, with the default filled in."""
        return self.journal or f"sqlite:///{self.home / 'journal.db'}"

    @property
    def store_url(self) -> str:
        """URL of the artifact store, with the default filled in."""
        return self.store or str(self.home / "artifacts")


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of ``config.toml``: what people name and price themselves.

    Attributes:
        path: the file, which needn't exist.
        models: alias → model, ``provider:name`` or a name.
        prices: model → US dollars per million tokens (see `kitaru_nb.surfaces.adapters.prices`), as written.
    """

    path: Path
    models: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Any] = field(default_factory=dict)


def find_home(environ: Mapping[str, str] | None = None, start: Path | None = None) -> Path:
    """``KITARU_HOME``, else the nearest ``.kitaru`` folder upwards of ``start`` (default: the working directory),
    else the user's data folder."""
    environ = os.environ if environ is None else environ
    if named := environ.get("KITARU_HOME"):
        return Path(named).expanduser().absolute()
    start = (start or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        if (folder / HOME_FOLDER).is_dir():
            return folder / HOME_FOLDER
    return _user_data_folder(environ)


def _user_data_folder(environ: Mapping[str, str]) -> Path:
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home()) / "kitaru"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "kitaru"
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "kitaru"


def load_settings(environ: Mapping[str, str] | None = None, start: Path | None = None) -> Settings:
    """Settings of this process.

    Raises:
        KitaruUsageError: a setting has a value that can't be right; names the setting and where it was set.
    """
    environ = os.environ if environ is None else environ
    home = find_home(environ, start)
    values: dict[str, Any] = {"home": home}
    path = home / CONFIG_FILE
    values |= {name: _parse(name, value, str(path)) for name, value in _read(path).items() if name not in _TABLES}
    for name in (f.name for f in fields(Settings) if f.name != "home"):
        if (text := environ.get(f"KITARU_{name.upper()}")) is not None:
            values[name] = _parse(name, text, f"environment variable KITARU_{name.upper()}")
    return Settings(**values)


def load_tables(environ: Mapping[str, str] | None = None, start: Path | None = None) -> Tables:
    """The tables ``[models]`` and ``[prices]`` of ``config.toml``.

    Raises:
        KitaruUsageError: the file isn't valid, or an alias isn't a text.
    """
    path = find_home(environ, start) / CONFIG_FILE
    found = _read(path)
    for alias, model in found.get("models", {}).items():
        if not isinstance(model, str) or not model:
            raise KitaruUsageError(
                f"The model {alias!r} is {model!r} ({path}); expected a text such as 'openai:gpt-4o-mini'.",
                fix=f"kitaru model register {alias} openai:gpt-4o-mini",
            )
    return Tables(path, found.get("models", {}), found.get("prices", {}))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import tomllib  # most homes have no such file

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KitaruUsageError(f"{path} can't be read: {error.strerror}.", fix=f"ls -l {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KitaruUsageError(f"{path} is not valid TOML: {error}.", fix=f"edit {path}") from error
    known = {f.name for f in fields(Settings)} - {"home"}
    if unknown := sorted(set(found) - known - set(_TABLES)):
        raise KitaruUsageError(
            f"{path} sets {unknown[0]!r}, which is no setting. Settings are: {', '.join(sorted(known))}; "
            f"tables are: {', '.join(_TABLES)}.",
            fix=f"edit {path}",
        )
    for name in _TABLES:
        if not isinstance(found.get(name, {}), dict):
            raise KitaruUsageError(f"{name} is {found[name]!r} ({path}); expected a table.", fix=f"[{name}]")
    return found


_EXAMPLES = {"durability": "power", "trust_pickle": "true", "inline_max_bytes": "16384", "lease_seconds": "30"}


def _parse(name: str, value: Any, where: str) -> Any:
    def wrong(expected: str) -> KitaruUsageError:
        return KitaruUsageError(
            f"{name} is {value!r} ({where}); expected {expected}.", fix=f"KITARU_{name.upper()}={_EXAMPLES[name]}"
        )

    if name == "durability":
        if value not in ("power", "process"):
            raise wrong("'power' or 'process'")
        return value
    if name == "trust_pickle":
        text = str(value).lower()
        if text not in ("true", "false", "1", "0"):
            raise wrong("true or false")
        return text in ("true", "1")
    if name in ("inline_max_bytes", "lease_seconds"):
        kind: type[int] | type[float] = int if name == "inline_max_bytes" else float
        try:
            number = kind(value)
        except (TypeError, ValueError) as error:
            raise wrong("a number") from error
        if not 0 <= number < float("inf") or (name == "lease_seconds" and number == 0):
            raise wrong("a positive number")
        return number
    if name == "store":
        check_store(str(value), where)
    return str(value)


def check_store(url: str, where: str) -> None:
    """Raises `KitaruUsageError` for a store that isn't the same place for every process; says what is."""
    scheme, separator, rest = url.partition("://")
    better = ""
    if separator and scheme not in ("file", "memory") and not rest.strip("/"):
        better = f"{scheme}://bucket/folder"
    elif not separator and not Path(url).expanduser().is_absolute():  # another folder in every working directory
        scheme, colon, path = url.partition(":")
        better = f"{scheme}://{path.lstrip('/')}" if colon and path.startswith("/") else str(Path(url).absolute())
    if better:
        raise KitaruUsageError(
            f"store is {url!r} ({where}); expected an absolute path, or a URL such as s3://bucket/folder.", fix=better
        )


def shown(url: str) -> str:
    """The URL of a journal or a store as people may see it: without the password or token in it."""
    return _told(url)[0]


def secrets_in(url: str) -> list[str]:
    """The passwords and tokens in a URL, as they are written there."""
    return [secret for secret in _told(url)[1] if secret]


def _told(url: str) -> tuple[str, list[str]]:
    """(a URL without its secrets, these)."""
    scheme, separator, rest = url.partition("://")
    rest, question, query = rest.partition("?")
    place, slash, path = rest.partition("/")
    port = place.rpartition(":")[2]
    if port != place and not port.isdigit() and "@" not in place and "@" in path:
        # No port, but a password with a slash that should be written %2F.
        rest, at, after = rest.rpartition("@")
        host, slash, path = after.partition("/")
        place = f"{rest}{at}{host}"
    who, at, host = place.rpartition("@")
    user, _, password = who.partition(":")
    secrets = [password]
    if scheme in ("http", "https"):  # a token may stand alone
        secrets.append(user)
        user = ""
    kept = []
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name in _SECRETS:
            secrets.append(value)
        else:
            kept.append(parameter)
    more = question + "&".join(kept) if kept else ""
    return f"{scheme}{separator}{user}{at if user else ''}{host}{slash}{path}{more}", secrets
