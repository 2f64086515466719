"""All settings, in one table: flag > environment > `config.yaml` in the home folder > default.

Importing this module is cheap on purpose: the command line reads it at every start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.registry.errors import BadValue
from paddock.registry.hubs import AUTO, BUILT_IN, find_hub, hub_names


@dataclass(frozen=True)
class Setting:
    """One row of the table: its name in `config.yaml`, its variables, default and meaning."""

    name: str
    variables: tuple[str, ...]
    default: str
    help: str


SETTINGS = (
    Setting("home", ("PADDOCK_HOME",), "~/.paddock", "folder for state, logs and caches"),
    Setting("host", ("PADDOCK_HOST",), "127.0.0.1", "address that the gateway listens on"),
    Setting("port", ("PADDOCK_PORT",), "9997", "port of the gateway; 0 picks a free one"),
    Setting("endpoint", ("PADDOCK_ENDPOINT",), "", "gateway that commands talk to"),
    Setting("api_key", ("PADDOCK_API_KEY",), "", "key that the gateway asks for and commands send"),
    Setting(
        "ray_address",
        ("PADDOCK_RAY_ADDRESS", "RAY_ADDRESS"),
        "",
        "Ray cluster to use; empty: a local Ray is started at the first launch",
    ),
    Setting(
        "llama_server",
        ("PADDOCK_LLAMA_SERVER",),
        "",
        "llama-server program to use in place of the built-in llama.cpp",
    ),
    Setting(
        "hub",
        ("PADDOCK_HUB",),
        AUTO,
        "hub that is asked first where a model is on several: "
        f"{', '.join(site.name for site in BUILT_IN)}, or one that a package adds; "
        f"{AUTO}: the first that its spec names",
    ),
    Setting("hub_timeout", ("PADDOCK_HUB_TIMEOUT",), "5", "seconds to wait for a hub's answer"),
    Setting(
        "allowed_hosts",
        ("PADDOCK_ALLOWED_HOSTS",),
        "",
        "names by which others reach the gateway, separated by commas",
    ),
    Setting(
        "cors_origins",
        ("PADDOCK_CORS_ORIGINS",),
        "",
        "origins whose pages may call the gateway, such as `https://app.example`, separated by "
        "commas",
    ),
    Setting("log_level", ("PADDOCK_LOG_LEVEL",), "info", "debug, info, warning or error"),
)


_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]*://({_HOST.pattern})(:[0-9]{{1,5}})?")


@dataclass(frozen=True)
class Settings:
    """The settings in force. Paths are absolute, durations are seconds."""

    home: Path
    host: str
    port: int
    endpoint: str
    api_key: str
    ray_address: str
    llama_server: str
    hub: str
    hub_timeout: float
    log_level: str
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    ray_address_from: str = ""

    @property
    def logs(self) -> Path:
        """Folder of the gateway's and the replicas' logs."""
        return self.home / "logs"

    @property
    def specs(self) -> Path:
        """Folder of the user's own specs."""
        return self.home / "specs"

    @property
    def index(self) -> Path:
        """The compiled catalogue."""
        return self.home / "cache" / "catalog.index"


def read_settings(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Reads the settings; a flag that is None counts as not given.

    Raises:
        BadValue: a value does not parse; it names where the value came from.
    """
    environ = os.environ if environ is None else environ
    flags = flags or {}
    home = _text(SETTINGS[0], flags, environ, {})[0]
    try:
        folder = Path(home).expanduser().absolute()
    except RuntimeError as error:  # the home folder of a user that does not exist
        raise BadValue("home", home, f"{error} Name a folder by PADDOCK_HOME") from None
    config = _config(folder / "config.yaml")
    texts = {row.name: _text(row, flags, environ, config) for row in SETTINGS}
    host, _ = texts["host"]
    endpoint, endpoint_from = texts["endpoint"]
    endpoint = endpoint.strip()
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise BadValue(endpoint_from, endpoint, "must begin with http:// or https://")
    hub, hub_from = texts["hub"]
    if hub.lower() != AUTO and find_hub(hub.lower()) is None:
        raise BadValue(hub_from, hub, f"must be {', '.join(hub_names())} or {AUTO}")
    level, level_from = texts["log_level"]
    if level.lower() not in {"debug", "info", "warning", "error"}:
        raise BadValue(level_from, level, "must be debug, info, warning or error")
    return Settings(
        home=folder,
        host=host,
        port=int(_number(*texts["port"], low=0, high=65535, integer=True)),
        endpoint=endpoint.rstrip("/"),
        api_key=texts["api_key"][0],
        ray_address=texts["ray_address"][0],
        ray_address_from=texts["ray_address"][1],
        llama_server=texts["llama_server"][0],
        hub=hub.lower(),
        hub_timeout=_number(*texts["hub_timeout"], low=0.1, high=600),
        log_level=level.lower(),
        allowed_hosts=_list(*texts["allowed_hosts"], _HOST, "must be host names, without a port"),
        cors_origins=_list(
            *texts["cors_origins"], _ORIGIN, "must be origins such as https://app.example:8443"
        ),
    )


def _text(
    row: Setting, flags: Mapping[str, Any], environ: Mapping[str, str], config: Mapping[str, str]
) -> tuple[str, str]:
    """The setting's text and where it came from."""
    if flags.get(row.name) is not None:
        return str(flags[row.name]), f"--{row.name.replace('_', '-')}"
    for variable in row.variables:
        if environ.get(variable):
            return environ[variable], variable
    if row.name in config:
        return config[row.name], f"config.yaml: {row.name}"
    return row.default, row.name


def _config(path: Path) -> dict[str, str]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadValue("config file", str(path), f"cannot be read: {error}") from error
    import yaml

    try:
        values = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes nothing but text
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise BadValue("config file", str(path), f"is not YAML: {reason}") from error
    if values in (None, ""):  # empty, or nothing but comments
        return {}
    if not isinstance(values, dict):
        raise BadValue("config file", str(path), "must be a mapping of settings")
    from paddock.registry.errors import UnknownName

    known = [row.name for row in SETTINGS if row.name != "home"]
    for name in values:
        if name not in known:
            raise UnknownName.among("setting", str(name), known, of=str(path))
        if not isinstance(values[name], str):
            raise BadValue(f"config.yaml: {name}", values[name], "must be one value")
    return values


def _list(text: str, source: str, grammar: re.Pattern[str], reason: str) -> tuple[str, ...]:
    items = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in items:
        if not grammar.fullmatch(part):
            raise BadValue(source, part, reason)
    return items


def _number(
    text: str, source: str, low: float = 0, high: float = 0, integer: bool = False
) -> float:
    try:
        value = int(text) if integer else float(text)
    except ValueError:
        raise BadValue(
            source, text, "must be a whole number" if integer else "must be a number"
        ) from None
    if not low <= value <= high:
        raise BadValue(source, text, f"must lie between {low:g} and {high:g}")
    return value
