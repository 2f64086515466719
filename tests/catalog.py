"""The built-in catalogue, read once for all tests of a process. It never changes."""

from __future__ import annotations

from paddock.registry.catalog import Catalog

CATALOG = Catalog.load()
