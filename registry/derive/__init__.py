"""Makes a spec of what a repository holds: pure, from its list of files and what was read of them.

`to_read` says which files that takes: small ones, and the header of one GGUF. What a repository
does not tell becomes a note that users are shown; what a spec cannot do without is an error.
"""

from paddock.registry.derive.found import CARD, SMALL_BYTES, Derived, Found, Reads
from paddock.registry.derive.spec import derive, to_read

__all__ = ["CARD", "SMALL_BYTES", "Derived", "Found", "Reads", "derive", "to_read"]
