"""Makes and removes engines' environments: whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from paddock.engines import engines, fold
from paddock.engines.environment import (
    CURRENT,
    Accelerator,
    Environment,
    InstalledEnvironment,
    find_accelerator,
)
from paddock.launcher.hosts.environ import engine_environment
from paddock.registry.errors import BadValue, EngineInUse, InstallFailed, NotFound
from paddock.registry.files import make_private, open_private, replace_file

Report = Callable[[str], None]
LINES = 12
"""How many of the last lines a failure carries."""
# Imports the modules, and prints the version of each distribution.
_CHECK = """
import importlib, importlib.metadata, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
distributions = importlib.metadata.distributions()
print(json.dumps({one.metadata["Name"]: one.version for one in distributions}))
"""
# Writes a distribution's metadata, and no more of it, where there is none.
_METADATA = """
import importlib.metadata, json, pathlib, sys, sysconfig
for name, version in json.loads(sys.argv[1]).items():
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        folder = pathlib.Path(sysconfig.get_path("purelib")) / f"{name}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
        (folder / "METADATA").write_text(text, "utf-8")
"""


def install(
    environment: Environment,
    home: Path,
    report: Report,
    accelerator: Accelerator | None = None,
    installer: Literal["uv", "pip"] | None = None,
) -> InstalledEnvironment:
    """A new environment from the pins, in force once its modules import. `report` gets each step.

    The old one stays in force until then, and whatever runs from it runs on: it is removed when
    nothing does. Left out, the accelerator is what this machine has, and the installer uv where it
    is on the path.

    Raises:
        InstallFailed: with the last lines of what failed, or because there are no pins for the
            accelerator; nothing has changed.
    """
    on = accelerator or find_accelerator()
    if not environment.pins(on):
        raise InstallFailed(environment.name, ("it needs an NVIDIA GPU; none was found here",))
    folder = environment.folder(home)
    make_private(folder)
    with _alone(folder, environment.name):
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        new = folder / f"{stamp}-{secrets.token_hex(3)}"
        installation = InstalledEnvironment(new, environment.digest(on), on)
        try:
            _fill(environment, installation, report, installer or _installer())
            report(f"importing {', '.join(environment.modules)}")
            output = _run_code(environment, installation, _CHECK, *environment.modules)
            installation = replace(installation, versions=json.loads(output[-1]))
            if environment.architectures:
                report("asking it for the architectures that it knows")
                output = _run_code(environment, installation, environment.architectures)
                installation = replace(
                    installation, architectures=tuple(sorted(json.loads(output[-1])))
                )
            record = {**asdict(installation), "folder": new.name}
            replace_file(folder / CURRENT, json.dumps(record, indent=1))
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _sweep(folder, keep=new)
        return installation


def _installer() -> Literal["uv", "pip"]:
    return "uv" if shutil.which("uv") else "pip"


def _fill(
    environment: Environment, installation: InstalledEnvironment, report: Report, installer: str
) -> None:
    """Makes the virtual environment, and brings what the pins name."""
    report(f"making the environment for {installation.accelerator}, with {installer}")
    if installer == "uv":
        _run(
            environment,
            ["uv", "venv", "--quiet", "--python", sys.executable, str(installation.folder)],
        )
        command = ["uv", "pip", "install", "--python", str(installation.python), "--no-progress"]
        # Without it, uv takes the build for CUDA where there is no GPU.
        command += [f"--torch-backend={'auto' if installation.accelerator == 'cuda' else 'cpu'}"]
    else:
        _run(environment, [sys.executable, "-m", "venv", str(installation.folder)])
        command = [
            str(installation.python),
            "-m",
            "pip",
            "install",
            "--no-input",
            "--progress-bar=off",
        ]
        command += ["--disable-pip-version-check", "--no-compile"]
    if environment.complete and installation.accelerator == "cpu":
        command += ["--no-deps"]
    for number, file in enumerate(environment.pins(installation.accelerator)):
        building = ["--no-build-isolation"] if number else []
        _run(environment, [*command, *building, "-r", str(file)], _Steps(report))
    if environment.metadata:
        _run_code(environment, installation, _METADATA, json.dumps(dict(environment.metadata)))


def find_environment(name: str) -> Environment:
    """The environment of the engine of this name, `_` counting as `-`.

    Raises:
        NotFound: no engine with an environment of its own has this name.
        BadValue: the engine needs none.
    """
    known = {one.name: one.environment for one in engines()}
    for engine_name, environment in known.items():
        if engine_name.casefold() == fold(name):
            if environment is None:
                raise BadValue("engine", name, "comes with Paddock, and needs no environment")
            return environment
    raise NotFound.among("engine", name, [n for n, one in known.items() if one is not None])


def clean(environment: Environment, home: Path) -> None:
    """Removes what an install left that was ended by force."""
    folder, installation = environment.folder(home), environment.installed(home)
    if folder.exists():
        with _alone(folder, environment.name):
            _sweep(folder, keep=installation.folder if installation else None)


def describe(environment: Environment, home: Path) -> dict[str, Any] | None:
    """The environment in force; None if there is none. `made_at` is in seconds since 1970."""
    installation = environment.installed(home)
    if installation is None:
        return None
    return {
        "folder": str(installation.folder),
        "accelerator": installation.accelerator,
        "version": installation.versions.get(environment.distribution, ""),
        "versions": dict(installation.versions),
        "made_at": (environment.folder(home) / CURRENT).stat().st_mtime,
        "current": environment.is_current(installation),
    }


def remove(environment: Environment, home: Path) -> bool:
    """Removes the environment; False if there was none.

    Raises:
        EngineInUse: a process runs from it.
    """
    folder = environment.folder(home)
    if not folder.exists():
        return False
    with _alone(folder, environment.name):
        using = sorted(_processes_in(folder))
        if using:
            raise EngineInUse(environment.name, tuple(using))
        (folder / CURRENT).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return True


class _Steps:
    """Reads pip's or uv's lines, and reports what a person wants to know of them."""

    _KNOWN = re.compile(
        r"\s*(Collecting|Downloading|Building wheel|Installing collected"
        r"|Resolved|Prepared|Building|Installed)\b(.*)"
    )

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, line: str) -> None:
        match = self._KNOWN.match(line)
        if match is not None:
            verb = match[1].replace("Installing collected", "installing")
            self._report(f"{verb.lower()}{match[2].split(' (from')[0][:100]}")


def _run_code(
    environment: Environment, installation: InstalledEnvironment, code: str, *arguments: str
) -> list[str]:
    """Runs code in the environment, with the variables that an engine gets."""
    variables = engine_environment(os.environ, {})
    return _run(environment, [str(installation.python), "-c", code, *arguments], environ=variables)


def _run(
    environment: Environment,
    command: list[str],
    step: Callable[[str], None] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[str]:
    # Nothing of ours may leak into the environment, and what it imports is compiled but once.
    excluded = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"}
    inherited = {name: value for name, value in environ.items() if name not in excluded}
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=inherited
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if step is not None:
                    step(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise InstallFailed(environment.name, tuple(line for line in lines if line)[-LINES:])
    return lines


def _sweep(folder: Path, keep: Path | None) -> None:
    """Removes older environments from which nothing runs."""
    for old in folder.iterdir():
        if old.is_dir() and old != keep and not _processes_in(old):
            shutil.rmtree(old, ignore_errors=True)


def _processes_in(folder: Path) -> list[int]:
    """Processes that run from an environment in the folder."""
    pids = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if Path(words[0]).is_relative_to(folder):
            pids.append(process.pid)
    return pids


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Two installs of one engine do not meet."""
    # Whoever can open it can hold it, and so keep others from installing.
    with open_private(folder.parent / f".{name}.lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallFailed(name, ("another command installs or removes it now",)) from None
        yield
