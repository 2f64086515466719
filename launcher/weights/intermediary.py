"""Tells a hub's own answers from those of a proxy, a firewall or a login page before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from paddock.launcher.weights.base import one_line
from paddock.registry.errors import HubFailure

_SIGNS = ("x-squid-error", "proxy-authenticate", "proxy-connection", "x-proxy-error")

# What delivers for the hubs themselves.
_NETWORKS = re.compile(r"cloudfront|varnish|google|akamai|alicdn|tengine", re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+")


def proxy_of(endpoint: str) -> str:
    """The proxy by which the environment has an endpoint reached, without its password; or empty.

    `NO_PROXY` counts.
    """
    parts = urlsplit(endpoint)
    proxies = getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not address or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def by_proxy(endpoint: str) -> str:
    """Returns words that name an endpoint's proxy, to stand behind a reason; or empty."""
    proxy = proxy_of(endpoint)
    return f", by the proxy {proxy}" if proxy else ""


def refusal_between(
    title: str, endpoint: str, status: int, headers: Mapping[str, str]
) -> HubFailure | None:
    """The failure of an answer that is not the hub's, but of something before it; None of others.

    Hugging Face says why it refuses in a header, and answers JSON; proxies answer pages.
    """
    if status not in {403, 407, 451, 511}:
        return None
    if headers.get("x-error-code") or headers.get("x-error-message"):
        return None
    proxy = proxy_of(endpoint)
    is_page = headers.get("content-type", "").partition(";")[0].strip().endswith("html")
    via = headers.get("via", "")
    has_sign = any(headers.get(name) for name in _SIGNS) or bool(via and not _NETWORKS.search(via))
    if not (status in {407, 511} or is_page or has_sign or (proxy and status == 403)):
        return None
    who = f"the proxy {proxy}" if proxy else "a proxy, a firewall or a login page before it"
    reason = f"{who} refuses to reach {title} ({endpoint}: HTTP {status})"
    hint = f"ask whoever runs it, or name {urlsplit(endpoint).hostname} in NO_PROXY"
    if not proxy:
        hint = "ask whoever runs the network, or name a mirror"
    return HubFailure("hub_unreachable", f"{reason}; {hint}", (f"{endpoint}: HTTP {status}",))


def not_a_hub(title: str, endpoint: str, variable: str, error: object) -> HubFailure:
    """The failure of an endpoint that answers, but not as the hub does; `variable` names it."""
    why = one_line(error) if isinstance(error, BaseException) else str(error)
    reason = f"{endpoint} answers, but not as {title} does ({why})"
    hint = f"is {variable} a hub, or does a login page of the network answer?"
    return HubFailure("hub_unreachable", f"{reason}: {hint}", (f"{title}, {endpoint}: {why}",))


def token_refused(title: str, endpoint: str, variable: str, why: str) -> HubFailure:
    """The failure of a token that the hub does not take, or that cannot be one."""
    reason = f"{title} ({endpoint}) does not take the token: {why or 'it may have expired'}"
    hint = f"give another by {variable}, or none: what is public needs none"
    return HubFailure("token_refused", f"{reason}; {hint}")


def check_token(title: str, endpoint: str, variable: str, token: str | None) -> None:
    """Refuses a token that no request can carry.

    Raises:
        HubFailure: `token_refused`.
    """
    if token and not _TOKEN.fullmatch(token):
        raise token_refused(title, endpoint, variable, "it has characters that no token has")
