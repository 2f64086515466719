"""Which routes a key of each scope reaches, from what the routes say themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from starlette.routing import BaseRoute

from paddock.server.http.operation import Operation


class Reach:
    """The scopes of an application's routes; what is no `Operation` is for admins.

    `routes` may grow until the first request: then their scopes are read.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes

    @cached_property
    def _by_scope(self) -> dict[str, frozenset[tuple[str, str]]]:
        scopes: dict[str, set[tuple[str, str]]] = {}
        for route in self._routes:
            if isinstance(route, Operation):
                scopes.setdefault(route.doc.scope, set()).add((route.method, route.path))
        return {scope: frozenset(reached) for scope, reached in scopes.items()}

    @cached_property
    def _open(self) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
        routes = [one for one in self._routes if isinstance(one, Operation)]
        open_routes = [one for one in routes if one.doc.scope == "open"]
        templates = tuple(one.path_regex for one in open_routes if one.param_convertors)
        return frozenset(one.path for one in open_routes), templates

    def is_open(self, path: str) -> bool:
        """Whether the path is open to anybody, whatever the method."""
        paths, templates = self._open
        if path in paths:
            return True
        for template in templates:  # noqa: SIM110 - before each request: a generator costs more
            if template.fullmatch(path):
                return True
        return False

    def reaches(self, scope: str, method: str, path: str) -> bool:
        """Whether a key of the scope reaches the route of this very path, or template."""
        return (method, path) in self._by_scope.get(scope, _NOTHING)


_NOTHING: frozenset[tuple[str, str]] = frozenset()
