"""What a message may make the gateway fetch, and what it may not."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from paddock.registry.errors import BadValue, TooLarge
from paddock.server.access.media import (
    MAX_URLS,
    Address,
    Guard,
    Media,
    fetch,
    inline_media,
    is_public,
)

PICTURE = b"\x89PNG of a hay barn"


@dataclass
class Web:
    """A site of this test on 127.0.0.1, and a resolver that says what the test wants."""

    port: int = 0
    seen: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    never: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str, host: str = "barn.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def resolve(self, host: str, _: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.answers.get(host, ["127.0.0.1"])
        return [answers.pop(0) if len(answers) > 1 else answers[0]]

    @property
    def guard(self) -> Guard:
        """One to which the site's address is public, and no other one of this machine."""
        return Guard(allowed=_site_or_public, resolve=self.resolve, timeout=10)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        self.hosts.append(request.headers["Host"])
        return await getattr(self, request.match_info["page"])(request)

    async def picture(self, request: web.Request) -> web.StreamResponse:
        assert "Cookie" not in request.headers
        assert "Authorization" not in request.headers
        return web.Response(body=PICTURE, content_type="image/png")

    async def to(self, request: web.Request) -> web.StreamResponse:
        status = int(request.query.get("status", "302"))
        headers = {"Location": request.query["where"], "Set-Cookie": "a=b"}
        return web.Response(status=status, headers=headers)

    async def typed(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x", headers={"Content-Type": request.query.get("type", "")})

    async def packed(self, _: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
        return web.Response(body=b"x", headers=headers)

    async def missing(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=404, content_type="image/png")

    async def announced(self, request: web.Request) -> web.StreamResponse:
        made = web.StreamResponse(headers={"Content-Type": "image/png"})
        made.content_length = 1_000_000_000_000
        await made.prepare(request)
        await self.never.wait()
        return made

    async def endless(self, request: web.Request) -> web.StreamResponse:
        made = web.StreamResponse(headers={"Content-Type": "image/png"})
        await made.prepare(request)
        while not self.never.is_set():
            await made.write(b"x" * 10_000)
        return made

    async def silent(self, request: web.Request) -> web.StreamResponse:
        made = web.StreamResponse(headers={"Content-Type": "image/png"})
        await made.prepare(request)
        await self.never.wait()
        return made


def _site_or_public(address: Address) -> bool:
    return address == ipaddress.ip_address("127.0.0.1") or is_public(address)


@asynccontextmanager
async def serving() -> AsyncIterator[Web]:
    """The site, as long as the context lasts."""
    site = Web()
    app = web.Application()
    app.router.add_get("/{page}", site.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.port = runner.addresses[0][1]
    try:
        yield site
    finally:
        site.never.set()
        await runner.cleanup()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "192.0.0.8",
        "::", "::1", "fe80::1", "fc00::1", "fd12::1", "fec0::1",
        "ff02::1", "ff0e::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::1",
        "2002:7f00:1::", "2002:a00:1::1", "::127.0.0.1", "::8.8.8.8", "fe80::1%eth0",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Loopback, private, link-local, multicast and reserved ones, in every dress of IPv6."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808",
     "2002:808:808::1"],
)  # fmt: skip
def test_addresses_that_are_public(address: str) -> None:
    """Those of the internet, also within IPv6 ones."""
    assert is_public(ipaddress.ip_address(address))


async def test_picture_is_fetched_by_its_name() -> None:
    """The name is resolved once, its address dialled, and the name sent as Host."""
    async with serving() as site:
        found = await fetch(site.url("/picture"), site.guard)
        assert found == Media("image/png", PICTURE)
        assert found.data_url == f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
        assert site.asked == ["barn.example"]
        assert site.hosts == [f"barn.example:{site.port}"]


async def test_nothing_on_this_machine_is_fetched_by_default() -> None:
    """The guard as it is used lets no request through to loopback, by address or by name."""
    async with serving() as site:
        hosts = (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
        )
        for host in hosts:
            with pytest.raises(BadValue, match="not public"):
                await fetch(site.url("/picture", host))
        assert site.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0X7F000001", "017700000001", "127.1", "127.0.1", "0x7f.1",
        "0177.0.0.1", "127.0.0.0x1", "127.0.0.1.", "0", "127.0.0.256", "1.2.3.4.5", "127.0.0.01",
    ],
)  # fmt: skip
async def test_numbers_that_some_resolvers_take_for_addresses(host: str) -> None:
    """Decimal, octal, hexadecimal and short forms are refused, even where 127.0.0.1 is allowed."""
    async with serving() as site:
        with pytest.raises(BadValue, match="neither a name nor an address"):
            await fetch(site.url("/picture", host), site.guard)
        assert site.seen == site.asked == []


