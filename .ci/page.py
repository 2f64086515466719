"""Fetches the dashboard at the given address, with all that its page names, as a browser would."""

import re
import sys
from urllib.parse import urljoin

import requests


def fetched(address: str) -> requests.Response:
    """What is there, packed as browsers take it."""
    answer = requests.get(address, headers={"Accept-Encoding": "br"}, timeout=30)
    answer.raise_for_status()
    packed = answer.headers.get("Content-Encoding", "as it is")
    print(answer.status_code, address, answer.headers["Content-Type"], packed)
    return answer


address = sys.argv[1]
page = requests.get(address, timeout=30).text
scripts = re.findall(r'src="(\./assets/[^"]+\.js)"', page)
assert scripts, f"the page names no script:\n{page}"
for name in scripts:
    assert fetched(urljoin(address, name)).headers["Content-Encoding"] == "br"
for name in re.findall(r'href="(\./[^"]+)"', page):
    fetched(urljoin(address, name))
