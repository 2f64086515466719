"""Fetches what a chat message points at, so that engines get data and never addresses.

An address in a request is chosen by a stranger, and the gateway stands where strangers do not. So:
http and https only; one parser for what is checked and what is dialled; the host is resolved once,
each of its addresses must be public, and the connection goes to one of these very addresses, so
that a name that resolves differently a moment later changes nothing; redirects are followed by hand
and each is checked anew; size, time and type are limited; no cookies, no proxy, no credentials.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddock.registry.errors import BadValue, TooLarge, printable

if TYPE_CHECKING:
    import aiohttp
    import yarl
    from aiohttp.abc import ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

KINDS = ("image", "audio", "video")
REFUSED_TYPES = frozenset({"image/svg+xml"})  # a document with links and scripts, not a picture
MAX_URLS = 32
"""Remote addresses in one request."""
# Where parts of messages hold media: OpenAI's keys, and those of chat templates.
KEYS = ("image_url", "video_url", "audio_url", "input_audio", "image", "video", "audio")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_DATA = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)(;[a-z0-9=.+-]+)*;base64,", re.ASCII | re.I)
_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+", re.ASCII)
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?", re.ASCII | re.IGNORECASE)
_USER = re.compile(r"([a-z][a-z0-9+.-]*:)?//[^/?#]*@", re.ASCII | re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]*", re.ASCII)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL = ipaddress.ip_network("2000::/3")  # all that is given out of IPv6
# Reserved by RFC 6890 and RFC 7526; `is_global` of older Pythons does not know.
_RESERVED = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))


def is_public(address: Address) -> bool:
    """Whether an address is on the internet, an IPv4 address within an IPv6 one included."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            return is_public(inner)
        return address in _GLOBAL and address.is_global
    if any(address in network for network in _RESERVED):
        return False
    return address.is_global and not address.is_multicast


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system knows them. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Guard:
    """What may be fetched, and how. `allowed` and `resolve` are there for tests.

    Attributes:
        max_bytes: of one thing; of all things in one request twice as much.
        timeout: seconds for one thing, redirects included.
    """

    allowed: Callable[[Address], bool] = is_public
    resolve: Resolve = resolve
    max_bytes: int = 32_000_000
    timeout: float = 20.0
    redirects: int = 3


GUARD = Guard()


@dataclass(frozen=True)
class Media:
    """What was fetched."""

    type: str
    data: bytes

    @property
    def data_url(self) -> str:
        """As a `data:` URL."""
        return f"data:{self.type};base64,{base64.b64encode(self.data).decode('ascii')}"


async def fetch(url: str, guard: Guard = GUARD) -> Media:
    """Fetches one thing from the internet.

    Raises:
        BadValue: an address that is not allowed, does not answer, or is no picture, sound or film.
        TooLarge: it is over `guard.max_bytes`.
    """
    try:
        async with asyncio.timeout(guard.timeout):
            return await _fetch(url, guard)
    except TimeoutError:
        raise _refused(url, f"took more than {guard.timeout:g} s") from None


async def inline_media(
    messages: Sequence[Mapping[str, Any]], guard: Guard = GUARD
) -> list[dict[str, Any]] | None:
    """The messages with `data:` URLs in place of remote ones; None where there is nothing to do.

    What is given is not changed.

    Raises:
        BadValue: as `fetch`; or an address that is neither http(s) nor data, such as `file:`.
        TooLarge: as `fetch`, of `data:` URLs and of all together too.
    """
    places = list(_places(messages))
    wanted: dict[str, str] = {}
    size = 0
    for url in places:
        if _scheme(url) == "data":
            _check_data(url, guard)
            size += len(url)
        else:
            wanted[url] = ""
    if len(wanted) > MAX_URLS:
        raise TooLarge("messages", f"{len(wanted)} addresses", f"at most {MAX_URLS} are fetched")
    if size > _total(guard):
        raise _too_large("messages", _total(guard))
    if not wanted:
        return None
    for url in wanted:  # one after the other: so many bytes at most are held at once
        found = await fetch(url, guard)
        size += len(found.data)
        if size > _total(guard):
            raise _too_large("messages", _total(guard))
        wanted[url] = found.data_url
    return [_replaced_message(message, wanted) for message in messages]