@pytest.mark.parametrize("host", ["127。0。0。1", "①②⑦.0.0.1", "127.0.0.1\u3002"])
async def test_numbers_in_other_scripts_are_those_numbers(host: str) -> None:
    """What the parser makes of them is what is checked."""
    async with serving() as site:
        with pytest.raises(BadValue, match="media"):
            await fetch(site.url("/picture", host))
        assert site.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://barn.example/a", "gopher://barn.example/", "//barn.example/a",
        "barn.example/a", "/etc/passwd", "", "http://", "http:///a", "https://:80/", "javascript:1",
        "http://user@barn.example/", "http://user:password@barn.example/", "http://@barn.example/",
        "http://barn.example\\@127.0.0.1/", "http://barn.example\\.evil.example/",
        "http://barn.example /", "http://barn.example/a\r\nHost: evil", "http://barn.example:0/",
        "http://barn.example:99999/", "http://ba%72n.example/", "http://[fe80::1%25eth0]/",
        "http://[::1/", "http://barn.example/" + "a" * 9000, "data:image/png;base64,AAAA",
    ],
)  # fmt: skip
async def test_what_is_no_plain_address_is_refused(url: str) -> None:
    """Other schemes, users, and what two parsers might read differently; nothing is resolved."""
    async with serving() as site:
        with pytest.raises(BadValue, match="media"):
            await fetch(url, site.guard)
        assert site.asked == []


async def test_each_of_a_names_addresses_must_be_public() -> None:
    """One private address among public ones is enough to refuse the name."""

    async def resolve(_: str, __: int) -> Sequence[str]:
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(BadValue, match="not public") as refused:
        await fetch("http://barn.example/picture", Guard(resolve=resolve))
    assert "10.0.0.1" not in str(refused.value)


async def test_name_that_is_rebound_is_dialled_at_the_checked_address() -> None:
    """A second answer of the resolver is never asked for, so that it can lead nowhere."""
    async with serving() as site:
        site.answers["barn.example"] = ["127.0.0.1", "127.0.0.2"]
        assert (await fetch(site.url("/picture"), site.guard)).data == PICTURE
        assert site.asked == ["barn.example"]
        # The other way round: what the first answer says counts.
        site.answers["barn.example"] = ["127.0.0.2", "127.0.0.1"]
        with pytest.raises(BadValue, match="not public"):
            await fetch(site.url("/picture"), site.guard)
        assert site.seen == ["/picture"]


async def test_redirects_are_followed_and_checked_each() -> None:
    """Relative and absolute ones are followed, and a name is resolved anew for each."""
    async with serving() as site:
        for status in (301, 302, 303, 307, 308):
            url = site.url(f"/to?status={status}&where=/picture")
            assert (await fetch(url, site.guard)).data == PICTURE
        site.asked.clear()
        elsewhere = site.url("/to?where=" + site.url("/picture", "field.example"))
        assert (await fetch(elsewhere, site.guard)).data == PICTURE
        assert site.asked == ["barn.example", "field.example"]
        # A name may be bound anew between two redirects.
        site.answers["barn.example"] = ["127.0.0.1", "127.0.0.2"]
        with pytest.raises(BadValue, match="not public"):
            await fetch(site.url("/to?where=/picture"), site.guard)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://127.0.0.2/", "not public"),
        ("http://[::1]/", "not public"),
        ("http://[::ffff:169.254.169.254]/", "not public"),
        ("//169.254.169.254/", "not public"),
        ("http://2130706433/", "neither a name"),
        ("file:///etc/passwd", "http://"),
        ("data:image/png;base64,AAAA", "http://"),
        ("http://user@8.8.8.8/", "user"),
        ("", "redirects more than"),
        ("/to?where=x", "redirects more than|answers"),
    ],
)
async def test_redirects_lead_nowhere_else(where: str, says: str) -> None:
    """A site cannot send the gateway where a message could not."""
    async with serving() as site:
        with pytest.raises(BadValue, match=says):
            await fetch(site.url(f"/to?where={where}"), site.guard)


async def test_redirects_in_a_circle_end() -> None:
    """Three are followed, and no more."""
    async with serving() as site:
        with pytest.raises(BadValue, match="more than 3 times"):
            await fetch(site.url("/to?where="), site.guard)
        assert len(site.seen) == 4


@pytest.mark.parametrize(
    "page",
    [
        "typed?type=text/html", "typed?type=", "typed?type=application/octet-stream",
        "typed?type=image/svg%2Bxml", "typed?type=image", "typed?type=image/;", "packed", "missing",
    ],
)  # fmt: skip
async def test_only_pictures_sounds_and_films_are_taken(page: str) -> None:
    """Another type, a packed body and an error are refused; the answer's text is not shown."""
    async with serving() as site:
        with pytest.raises(BadValue, match=r"not a picture|packed|404"):
            await fetch(site.url(f"/{page}"), site.guard)


@pytest.mark.parametrize("page", ["announced", "endless"])
async def test_size_is_limited(page: str) -> None:
    """What is announced as too large is not read, and what turns out so is left."""
    async with serving() as site:
        with pytest.raises(TooLarge, match="100000 bytes"):
            await fetch(site.url(f"/{page}"), replace(site.guard, max_bytes=100_000))


