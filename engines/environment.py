"""Environments of engines that do not live in ours: their contents, and which exist.

Each is a virtual environment under `PADDOCK_HOME/engines/NAME/`, made by `paddock engine install`
(`launcher/environments/build.py`). `current.json` beside the environments names the one in force;
it is replaced in one step once a new environment has been seen to work.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from paddock.engines.base import Detection
from paddock.registry.settings import read_settings

CURRENT = "current.json"
_PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"


Accelerator = Literal["cpu", "cuda"]
GPUS = (Path("/proc/driver/nvidia/gpus"), Path("/dev"))


def find_accelerator() -> Accelerator:
    """The device for engines on this node: an NVIDIA GPU, or the processor.

    It looks at the driver's files, which costs nothing. Windows' Linux has only one of them.
    """
    gpus, devices = GPUS
    has_gpu = any(gpus.glob("*")) or any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()
    return "cuda" if has_gpu else "cpu"


@dataclass(frozen=True)
class Environment:
    """The contents of an engine's environment.

    Attributes:
        name: its folder, and its name in commands.
        requirements: files of pins, installed in turn. Later ones are built against the packages
            of the first.
        distribution: the distribution whose version is the engine's.
        modules: modules that must import in a complete environment.
        cuda: the files of pins for a machine with an NVIDIA GPU; empty: the same.
        complete: the pins for a CPU name every distribution, and other dependencies stay out.
        metadata: names and versions of distributions that a module looks up; they are written if
            the pins do not bring them.
        extra: modules of Paddock's extra of the same name. If Paddock's own environment has them,
            they are enough for safetensors that are not quantized.
        architectures: a program that prints the architectures that the engine knows, as a JSON list
            of the names that stand in `config.json`; run once, after the install.
    """

    name: str
    requirements: tuple[Path, ...]
    distribution: str
    modules: tuple[str, ...]
    cuda: tuple[Path, ...] = ()
    complete: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    architectures: str = ""

    def pins(self, accelerator: Accelerator) -> tuple[Path, ...]:
        """The files of pins for a machine with, or without, a GPU."""
        return self.cuda if accelerator == "cuda" and self.cuda else self.requirements

    def digest(self, accelerator: Accelerator) -> str:
        """A hash of all that it is made from. An environment of other pins has another digest."""
        facts = [self.modules, self.complete, dict(self.metadata), self.architectures]
        pins = b"".join(file.read_bytes() for file in self.pins(accelerator))
        return hashlib.sha256(pins + json.dumps(facts).encode()).hexdigest()[:16]

    def folder(self, home: Path) -> Path:
        """The folder of its environments."""
        return home / "engines" / self.name

    def installed(self, home: Path | None = None) -> InstalledEnvironment | None:
        """The environment in force; None if there is none."""
        folder = self.folder(home or read_settings().home)
        try:
            record = json.loads((folder / CURRENT).read_text("utf-8"))
            environment = InstalledEnvironment(
                folder=folder / record["folder"],
                digest=record["digest"],
                accelerator=record["accelerator"],
                versions=record["versions"],
                architectures=tuple(record["architectures"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return environment if environment.python.exists() else None

    def shared(self) -> InstalledEnvironment | None:
        """Paddock's own environment; None if it lacks the extra's modules at the pinned version."""
        if not self.extra or not all(map(find_spec, self.extra)):
            return None
        versions = {self.distribution: version(self.distribution)}
        pin = f"{self.distribution}=={versions[self.distribution]}"
        if pin not in self.requirements[0].read_text("utf-8").splitlines():
            return None
        return InstalledEnvironment(
            Path(sys.prefix), "", find_accelerator(), versions, interpreter=sys.executable
        )

    def active(self) -> InstalledEnvironment | None:
        """The environment that the engine runs from: its own, else the `shared` one, else None."""
        return self.installed() or self.shared()

    def is_current(self, environment: InstalledEnvironment) -> bool:
        """Whether an environment has the pins of this Paddock."""
        return environment.digest == self.digest(environment.accelerator)

    def detect(self) -> Detection:
        """The engine's version and architectures, or the command that installs it."""
        install = f"paddock engine install {self.name}"
        environment = self.installed()
        if environment is None:
            shared = self.shared()
            if shared is not None:
                # The user's own torch was built for this machine.
                cuda = shared.accelerator == "cuda"
                return Detection(
                    shared.versions[self.distribution], formats=("pytorch",), cuda=cuda
                )
            return Detection(missing=f"it is not installed; to install it: {install}")
        if not self.is_current(environment):
            return Detection(missing=f"it was installed by another Paddock; again: {install}")
        version, cuda = (
            environment.versions.get(self.distribution, ""),
            environment.accelerator == "cuda",
        )
        return Detection(version, "", environment.architectures, cuda=cuda)


@dataclass(frozen=True)
class InstalledEnvironment:
    """An environment on disk, as `current.json` says. `versions` maps distributions to theirs."""

    folder: Path
    digest: str
    accelerator: Accelerator = "cpu"
    versions: Mapping[str, str] = field(default_factory=dict)
    architectures: tuple[str, ...] = ()
    interpreter: str = ""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return Path(self.interpreter) if self.interpreter else self.folder / _PYTHON
