"""Hugging Face: addresses, credentials and the cache's layout are huggingface_hub's.

Its client resumes nothing after its process has died, gives up at a reset and checks no hash, so
the bytes of plain files come by `transfer.py`. Files in Xet storage are left to the client.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from httpx2 import HTTPError, TimeoutException  # what huggingface_hub lets escape
from huggingface_hub import (
    DeleteCacheStrategy,
    HfApi,
    HFCacheInfo,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    scan_cache_dir,
)
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._headers import build_hf_headers, get_token_to_send
from huggingface_hub.utils._runtime import is_xet_available
from tqdm.auto import tqdm

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
from paddock.launcher.weights.transfer import FULL, PASSING, Trouble, disk_full_failure, retry_after
from paddock.registry.errors import HubFailure, printable
from paddock.registry.hubs import COMMIT, hub_site
from paddock.registry.spec import Source

_SITE = hub_site("huggingface")
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without symbolic links (exFAT, CIFS) say of one."""
_DIGESTS = {40: "git", 64: "sha256"}
"""What a digest of so many digits is."""


class HuggingFace:
    """See `base.Hub`."""

    name = _SITE.name
    title = _SITE.title
    default_revision = "main"

    @property
    def endpoint(self) -> str:
        """HF_ENDPOINT, or the public hub."""
        return str(constants.ENDPOINT)

    @property
    def offline(self) -> str:
        """HF_HUB_OFFLINE, where it is set."""
        return "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else ""

    def resolve(self, source: Source, terms: Terms) -> Listing:
        """One question: the commit, and each file with its size and digest.

        Raises:
            Trouble, HubFailure: see `base.Hub`.
        """
        revision = source.revision or self.default_revision
        api = HfApi(endpoint=self.endpoint, library_name="paddock")
        check_token(self.title, self.endpoint, "HF_TOKEN", self._token())
        try:
            info = api.model_info(
                source.id, revision=revision, timeout=terms.timeout, files_metadata=True
            )
        except OfflineModeIsEnabled as error:
            reason = f"{source.id} is not cached, and HF_HUB_OFFLINE is set"
            raise HubFailure("hub_unreachable", reason) from error
        except HfHubHTTPError as error:
            raise self._failure_of(source, error) from error
        except TimeoutException as error:
            raise Trouble("hub_unreachable", f"no answer in {terms.timeout:g} s") from error
        except HTTPError as error:
            reason = f"{one_line(error)}{by_proxy(self.endpoint)}"
            raise Trouble("hub_unreachable", reason) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # of no JSON, or another
            raise self._no_hub(error) from error
        commit = str(info.sha)
        if not COMMIT.fullmatch(commit):
            raise self._no_hub(f"it names no commit of {source.id}")
        files = tuple(
            RemoteFile(
                check_name(self.title, one.rfilename),
                int(one.lfs.size if one.lfs else one.size or 0),
                f"sha256:{one.lfs.sha256}" if one.lfs else f"git:{one.blob_id}",
            )
            if one.lfs or one.blob_id
            else self._by_head(source.id, commit, check_name(self.title, one.rfilename))
            for one in info.siblings or ()
        )
        return Listing(self.name, source.id, revision, commit, files)

    def folder(self, source: Source, listing: Listing | None) -> Path | None:
        """The snapshot of the listing's commit, or of the one cached for the revision."""
        root = self._root(source.id)
        revision = source.revision or self.default_revision
        if listing is not None:
            commit = listing.commit
        elif COMMIT.fullmatch(revision):
            commit = revision
        else:
            try:
                commit = (root / "refs" / revision).read_text("utf-8").strip()
            except OSError:
                return None
        folder = root / "snapshots" / commit
        return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None

    def cache_paths(self, listing: Listing, file: RemoteFile) -> CachePaths:
        """blobs/ETAG, where the digest is the ETag, with a link in snapshots/COMMIT.

        On a file system without links the file itself stands there, as the client has it.
        """
        root = self._root(listing.id)
        etag = file.digest.partition(":")[2]
        path, blob = root / "snapshots" / listing.commit / file.name, root / "blobs" / etag
        is_copy = path.is_file() and not path.is_symlink() and not blob.exists()
        return CachePaths(
            path=path,
            blob=path if is_copy else blob,
            incomplete=blob.with_name(f"{etag}.incomplete"),
            lock=Path(constants.HF_HUB_CACHE) / ".locks" / root.name / f"{etag}.lock",
        )

    def digest_of(self, path: Path) -> str:
        """The blob's name, which is its digest."""
        name = path.resolve().name
        kind = _DIGESTS.get(len(name))
        return f"{kind}:{name}" if kind and path.resolve().parent.name == "blobs" else ""

    def _token(self) -> str | None:
        """The user's token. Raises `HubFailure` where its file cannot be read."""
        try:
            return get_token_to_send(None)
        except (OSError, ValueError) as error:
            why = f"its file cannot be read ({one_line(error)})"
            raise token_refused(self.title, self.endpoint, "HF_TOKEN", why) from error

    def _no_hub(self, why: object) -> HubFailure:
        return not_a_hub(self.title, self.endpoint, "HF_ENDPOINT", why)

    def request(self, listing: Listing, file: RemoteFile) -> Request:
        """The file at the commit, with the user's token, if there is one."""
        url = hf_hub_url(listing.id, file.name, revision=listing.commit, endpoint=self.endpoint)
        return Request(url, build_hf_headers(library_name="paddock"))

    def bring(self, listing: Listing, file: RemoteFile, pulse: Callable[[int], None]) -> bool:
        """Files in Xet storage, by the client: hf_xet resumes and checks them by chunks.

        Raises:
            Trouble: see `base.Hub`.
        """
        if not file.digest.startswith("sha256:") or not is_xet_available():
            return False
        request = self.request(listing, file)
        try:
            metadata = get_hf_file_metadata(
                request.url, timeout=constants.HF_HUB_ETAG_TIMEOUT, headers=request.headers
            )
        except (HfHubHTTPError, HTTPError):
            return False  # the transfer finds out what is wrong, and says it
        if metadata.xet_file_data is None:
            return False
        label = f"{listing.id}, {file.name}"
        try:
            hf_hub_download(
                listing.id,
                file.name,
                revision=listing.commit,
                endpoint=self.endpoint,
                library_name="paddock",
                tqdm_class=_meter(pulse),
            )
        except OSError as error:
            if error.errno in FULL:
                raise disk_full_failure(label, error) from error
            raise Trouble("hub_unreachable", one_line(error)) from error
        except (HTTPError, RuntimeError) as error:  # hf_xet raises the latter
            raise Trouble("hub_unreachable", one_line(error)) from error
        return True

    def publish(self, listing: Listing, paths: CachePaths) -> None:
        """The link in the snapshot, and the commit under the branch's name."""
        paths.path.parent.mkdir(parents=True, exist_ok=True)
        if paths.blob != paths.path:
            _link(paths.path, paths.blob)
        if listing.revision != listing.commit:
            ref = self._root(listing.id) / "refs" / listing.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            new = ref.with_name(f"{ref.name}.{uuid.uuid4().hex[:8]}.tmp")
            new.write_text(listing.commit, "utf-8")
            new.replace(ref)

    def refused(self, listing: Listing, name: str, status: int, code: str) -> HubFailure:
        """From `X-Error-Code`, or the status where a mirror sends none."""
        if code == "EntryNotFound" or (status == 404 and not code):
            return HubFailure("not_found", f"{listing.id} has no file {name}")
        if status == 401 and code != "GatedRepo" and self._token():
            return token_refused(self.title, self.endpoint, "HF_TOKEN", "")
        if code in {"RepoNotFound", "RevisionNotFound"}:
            return self._missing_failure(listing.id, listing.revision)
        if status in {401, 403}:
            return self._gated_failure(listing.id)
        attempts = (f"{self.title}, {self.endpoint}: HTTP {status} for {name}",)
        reason = f"{self.title} answered {status} for {name} of {listing.id}"
        return HubFailure("hub_unreachable", reason, attempts)

    def repositories(self) -> Iterator[Repository]:
        """As the client scans its cache."""
        scan = _scan()
        for repo in scan.repos if scan is not None else ():
            path = Path(repo.repo_path)
            parts = part_bytes(path)
            # The client leaves an empty folder of a repository whose files it has deleted.
            if repo.repo_type == "model" and (repo.size_on_disk or parts):
                yield Repository(self.name, repo.repo_id, path, repo.size_on_disk, parts)

    def removable(self, source: Source, files: Collection[Path]) -> Collection[Path]:
        """Links, blobs that no other revision has, and folders that would be empty."""
        plan = self._removal(source, files)
        if plan is None:
            return ()
        return {*plan.files, *plan.blobs, *plan.snapshots, *plan.refs, *plan.repos}

    def remove(self, source: Source, files: Collection[Path]) -> None:
        """By the client's own means."""
        plan = self._removal(source, files)
        if plan is not None:
            plan.execute()

    def _removal(self, source: Source, files: Collection[Path]) -> DeleteCacheStrategy | None:
        """What the client would delete: the files, or else every revision that has one of them."""
        scan = _scan()
        if scan is None or not files:
            return None
        revisions = [revision for repo in scan.repos for revision in repo.revisions]
        if source.file:
            cached = [file for revision in revisions for file in revision.files]
            return scan.delete_files(*(file for file in cached if file.file_path in files))
        holding = [r for r in revisions if any(file.file_path in files for file in r.files)]
        return scan.delete_revisions(*(revision.commit_hash for revision in holding))

    def _failure_of(self, source: Source, error: HfHubHTTPError) -> HubFailure | Trouble:
        answer, revision = error.response, source.revision or self.default_revision
        if isinstance(error, GatedRepoError):
            return self._gated_failure(source.id)
        said = answer.headers.get("x-error-message", "")
        # To who sends no token, 401 says that a repository is private or is not there.
        if answer.status_code == 401 and (self._token() or said.startswith("Invalid")):
            return token_refused(self.title, self.endpoint, "HF_TOKEN", printable(said))
        missing = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)
        if missing or answer.status_code == 404:
            return self._missing_failure(source.id, revision)
        between = refusal_between(self.title, self.endpoint, answer.status_code, answer.headers)
        return between or self._failure_of_status(source, error)

    def _failure_of_status(self, source: Source, error: HfHubHTTPError) -> HubFailure | Trouble:
        answer = error.response
        if answer.status_code in PASSING:
            cause = "rate_limited" if answer.status_code == 429 else "hub_unreachable"
            wait = retry_after(answer.headers, time.time())
            return Trouble(cause, f"HTTP {answer.status_code}", wait)
        if answer.status_code in {401, 403}:
            return self._gated_failure(source.id)
        message = one_line(error)
        attempts = (f"{self.title}, {self.endpoint}: {message}",)
        return HubFailure("hub_unreachable", f"{self.title} answered: {message}", attempts)

    def _by_head(self, identity: str, commit: str, name: str) -> RemoteFile:
        """A file of a mirror whose list has names only: its size and digest are in its head."""
        url = hf_hub_url(identity, name, revision=commit, endpoint=self.endpoint)
        try:
            metadata = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except (HfHubHTTPError, HTTPError) as error:
            raise Trouble("hub_unreachable", one_line(error)) from error
        kind = _DIGESTS.get(len(metadata.etag or ""))
        if kind is None or metadata.size is None:
            reason = f"{self.endpoint} tells neither size nor digest of {name} in {identity}"
            raise HubFailure("not_found", f"{reason}; is HF_ENDPOINT a hub?")
        return RemoteFile(name, metadata.size, f"{kind}:{metadata.etag}")

    def _gated_failure(self, identity: str) -> HubFailure:
        page = f"{self.endpoint}/{identity}"
        hint = "then give a token by HF_TOKEN or: hf auth login"
        return HubFailure("gated_repo", f"{identity} is gated: ask for access at {page}, {hint}")

    def _missing_failure(self, identity: str, revision: str) -> HubFailure:
        reason = f"{self.title} has no {identity} at {revision}, or none that may be seen without a"
        return HubFailure("not_found", f"{reason} token (HF_TOKEN)")

    def _root(self, identity: str) -> Path:
        folder = repo_folder_name(repo_id=identity, repo_type="model")
        return Path(constants.HF_HUB_CACHE) / folder


def _link(path: Path, blob: Path) -> None:
    """Lets `path` lead to the blob; where there are no links, the blob itself is moved there."""
    target = os.path.relpath(blob, path.parent)
    if path.is_symlink() and os.readlink(path) == target:
        return
    path.unlink(missing_ok=True)
    try:
        if not constants.HF_HUB_DISABLE_SYMLINKS:
            path.symlink_to(target)
            return
    except FileExistsError:  # another process made the same link
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    blob.replace(path)


def _scan() -> HFCacheInfo | None:
    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None


def _meter(pulse: Callable[[int], None]) -> type[Any]:
    """A progress bar that draws nothing; the client moves it as bytes come."""

    class Meter(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._came_bytes = int(kwargs.get("initial") or 0)
            self._bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self._came_bytes += int(n or 0)
            if self._bytes:
                pulse(self._came_bytes)
            return None

    return Meter
