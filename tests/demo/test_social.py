"""The stub's model of the API: windows, fates and counts, without sockets or clocks."""

from __future__ import annotations

import json

from shoestring.demo.social import ID_SPAN, Rules, SocialApi, Window, fate_of

CALM = {"blocks_per_window": 1_000_000, "errors": 0.0, "late": 0.0, "gone": 0.0, "suspended": 0.0}


def rules(**changes: object) -> Rules:
    return Rules(**{"users": ["ada", "ben"], "followers": [10, 20], **CALM, **changes})  # type: ignore[arg-type]


def test_a_window_grants_its_calls_then_tells_when_it_opens_again() -> None:
    """A client that waits as told must never be refused twice for the same window."""
    window = Window(2, 10.0, 0.0)

    assert [window.take(101.0), window.take(102.0)] == [None, None]
    assert window.take(102.5) == 7.5
    assert window.take(110.0) is None


def test_windows_of_different_users_open_at_different_times() -> None:
    """All users parked and released in step would hide that one parked lane does not hold up another."""
    api = SocialApi(rules(blocks_per_window=0, window_s=10.0))

    ada = api.block("ada", ID_SPAN + 1, 100.0)
    ben = api.block("ben", 2 * ID_SPAN + 1, 100.0)

    assert (ada.status, ada.reset_after_s) == (429, 10.0)
    assert (ben.status, ben.reset_after_s) == (429, 5.0)


def test_an_account_blocked_twice_counts_once_and_as_one_repeated_call() -> None:
    """The whole demo rests on this count being of accounts, not of calls."""
    api = SocialApi(rules())

    statuses = [api.block("ada", ID_SPAN + place, 0.0).status for place in (1, 2, 1)]

    assert statuses == [200, 200, 200]
    ada = api.stats()[0]
    assert (ada.blocked, ada.block_calls, ada.repeated, ada.repeated_late) == (2, 3, 1, 0)


def test_a_call_repeated_after_a_late_answer_is_told_apart() -> None:
    """The API's slowness and a killed daemon both cause repeated calls; the table must blame the right one."""
    api = SocialApi(rules(late=1.0, late_s=3.0))

    first = api.block("ada", ID_SPAN + 1, 0.0)
    api.block("ada", ID_SPAN + 1, 0.0)

    assert (first.status, first.delay_s) == (200, 3.0)
    ada = api.stats()[0]
    assert (ada.blocked, ada.repeated, ada.repeated_late, ada.late) == (1, 0, 1, 2)


def test_a_server_error_leaves_the_account_untouched() -> None:
    """A 5xx that had blocked would make the repeated calls uncountable."""
    api = SocialApi(rules(errors=1.0))

    assert api.block("ada", ID_SPAN + 1, 0.0).status in (500, 503)
    ada = api.stats()[0]
    assert (ada.blocked, ada.errors, ada.repeated) == (0, 1, 0)


def test_the_fate_of_an_account_depends_on_nothing_but_seed_and_id() -> None:
    """A call repeated after a crash must come to the same, or the books could not balance."""
    mixed = rules(followers=[2_000, 20], gone=0.1, suspended=0.05, seed=7)
    first, again = SocialApi(mixed), SocialApi(mixed)

    statuses = [first.block("ada", ID_SPAN + place, 0.0).status for place in range(1, 2_001)]
    backwards = [again.block("ada", ID_SPAN + place, 0.0).status for place in range(2_000, 0, -1)]

    assert statuses == backwards[::-1]
    ada = first.stats()[0]
    assert ada.blocked + ada.gone + ada.suspended == 2_000
    assert (statuses.count(404), statuses.count(403)) == (ada.gone, ada.suspended)
    assert 140 < ada.gone < 260
    assert 60 < ada.suspended < 140
    assert fate_of(1, mixed) == fate_of(1, mixed)


def test_pages_hold_every_follower_once() -> None:
    """What the pages leave out could never be missed in the closing table."""
    api = SocialApi(rules(followers=[10, 20], page_size=8))
    ids: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = json.loads(api.followers("ben", "troll-of-ben", cursor, 0.0).body)
        ids += page["ids"]
        cursor = page["next_cursor"]

    assert [2 * ID_SPAN + place for place in range(1, 21)] == ids
    assert api.stats()[1].page_calls == 3


def test_what_nobody_asked_for_is_refused_and_counted() -> None:
    """A block of a stranger is a bug of the caller that must show in the books."""
    api = SocialApi(rules())

    assert api.block("eve", 1, 0.0).status == 401
    assert api.followers("ada", "troll-of-ben", "", 0.0).status == 400
    assert api.followers("ada", "troll-of-ada", "-1", 0.0).status == 400
    assert api.block("ada", 2 * ID_SPAN + 1, 0.0).status == 404
    assert api.stats()[0].stray == 1