async def _fetch(text: str, guard: Guard) -> Media:
    import aiohttp

    url = _parse(text)
    # Identity: what is unpacked has no size until it is.
    headers = {"Accept": "image/*, audio/*, video/*", "Accept-Encoding": "identity"}
    for _ in range(guard.redirects + 1):
        addresses = await _addresses(text, url, guard)
        connector = aiohttp.TCPConnector(
            resolver=_pinned(addresses), use_dns_cache=False, force_close=True
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        ) as session:
            try:
                async with session.get(url, headers=headers, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS:
                        return await _read(text, answer, guard)
                    location = answer.headers.get("Location", "")
            except aiohttp.ClientError as error:
                # Without the error's text: it has addresses that are not the client's to know.
                raise _refused(text, f"does not answer ({type(error).__name__})") from error
        url = _parse(location, base=url, shown_as=text)
    raise _refused(text, f"redirects more than {guard.redirects} times")


async def _read(text: str, answer: aiohttp.ClientResponse, guard: Guard) -> Media:
    if answer.status != 200:
        raise _refused(text, f"answers {answer.status}")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not _is_media(kind):
        what = f"'{printable(kind, 60)}'" if kind else "of no type"
        raise _refused(text, f"is {what}, not a picture, a sound or a film")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _refused(text, "comes packed, although it was asked for as it is")
    if (answer.content_length or 0) > guard.max_bytes:
        raise _too_large(text, guard.max_bytes)
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > guard.max_bytes:
            raise _too_large(text, guard.max_bytes)
    return Media(kind, bytes(data))


def _parse(text: str, base: yarl.URL | None = None, shown_as: str = "") -> yarl.URL:
    """The one parser: aiohttp connects to the parts of the very object that is checked here."""
    import yarl

    shown_as = shown_as or text
    if _ODD.search(text) or len(text) > 8192:
        raise _refused(shown_as, "is not a plain address: spaces, backslashes or too long")
    try:
        url = yarl.URL(text) if base is None else base.join(yarl.URL(text))
        host, port = url.raw_host or "", url.port
    except ValueError:
        raise _refused(shown_as, "is not an address") from None
    if url.scheme not in {"http", "https"} or not host or not port:
        raise _refused(shown_as, "must begin with http:// or https:// and name a host, or be data:")
    if _USER.match(text) or url.raw_user is not None or "%" in host:
        raise _refused(shown_as, "names a user, or has a host that is not plain")
    # 2130706433, 0x7f.1 and 017700000001 are 127.0.0.1 to some resolvers.
    if ":" not in host and _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise _refused(shown_as, "has a host that is neither a name nor an address") from None
    return url


async def _addresses(text: str, url: yarl.URL, guard: Guard) -> tuple[str, ...]:
    """The addresses that may be dialled; all of the host's, or it is refused."""
    host, port = url.raw_host or "", url.port or 0
    try:
        found: Iterable[str] = (str(ipaddress.ip_address(host)),)
    except ValueError:
        try:
            found = await guard.resolve(host, port)
        except OSError:
            raise _refused(text, "names a host that is not known") from None
    addresses = tuple(found)
    for address in addresses:
        try:
            allowed = guard.allowed(ipaddress.ip_address(address))
        except ValueError:
            allowed = False
        if not allowed:
            raise _refused(text, "leads to an address that is not public")
    if not addresses:
        raise _refused(text, "names a host that is not known")
    return addresses


def _pinned(addresses: Sequence[str]) -> aiohttp.abc.AbstractResolver:
    """A resolver that knows these addresses only. aiohttp dials an address literal as it is."""
    from aiohttp.abc import AbstractResolver

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            return [
                {
                    "hostname": host,
                    "host": address,
                    "port": port,
                    "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                    "proto": 0,
                    "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                }
                for address in addresses
            ]

        async def close(self) -> None:
            pass

    return Pinned()


def _places(messages: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Every address in the parts of the messages. Raises `BadValue` for paths."""
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping):
                yield from _places_of(part)


def _places_of(part: Mapping[str, Any]) -> Iterable[str]:
    for holder, key in _holders(part):
        value = holder[key]
        if key == "path":
            raise _refused(str(value), "is a path; send a data: URL or an http(s) address")
        if not isinstance(value, str):
            raise BadValue(key, value, "must be an address or a data: URL, as text")
        # OpenAI's `input_audio.data` is base64 by itself. Nothing else is: some engines take a text
        # that is neither URL nor base64 for a path.
        if key == "data" and _BASE64.fullmatch(value):
            continue
        yield value


def _holders(part: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], str]]:
    """The mappings and keys at which a part of a message has addresses."""
    if part.get("type") == "text":
        return
    for key in KEYS:
        value = part.get(key)
        if isinstance(value, Mapping):
            yield from ((value, inner) for inner in ("url", "data", "path") if inner in value)
        elif value is not None:
            yield part, key
    yield from ((part, key) for key in ("url", "path") if key in part)


def _replaced_message(message: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, Any]:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list):
        return dict(message)
    return {**message, "content": [_replaced(part, wanted) for part in content]}


def _replaced(part: Any, wanted: Mapping[str, str]) -> Any:
    if not isinstance(part, Mapping):
        return part
    made = dict(part)
    for holder, key in _holders(part):
        url = holder[key]
        if not isinstance(url, str) or url not in wanted:
            continue
        if holder is part:
            made[key] = wanted[url]
        else:
            outer = next(name for name in KEYS if part.get(name) is holder)
            made[outer] = {**made[outer], key: wanted[url]}
    return made


def _check_data(url: str, guard: Guard) -> None:
    # Four characters are three bytes.
    if len(url) > guard.max_bytes * 4 // 3 + 200:
        raise _too_large(url, guard.max_bytes)
    found = _DATA.match(url[:300])
    if found is None or not _is_media(found[1].lower()):
        raise _refused(url, "must be data:TYPE;base64, with a type of image, audio or video")


def _is_media(kind: str) -> bool:
    if not _TYPE.fullmatch(kind) or kind in REFUSED_TYPES:
        return False
    return kind.partition("/")[0] in KINDS


def _scheme(url: str) -> str:
    head, colon, _ = url[:40].partition(":")
    return head.strip().lower() if colon else ""


def _total(guard: Guard) -> int:
    return guard.max_bytes * 2


def _refused(url: str, reason: str) -> BadValue:
    return BadValue("media", printable(url, 200), reason)


def _too_large(url: str, limit: int) -> TooLarge:
    return TooLarge("media", printable(url, 200), f"is over {limit} bytes")