async def test_time_is_limited() -> None:
    """A server that says nothing, and a resolver that does not answer, end with the timeout."""

    async def stuck(_: str, __: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with serving() as site:
        for guard in (site.guard, replace(site.guard, resolve=stuck)):
            with pytest.raises(BadValue, match=r"more than 0\.2 s"):
                await fetch(site.url("/silent"), replace(guard, timeout=0.2))


async def test_host_that_is_unknown_or_deaf_is_said() -> None:
    """Neither says which address it was."""

    async def unknown(_: str, __: int) -> Sequence[str]:
        raise OSError("no such host")

    async with serving() as site:
        with pytest.raises(BadValue, match="not known"):
            await fetch(site.url("/picture"), replace(site.guard, resolve=unknown))
        with pytest.raises(BadValue, match="does not answer") as deaf:
            await fetch("http://barn.example:1/picture", site.guard)
        assert "127.0.0.1" not in str(deaf.value)


async def test_messages_get_data_in_place_of_addresses() -> None:
    """All shapes of parts are found, each address is fetched once, and the given stays as it is."""
    data = Media("image/png", PICTURE).data_url
    async with serving() as site:
        url = site.url("/picture")
        given: list[dict[str, Any]] = [
            {"role": "system", "content": "http://barn.example/ is only text"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": url},
                    {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
                    {"type": "image_url", "image_url": url},
                    {"type": "image_url", "image_url": {"url": data}},
                    {"type": "video_url", "video_url": {"url": url}},
                    {"type": "image", "image": url},
                    {"type": "image", "url": url},
                    {"image_url": {"url": url}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                ],
            },
        ]
        made = await inline_media(given, site.guard)
        assert made is not None
        assert made[0] == given[0]
        assert made[1]["content"] == [
            {"type": "text", "text": url},
            {"type": "image_url", "image_url": {"url": data, "detail": "low"}},
            {"type": "image_url", "image_url": data},
            {"type": "image_url", "image_url": {"url": data}},
            {"type": "video_url", "video_url": {"url": data}},
            {"type": "image", "image": data},
            {"type": "image", "url": data},
            {"image_url": {"url": data}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ]
        assert given[1]["content"][1] == {  # type: ignore[index]
            "type": "image_url",
            "image_url": {"url": url, "detail": "low"},
        }
        assert site.seen == ["/picture"]


async def test_messages_without_addresses_are_left_alone() -> None:
    """Nothing is copied where there is nothing to fetch, whatever the messages look like."""
    data = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for messages in (
        [],
        [{"role": "user", "content": "hay"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [data]}],
        [{"role": "user", "content": ["hay", 7, {}]}],
    ):
        assert await inline_media(messages) is None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "/etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "image_url", "image_url": 7},
        {"type": "image_url", "image_url": "FILE:/etc/passwd"},
        {"type": "image_url", "image_url": {"url": " http://127.0.0.1/"}},
        {"type": "image", "image": "file:///etc/passwd"},
        {"type": "image", "image": "/etc/passwd"},
        {"type": "image", "image": "secret"},
        {"type": "image_url", "image_url": "AAAA"},
        {"type": "image", "path": "/etc/passwd"},
        {"type": "image", "image": {"path": "/etc/passwd"}},
        {"type": "image", "image": "../secret.png"},
        {"type": "input_audio", "input_audio": {"data": "file:///etc/passwd"}},
        {"type": "input_audio", "input_audio": {"data": "http://127.0.0.1/a.wav"}},
        {"type": "audio_url", "audio_url": {"url": "http://localhost/a.wav"}},
        {"type": "other", "url": "http://127.0.0.1/"},
        {"type": "image_url", "image_url": {"url": "data:text/html;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "data:image/png,AAAA"}},
    ],
)
async def test_no_part_of_a_message_leads_elsewhere(part: dict[str, object]) -> None:
    """Files, paths and private addresses are refused wherever in a part they stand."""
    with pytest.raises(BadValue):
        await inline_media([{"role": "user", "content": [part]}])


async def test_request_as_a_whole_is_limited() -> None:
    """Too many addresses, and too much of all together, are refused."""
    async with serving() as site:

        def parts(count: int) -> list[dict[str, object]]:
            urls = [site.url(f"/picture?{n}") for n in range(count)]
            content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            return [{"role": "user", "content": content}]

        with pytest.raises(TooLarge, match="addresses"):
            await inline_media(parts(MAX_URLS + 1), site.guard)
        assert site.seen == []
        small = replace(site.guard, max_bytes=len(PICTURE))
        assert await inline_media(parts(2), small) is not None
        with pytest.raises(TooLarge, match="bytes"):
            await inline_media(parts(3), small)
        data = f"data:image/png;base64,{'A' * 1000}"
        large = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}]
        with pytest.raises(TooLarge, match="bytes"):
            await inline_media(large, replace(site.guard, max_bytes=100))
