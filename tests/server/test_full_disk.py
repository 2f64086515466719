"""What the gateway answers where it cannot write."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from paddock.registry import files
from paddock.server.access.keys import KeyStore
from paddock.server.http.errors import on_os_error
from tests.server.asgi import bearer, call, gateway, head
from tests.server.conftest import toolful_spec


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 500)])
async def test_keys_and_registrations_say_that_the_disk_is_full(
    home: Path, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    """One clear error with the path; the keys of before are as they were."""
    key = bearer(KeyStore(home).create("a").secret)
    really = os.open

    def refused(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_EXCL:
            raise OSError(code, os.strerror(code), str(path))
        return really(path, flags, *more, **named)

    with gateway(home) as app:
        monkeypatch.setattr(files.os, "open", refused)
        made = await call(app, "POST", "/v1/keys", key, {"name": "b"})
        registered = await call(
            app, "POST", "/v1/model_registrations/LLM", key, {"model": toolful_spec()}
        )
        for answer, name in ((made, "keys.json"), (registered, "toolful.yaml")):
            assert answer.status == status, answer.json
            error = answer.json["error"]
            assert error["code"] == ("DiskFull" if status == 507 else "NotWritten")
            assert error["path"].endswith(name)
            assert os.strerror(code) in error["message"]
    assert len(KeyStore(home).listing()) == 1


async def test_any_refused_write_is_no_bug() -> None:
    """Whatever route it is in; other errors of the system are."""
    request = Request(head("POST", "/v1/x", {}))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b")
    assert (await on_os_error(request, full)).status_code == 507
    assert b"/a/b" in bytes((await on_os_error(request, full)).body)
    assert (await on_os_error(request, OSError(errno.EBADF, "x"))).status_code == 500
