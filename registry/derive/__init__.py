"""Makes a spec from a repository's contents: pure, from its list of files and their texts.

`to_read` names the files to read: small ones, and the header of one GGUF. A fact that the
repository does not state becomes a note for users, or an error where a spec must have it.
"""

from paddock.registry.derive.repository import CARD, SMALL_BYTES, Derived, Reads, RepositoryContents
from paddock.registry.derive.spec import derive, to_read

__all__ = ["CARD", "SMALL_BYTES", "Derived", "RepositoryContents", "Reads", "derive", "to_read"]
