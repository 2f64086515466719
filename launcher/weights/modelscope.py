"""ModelScope: addresses, credentials and the cache's layout are modelscope_hub's.

That is the part of `modelscope` that speaks to the hub. Its client resumes and checks, but cannot
be called off; so that both hubs behave alike, the bytes come by `transfer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from modelscope_hub import HubApi
from modelscope_hub.config import HubConfig
from modelscope_hub.errors import (
    APIError,
    AuthenticationError,
    HubError,
    NotExistError,
    PermissionDeniedError,
)

from paddock.launcher.weights.base import (
    CachePaths,
    Listing,
    RemoteFile,
    Repository,
    Request,
    Terms,
    check_name,
    one_line,
    part_bytes,
)
from paddock.launcher.weights.intermediary import (
    by_proxy,
    check_token,
    not_a_hub,
    refusal_between,
    token_refused,
)
from paddock.launcher.weights.transfer import PASSING, Trouble
from paddock.registry.errors import HubFailure
from paddock.registry.hubs import hub_site
from paddock.registry.spec import Source

_SITE = hub_site("modelscope")
TOKEN = "MODELSCOPE_API_TOKEN"  # noqa: S105 - the name of a variable


class ModelScope:
    """See `base.Hub`."""

    name = _SITE.name
    title = _SITE.title
    default_revision = "master"

    def __init__(self) -> None:
        self._config = HubConfig()
        self._api = HubApi(self._config)

    @property
    def endpoint(self) -> str:
        """MODELSCOPE_ENDPOINT, or the public hub."""
        return str(self._config.endpoint)

    @property
    def offline(self) -> str:
        """Empty: ModelScope has no such setting."""
        return ""

    def resolve(self, source: Source, terms: Terms) -> Listing:
        """The files with their sizes and SHA-256; ModelScope names no commit for all of them.

        Raises:
            Trouble, HubFailure: see `base.Hub`.
        """
        revision = source.revision or self.default_revision
        check_token(self.title, self.endpoint, TOKEN, self._config.token)
        try:
            entries = self._api.list_repo_files(source.id, "model", revision=revision)
        except AuthenticationError as error:
            if self._config.token:
                raise token_refused(self.title, self.endpoint, TOKEN, "") from error
            raise self._failure_of(source.id, "", 403, one_line(error)) from error
        except (NotExistError, PermissionDeniedError) as error:
            self._check_between(error)
            status = 404 if isinstance(error, NotExistError) else 403
            raise self._failure_of(source.id, "", status, one_line(error)) from error
        except APIError as error:
            self._check_between(error)
            status = error.status_code or 0
            if status in PASSING:
                cause = "rate_limited" if status == 429 else "hub_unreachable"
                raise Trouble(
                    cause, f"HTTP {status}", getattr(error, "retry_after", None)
                ) from error
            raise self._failure_of(source.id, "", status, one_line(error)) from error
        except HubError as error:
            reason = f"{one_line(error)}{by_proxy(self.endpoint)}"
            raise Trouble("hub_unreachable", reason) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # of no JSON, or another
            raise not_a_hub(self.title, self.endpoint, "MODELSCOPE_ENDPOINT", error) from error
        files = tuple(
            RemoteFile(
                check_name(self.title, file.path),
                int(file.size or 0),
                f"sha256:{file.sha256}" if file.sha256 else "",
            )
            for file in entries
            if str(file.type) != "tree"
        )
        if not files:
            raise self._failure_of(source.id, "", 404, f"no files at {revision}")
        return Listing(self.name, source.id, revision, "", files)

    def _check_between(self, error: APIError) -> None:
        """Raises `HubFailure` where something before the hub has answered, with a page."""
        if not isinstance(error.response_body, dict):
            page = {"content-type": "text/html"}
            code = error.status_code or 0
            between = refusal_between(self.title, self.endpoint, code, page)
            if between is not None:
                raise between from error

    def folder(self, source: Source, listing: Listing | None) -> Path | None:
        """The revision's folder."""
        folder = self._folder(source.id, source.revision or self.default_revision)
        return folder if folder.is_dir() else None

    def cache_paths(self, listing: Listing, file: RemoteFile) -> CachePaths:
        """Under its own name, with the client's names for its part and its lock."""
        path = self._folder(listing.id, listing.revision) / file.name
        lock = self._api.downloader._lock_path(listing.id, "model", file_path=file.name)
        return CachePaths(path, path, path.with_name(f"{path.name}.incomplete"), lock)

    def digest_of(self, path: Path) -> str:
        """Empty: the cache does not say."""
        return ""

    def request(self, listing: Listing, file: RemoteFile) -> Request:
        """The file at the revision, with the user's token, if there is one."""
        url = self._api.legacy.get_download_url(listing.id, "model", file.name, listing.revision)
        headers = {"User-Agent": "paddock"}
        token = self._config.token
        if token:
            # What the client sends: older routes read the cookie, newer ones the header.
            headers |= {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}
        return Request(url, headers)

    def bring(self, listing: Listing, file: RemoteFile, pulse: Callable[[int], None]) -> bool:
        """False: all files come over HTTP."""
        return False

    def publish(self, listing: Listing, paths: CachePaths) -> None:
        """Nothing: the file stands under its name."""

    def refused(self, listing: Listing, name: str, status: int, code: str) -> HubFailure:
        """From the status."""
        if status == 401 and self._config.token:
            return token_refused(self.title, self.endpoint, TOKEN, "")
        return self._failure_of(listing.id, name, status, f"HTTP {status}")

    def repositories(self) -> Iterator[Repository]:
        """As the client scans its cache."""
        for repo in self._api.scan_cache(self._config.cache_dir).repos:
            if str(repo.repo_type) == "model" and repo.size_on_disk:
                path = Path(str(repo.local_path))
                parts = part_bytes(path)
                yield Repository(self.name, repo.repo_id, path, repo.size_on_disk - parts, parts)

    def removable(self, source: Source, files: Collection[Path]) -> Collection[Path]:
        """The files: nothing links to them."""
        return files

    def remove(self, source: Source, files: Collection[Path]) -> None:
        """File by file."""
        for path in files:
            path.unlink(missing_ok=True)

    def _failure_of(self, identity: str, name: str, status: int, message: str) -> HubFailure:
        attempts = (f"{self.title}, {self.endpoint}: {message}",)
        if status == 404:
            missing_file = f"{identity} on {self.title} has no file {name}" if name else ""
            return HubFailure(
                "not_found", missing_file or f"{self.title} has no {identity}: {message}"
            )
        if status in {401, 403}:
            page = f"{self.endpoint}/models/{identity}"
            hint = "then give a token by MODELSCOPE_API_TOKEN or: modelscope login"
            reason = f"{identity} is not open to all: ask for access at {page}, {hint}"
            return HubFailure("gated_repo", reason)
        return HubFailure("hub_unreachable", f"{self.title}, {identity}: {message}", attempts)

    def _folder(self, identity: str, revision: str) -> Path:
        """Where the client keeps the repository: in today's layout, or in one before 1.38."""
        downloads = self._api.downloader
        old = downloads._find_legacy_repo_dir(identity, "model")
        if old is not None:
            return old
        return downloads._repo_cache_dir_path(identity, "model") / "snapshots" / revision
