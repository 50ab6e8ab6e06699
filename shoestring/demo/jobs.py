"""The application of the demo: what a project using shoestring looks like. This is the file to copy.

The daemon imports it (`app = "shoestring.demo.jobs:app"` in shoestring.toml) and runs its handlers; whoever wants work
done imports it too and enqueues:

    pages = followers.of(account="troll-of-ada", user="ada")
    job = await block.using(user="ada").fan_out(pages, chunk=50, then=tell.call("ada"))
"""

from __future__ import annotations

import os

import msgspec

from shoestring import Discard, Page, RateLimited, RetryPolicy, Shoestring, Timeout
from shoestring.demo.http import HttpClient, Response

app = Shoestring()
api = HttpClient(os.environ.get("DEMO_API_URL", "http://127.0.0.1:8080"), timeout_s=1.0)

#: The API's bad moments are short: come back soon, at random, and not for ever. Time-outs are OSErrors too.
retry = RetryPolicy(max_attempts=10, base=0.5, cap=30.0, on=(OSError,))


@app.task(queue="block", retry=retry, timeout=Timeout(hard=10.0))
async def block(target: int, *, user: str) -> None:
    """Block one account for a user. Called once per item, inside its chunk; runs again if interrupted."""
    response = await api.request("POST", f"/blocks/{target}", bearer=user)
    match response.status:
        case 200:
            return
        case 404:
            raise Discard("gone")
        case 403:
            raise Discard("suspended")
        case _:
            raise failure(response)


@app.source(retry=retry)
async def followers(cursor: str | None, *, account: str, user: str) -> Page[int]:
    """Read one page of the followers of `account`, with the user's own limits."""
    response = await api.request("GET", f"/followers/{account}?cursor={cursor or ''}", bearer=user)
    if response.status != 200:
        raise failure(response)
    page = msgspec.json.decode(response.body)
    return Page(page["ids"], next=page["next_cursor"])


@app.task(queue="mail", retry=retry)
async def tell(user: str) -> None:
    """Tell a user that the job is done."""
    response = await api.request("POST", "/messages", bearer=user)
    if response.status != 200:
        raise failure(response)


def failure(response: Response) -> BaseException:
    """Return what to raise for an answer that is no result."""
    if response.status == 429:
        # Parks this user's lane until the window opens again. No attempt is burnt, and other users go on.
        return RateLimited(retry_after=float(response.headers["x-ratelimit-reset-after"]))
    if response.status >= 500:
        return ConnectionError(f"the API answered {response.status}")  # retried as the policy says
    return Discard(f"the API answered {response.status}")
