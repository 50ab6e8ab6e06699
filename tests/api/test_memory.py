"""What is remembered of each client, and what is forgotten."""

from __future__ import annotations

from shoestring.api.memory import ANSWER_BYTES_MAX, CLIENTS_MAX, WINDOW, Memories

ALICE = "a" * 32
BOB = "b" * 32


def test_a_change_is_begun_once_and_its_answer_sent_again() -> None:
    """A frame that was sent twice must be done once; the second sending still needs its answer."""
    memory = Memories().of(1000, ALICE)
    sent: list[bytes] = []
    memory.send = sent.append

    assert memory.begin(7)
    assert not memory.begin(7)
    memory.settle(7, b"done", keep=True)
    assert not memory.begin(7)

    assert sent == [b"done", b"done"]


def test_the_answer_goes_to_the_newest_connection() -> None:
    """The connection that asked may be gone by then, and the client waits on another."""
    memory = Memories().of(1000, ALICE)
    old: list[bytes] = []
    new: list[bytes] = []
    memory.send = old.append
    memory.begin(1)

    memory.send = new.append
    memory.settle(1, b"done", keep=True)

    assert (old, new) == ([], [b"done"])


def test_an_answer_without_a_connection_is_kept_for_the_next() -> None:
    """The client is on its way back."""
    memory = Memories().of(1000, ALICE)
    memory.begin(1)
    memory.settle(1, b"done", keep=True)
    sent: list[bytes] = []

    memory.send = sent.append

    assert not memory.begin(1)
    assert sent == [b"done"]


def test_a_refusal_for_now_is_not_remembered() -> None:
    """A daemon that was stopping answers Unavailable; asked again it may do it."""
    memory = Memories().of(1000, ALICE)
    memory.begin(1)

    memory.settle(1, b"not now", keep=False)

    assert memory.begin(1)


def test_as_many_answers_are_kept_as_a_client_may_leave_unanswered() -> None:
    """Fewer, and one could be lost and forgotten; more would never be asked for."""
    memory = Memories().of(1000, ALICE)
    for request_id in range(WINDOW + 1):
        memory.begin(request_id)
        memory.settle(request_id, b"done", keep=True)

    assert memory.begin(0)
    assert not memory.begin(1)


def test_another_users_process_does_not_share_a_memory() -> None:
    """Who guesses a client's name must not read its answers."""
    memories = Memories()
    memories.of(1000, ALICE).settle(1, b"secret", keep=True)

    assert memories.of(1001, ALICE).begin(1)
    assert not memories.of(1000, ALICE).begin(1)


def test_the_clients_longest_unused_are_forgotten() -> None:
    """Every short-lived script is a client of its own, and the daemon lives for months."""
    memories = Memories()
    used = memories.of(1, ALICE)
    for number in range(2 * CLIENTS_MAX):
        memories.of(2, f"{number:032}")
        used.settle(number, b"done", keep=True)

    assert len(memories) == CLIENTS_MAX
    assert not memories.of(1, ALICE).begin(2 * CLIENTS_MAX - 1)


def test_the_bytes_kept_are_bounded_over_all_clients() -> None:
    """Answers can be long; a thousand clients' long answers must not fill a small machine."""
    memories = Memories()
    large = bytes(ANSWER_BYTES_MAX // 4)
    for number in range(10):
        memories.of(1, f"{number:032}").settle(1, large, keep=True)

    assert memories.bytes_kept <= ANSWER_BYTES_MAX
    assert memories.bytes_kept == 4 * len(large)
    assert not memories.of(1, f"{9:032}").begin(1)


def test_a_client_forgotten_while_connected_starts_anew() -> None:
    """Its connection still holds the memory; what it adds is counted again, and only that."""
    memories = Memories()
    memory = memories.of(1, ALICE)
    memory.settle(1, bytes(ANSWER_BYTES_MAX), keep=True)
    memories.of(1, BOB).settle(1, b"x", keep=True)

    memory.settle(2, b"yz", keep=True)

    assert memories.bytes_kept == len(b"x") + len(b"yz")
    assert memory.begin(1)
