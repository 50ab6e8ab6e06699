"""One task from the command line, or a line of stdin each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoestring.core.errors import ArgumentError, QueueFull

from .conftest import Answer, Invoke, Record
from .records import a_handler, a_status

STATUS: dict[str, Answer] = {"status": a_status()}

APP = """
from shoestring import Shoestring

app = Shoestring()


@app.task
async def send_mail(to: str, copies: int = 1) -> None: ...
"""


def stored(first: int) -> Answer:
    """Answer that every task of a frame is stored, with ids from `first`."""

    def answer(params: dict[str, object]) -> object:
        tasks = params["tasks"]
        assert isinstance(tasks, list)
        return {"first": first, "count": len(tasks)}

    return answer


def test_a_task_is_stored_with_its_arguments_as_given(invoke: Invoke, recorded: Record) -> None:
    """The daemon checks them; nothing in between may change them."""
    daemon = recorded({**STATUS, "enqueue": stored(12)})

    result = invoke("enqueue", "send_mail", '{"to": "a@b.example",\n "copies": 2}')

    assert (result.exit_code, result.stdout) == (0, "Task 12 is stored.\n")
    assert daemon.asked[-1] == ("enqueue", {"tasks": [["send_mail", {"to": "a@b.example", "copies": 2}, None]]})
    assert json.loads(invoke("enqueue", "send_mail", "--json").stdout) == {"task_id": 12}


def test_every_option_reaches_the_task(invoke: Invoke, recorded: Record) -> None:
    """What `.using()` can say in a program the command line can say too."""
    daemon = recorded({**STATUS, "enqueue": stored(12)})

    result = invoke(
        *("enqueue", "send_mail", "{}", "--user", "alice", "--queue", "mail", "--priority", "-5", "--delay", "5m"),
        *("--expires", "2d", "--unique", "welcome", "--durability", "durable"),
    )

    assert result.stdout == "Task 12 is stored and due in 5 min.\n"
    options = {
        "user": "alice",
        "queue": "mail",
        "priority": -5,
        "delay_ms": 300_000,
        "expires_in_ms": 172_800_000,
        "unique": "welcome",
        "durability": "durable",
    }
    assert daemon.asked[-1][1] == {"tasks": [["send_mail", {}, options]]}


def test_a_unique_key_that_is_held_stores_nothing_and_is_no_failure(invoke: Invoke, recorded: Record) -> None:
    """`unique` is asked for so that a second call is harmless."""
    recorded({**STATUS, "enqueue": {"results": [{"duplicate_of": 7}]}})

    result = invoke("enqueue", "send_mail", "--unique", "k")

    assert (result.exit_code, result.stdout) == (0, "Nothing new is stored: task 7 holds that unique key.\n")
    assert json.loads(invoke("enqueue", "send_mail", "--unique", "k", "--json").stdout) == {"duplicate_of": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{to: 1}", "the arguments are not JSON"),
        ("", "the arguments are not JSON"),
        ("12", "Give an object of arguments by name"),
        ('{"to": NaN}', "the arguments are not JSON"),
        ('{"to": "a", "to": "b"}', "the key 'to' stands twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["no JSON", "nothing", "a number", "NaN", "a key twice", "too deep"],
)
def test_arguments_that_are_none_are_refused_before_anybody_is_asked(invoke: Invoke, text: str, message: str) -> None:
    """A typing error must cost nothing and say what was expected, with or without a daemon."""
    result = invoke("enqueue", "send_mail", text)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_arguments_that_do_not_fit_show_the_daemons_words(invoke: Invoke, recorded: Record) -> None:
    """It names the handler and the path of the wrong argument."""
    error = ArgumentError("send_mail: argument $.to: expected str, got int")
    body = {"code": error.code, "message": str(error), "data": {}}
    recorded({**STATUS, "enqueue": {"results": [{"error": body}]}})

    result = invoke("enqueue", "send_mail", '{"to": 5}')

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {error}\n")


def test_an_unknown_handler_is_a_typing_error_unless_said_otherwise(invoke: Invoke, recorded: Record) -> None:
    """The daemon would keep it until such a handler is declared; a person meant another name."""
    daemon = recorded({**STATUS, "enqueue": stored(12)})

    result = invoke("enqueue", "send_mial", "{}")

    assert (result.exit_code, result.stdout) == (5, "")
    assert "There is no handler 'send_mial'. Did you mean send_mail? Nothing was stored." in result.stderr
    assert "enqueue" not in {verb for verb, _ in daemon.asked}
    assert invoke("enqueue", "send_mial", "{}", "--undeclared").stdout == "Task 12 is stored.\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--delay", "5"), "Invalid value for '--delay'"),
        (("--delay", "soon"), "write '30s', '5m', '1h' or '3d'"),
        (("--priority", "101"), "Invalid value for '--priority'"),
        (("--durability", "maybe"), "Invalid value for '--durability'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(invoke: Invoke, options: tuple[str, ...], message: str) -> None:
    """A delay without its unit is minutes to one and seconds to another."""
    result = invoke("enqueue", "send_mail", "{}", *options)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_arguments_by_position_get_their_names_from_the_app(invoke: Invoke, recorded: Record, folder: Path) -> None:
    """An array is quicker to type; what travels has names."""
    (folder / "mail_jobs.py").write_text(APP)
    known = a_status(handlers=[a_handler("mail_jobs.send_mail")])
    daemon = recorded({"status": known, "enqueue": stored(12)})

    invoke("enqueue", "mail_jobs.send_mail", '["a@b.example", 2]', "--app", "mail_jobs:app")
    wrong = invoke("enqueue", "mail_jobs.send_mail", "[5]", "--app", "mail_jobs:app")

    assert daemon.asked[-1][1] == {"tasks": [["mail_jobs.send_mail", {"to": "a@b.example", "copies": 2}, None]]}
    assert wrong.exit_code == 2
    assert wrong.stderr.endswith("send_mail: argument $.to: expected str, got int\n")


def test_arguments_by_position_without_an_app_say_what_is_missing(invoke: Invoke) -> None:
    """The remedy is one of two; both are named."""
    result = invoke("enqueue", "send_mail", '["a@b.example"]')

    assert result.exit_code == 2
    assert "Give an object, or set --app module:attribute." in result.stderr


def test_stdin_is_one_task_per_line(invoke: Invoke, recorded: Record) -> None:
    """NDJSON is what jq and every log tool write."""
    daemon = recorded({**STATUS, "enqueue": stored(1)})

    result = invoke("enqueue", "send_mail", "-", "--user", "alice", stdin='{"to":"a"}\n\n{"to":"b"}')

    assert (result.exit_code, result.stdout) == (0, "2 tasks are stored (IDs 1 to 2).\n")
    options = {"user": "alice"}
    assert daemon.asked[-1][1] == {"tasks": [["send_mail", {"to": "a"}, options], ["send_mail", {"to": "b"}, options]]}


def test_lines_that_do_not_fit_are_named_and_the_others_stored(invoke: Invoke, recorded: Record) -> None:
    """One bad line in 200,000 must not cost the others, nor go unnoticed."""
    error = ArgumentError("send_mail: argument $.to: expected str, got int")
    failure = {"error": {"code": error.code, "message": str(error), "data": {}}}
    recorded({**STATUS, "enqueue": {"results": [1, failure, {"duplicate_of": 1}]}})

    result = invoke("enqueue", "send_mail", "-", stdin='{"to":"a"}\nnot json\n{"to":5}\n{"to":"a"}\n')

    assert (result.exit_code, result.stdout) == (
        2,
        "1 task is stored (IDs 1 to 1); 1 duplicate; 2 lines refused.\n",
    )
    assert result.stderr.splitlines()[0].startswith("line 2: send_mail: the arguments are not JSON")
    assert result.stderr.splitlines()[1] == "line 3: send_mail: argument $.to: expected str, got int"


def test_a_full_queue_stops_the_stream_and_says_where_to_go_on(invoke: Invoke, recorded: Record) -> None:
    """Pouring a million lines at a full queue helps nobody; the rest is sent later."""
    error = QueueFull("queue mail is full. Try again in 3 s.", retry_after=3.0, depth=10, limit=10)
    failure = {"error": {"code": error.code, "message": str(error), "data": error.data()}}
    recorded({**STATUS, "enqueue": {"results": [1, failure]}})

    result = invoke("enqueue", "send_mail", "-", "--json", stdin="{}\n{}\n")

    counted = {"stored": 1, "duplicates": 0, "refused": 0, "first": 1, "last": 1}
    assert (result.exit_code, json.loads(result.stdout)) == (1, counted)
    told, error_line = result.stderr.splitlines()
    assert told == "Stopped at line 2: what came before it is stored. Go on with: tail -n +2"
    assert json.loads(error_line)["error"]["data"]["retry_after"] == 3.0


def test_a_large_input_goes_out_in_frames(invoke: Invoke, recorded: Record) -> None:
    """Neither end may have to hold all of it."""
    daemon = recorded({**STATUS, "enqueue": stored(1)})

    result = invoke("enqueue", "send_mail", "-", stdin=b'{"to":"a"}\n' * 12_000)

    assert result.stdout.startswith("12,000 tasks are stored")
    frames = [params["tasks"] for verb, params in daemon.asked if verb == "enqueue"]
    assert [len(tasks) for tasks in frames if isinstance(tasks, list)] == [5_000, 5_000, 2_000]
