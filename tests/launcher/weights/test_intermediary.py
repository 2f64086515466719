"""Whose answer it is: the hub's, or that of something before it."""

from __future__ import annotations

import pytest

from paddock.launcher.weights.intermediary import proxy_of, refusal_between

HUB = "https://huggingface.co"
HTML = {"content-type": "text/html"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.mark.parametrize(
    ("status", "headers", "is_between"),
    [
        (403, HTML, True),
        (403, {"via": "1.1 squid.example (squid/6)"}, True),
        (403, {"x-squid-error": "ERR_ACCESS_DENIED 0"}, True),
        (407, {}, True),
        (511, HTML, True),
        (403, {}, False),
        (403, {"via": "1.1 a.cloudfront.net (CloudFront)"}, False),
        (403, {**HTML, "x-error-code": "GatedRepo"}, False),
        (403, {**HTML, "x-error-message": "Forbidden"}, False),
        (404, HTML, False),
        (401, HTML, False),
    ],
)
def test_pages_and_signs_of_proxies_are_not_the_hubs(
    status: int, headers: dict[str, str], is_between: bool
) -> None:
    """The hub's own refusals say why in a header."""
    found = refusal_between("Hugging Face", HUB, status, headers)
    assert (found is not None) == is_between
    if found is not None:
        assert (found.cause, HUB in str(found)) == ("hub_unreachable", True)


def test_the_proxy_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the scheme; not for hosts in NO_PROXY, and without its password."""
    assert proxy_of(HUB) == ""
    monkeypatch.setenv("https_proxy", "http://keeper:secret@proxy.example:3128")
    assert proxy_of(HUB) == "http://proxy.example:3128"
    assert proxy_of("http://mirror.example") == ""
    found = refusal_between("Hugging Face", HUB, 403, {})
    assert "the proxy http://proxy.example:3128 refuses" in str(found)
    monkeypatch.setenv("no_proxy", "huggingface.co")
    assert proxy_of(HUB) == ""
