"""What other packages add by entry points. One that cannot be read is left out, with a warning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from paddock.registry.errors import BadValue

T = TypeVar("T")


def load_added(group: str, kind: type[T]) -> Iterator[T]:
    """The objects of this type that packages name in an entry point group. Takes some 20 ms."""
    import logging
    from importlib.metadata import entry_points

    log = logging.getLogger(__name__)
    for point in entry_points(group=group):
        try:
            value = point.load()
        except (ImportError, AttributeError, BadValue) as error:
            message = "%s of %s is left out: %s cannot be read: %s"
            log.warning(message, point.name, group, point.value, error)
            continue
        if isinstance(value, kind):
            yield value
        else:
            message = "%s of %s is left out: %s is no %s"
            log.warning(message, point.name, group, point.value, kind.__name__)
