"""Settings: which value wins, where it came from, and what a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring.config import Config
from shoestring.core.errors import ConfigError
from shoestring.core.model import Charge, Limit, QueueConfig

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "shoestring.toml"
        file.write_text(text)
        return file

    return write


def test_an_option_wins_over_the_environment_over_the_file_over_the_default(write: Write) -> None:
    """An operator must be able to change one value for one run without editing anything."""
    file = write("[run]\nslots = 2\nthreads = 2\ngrace_s = 2")
    env = {"SHOESTRING_RUN__SLOTS": "3", "SHOESTRING_RUN__THREADS": "3"}

    config = Config.load(file, {"run.slots": 4}, environ=env)

    assert (4, 3, 2.0, 2_000) == (config.run.slots, config.run.threads, config.run.grace_s, config.run.prefetch)
    origins = [config.origin("run", key) for key in ("slots", "threads", "grace_s", "prefetch")]
    assert ["--run-slots", "SHOESTRING_RUN__THREADS", str(file), "default"] == origins


def test_an_option_that_was_not_given_changes_nothing(write: Write) -> None:
    """The command line passes all its options on, given or not."""
    config = Config.load(write("[run]\nslots = 2"), {"run.slots": None}, environ={})

    assert 2 == config.run.slots


def test_paths_are_relative_to_the_file_that_names_them(write: Write, tmp_path: Path) -> None:
    """Else a producer started in another folder would look for another daemon."""
    config = Config.load(write('database = "data/q.db"\nruntime_dir = "hot"'), environ={})

    assert tmp_path / "data/q.db" == config.database
    assert tmp_path / "data/q.sock" == config.socket
    assert tmp_path / "data/q.admin.sock" == config.admin_socket
    assert tmp_path / "hot" == config.runtime_dir


def test_the_default_database_stands_beside_the_file(write: Write, tmp_path: Path) -> None:
    """The same file must mean the same database wherever a command is started."""
    assert tmp_path / "shoestring.db" == Config.load(write(""), environ={}).database


def test_paths_of_environment_and_options_are_relative_to_the_current_folder(write: Write, tmp_path: Path) -> None:
    """That is where the person who typed them stands."""
    config = Config.load(write(""), {"socket": "b.sock"}, environ={"SHOESTRING_DATABASE": "a.db"})

    assert (Path.cwd() / "a.db", Path.cwd() / "b.sock") == (config.database, config.socket)


def test_the_file_is_searched_in_the_current_folder_unless_named(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search order for daemon, commands and producers, or they talk past each other."""
    write("[run]\nslots = 2")
    named = tmp_path / "other.toml"
    named.write_text("[run]\nslots = 3")
    monkeypatch.chdir(tmp_path)

    by_search = Config.load(environ={})
    by_environment = Config.load(environ={"SHOESTRING_CONFIG": str(named)})
    by_path = Config.load("shoestring.toml", environ={"SHOESTRING_CONFIG": str(named)})

    assert (2, 3, 2) == (by_search.run.slots, by_environment.run.slots, by_path.run.slots)
    assert Path("shoestring.toml") == by_search.file


def test_systemd_tells_the_runtime_folder(write: Write) -> None:
    """The unit makes the folder; naming it twice would let the two differ."""
    env = {"RUNTIME_DIRECTORY": "/run/shoestring:/run/other"}

    assigned = Config.load(write(""), environ=env)
    overruled = Config.load(write('runtime_dir = "/tmp/hot"'), environ=env)

    assert (Path("/run/shoestring"), "RUNTIME_DIRECTORY") == (assigned.runtime_dir, assigned.origin("runtime_dir"))
    assert Path("/tmp/hot") == overruled.runtime_dir


def test_queues_are_read_by_name(write: Write) -> None:
    """Names are the user's: any text a TOML key can be."""
    text = '[queues.mail]\nconcurrency = 8\n[queues."a b".limit]\ncapacity = 10\nrate = 0.5\ncharge = "enqueue"'

    queues = Config.load(write(text), environ={"SHOESTRING_QUEUES__MAIL__LOW_WATER": "7"}).queues

    assert {
        "mail": QueueConfig(concurrency=8, low_water=7),
        "a b": QueueConfig(limit=Limit(capacity=10, rate=0.5, charge=Charge.ENQUEUE)),
    } == queues


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[run]\nslot = 1", "unknown key run.slot. Did you mean run.slots?"),
        ("slots = 1", "unknown key slots. Did you mean run.slots?"),
        ("[rnu]\nslots = 1", "unknown key rnu. Did you mean run?"),
        ("[log]\nzzz = 1", "unknown key log.zzz. Known here: level, format, tasks."),
        ("[queues.mail]\nconcurency = 1", "unknown key queues.mail.concurency. Did you mean queues.mail.concurrency?"),
        ("[queues.mail.limit]\nx = 1", "unknown key queues.mail.limit.x. Known here: capacity, rate, charge."),
        ("file = 1", "unknown key file."),
        (
            "[run]\nslots = 0",
            "run.slots = 0 cannot be used. Give a whole number from 1 to 10,000, or leave it out for the default, 100.",
        ),
        ("[run]\nslots = true", "run.slots = true cannot be used. Give a whole number"),
        ("[run]\nslots = 1.5", "run.slots = 1.5 cannot be used. Give a whole number"),
        ('[run]\nslots = "5"', 'run.slots = "5" cannot be used. Give a whole number'),
        ("[run]\ngrace_s = nan", "run.grace_s = nan cannot be used. Give a number from 0 to 86,400"),
        ("[run]\ngrace_s = inf", "run.grace_s = inf cannot be used."),
        ('[log]\nlevel = "loud"', 'log.level = "loud" cannot be used. Give one of "debug", "info", "warning", "error"'),
        (
            "[log]\ntasks = 1",
            "log.tasks = 1 cannot be used. Give true or false, or leave it out for the default, false.",
        ),
        ("database = 3", 'database = 3 cannot be used. Give a path, or leave it out for the default, "shoestring.db".'),
        ('database = ""', 'database = "" cannot be used. Give a path'),
        ('app = "jobs"', 'app = "jobs" cannot be used. Give a module and an attribute, as in "myproject.jobs:app".'),
        ("run = 1", "run = 1 must be a table. Write its keys under [run]."),
        ("[queues]\nmail = 3", "queues.mail = 3 must be a table. Write its keys under [queues.mail]."),
        ("[queues.q.limit]\nrate = 1", "[queues.q.limit] lacks capacity. Add it."),
        (
            "[queues.q.limit]\nrate = 0\ncapacity = 1",
            "queues.q.limit.rate = 0 cannot be used. Give a number above 0 to 1,000,000,000.",
        ),
        ('[queues.q.limit]\ncharge = "x"', 'queues.q.limit.charge = "x" cannot be used. Give one of "enqueue", "run".'),
        ("run.slots =", "is not valid TOML: Invalid value (at end of document). Correct that line."),
        ("[run]\nslots = ]\n", "is not valid TOML: Invalid value (at line 2, column 9). Correct that line."),
    ],
)
def test_a_mistake_in_the_file_names_file_key_value_and_remedy(write: Write, text: str, complaint: str) -> None:
    """A typo that is silently ignored costs a night; one that is explained costs a minute."""
    file = write(text)

    with pytest.raises(ConfigError) as caught:
        Config.load(file, environ={})

    assert str(caught.value).startswith(str(file))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"SHOESTRING_RUN__SLOT": "1"}, "SHOESTRING_RUN__SLOT: unknown key run.slot. Did you mean run.slots?"),
        ({"SHOESTRING_RUN__SLOTS": "many"}, 'SHOESTRING_RUN__SLOTS = "many" cannot be used. Give a whole number'),
        ({"SHOESTRING_RUN__SLOTS": ""}, 'SHOESTRING_RUN__SLOTS = "" cannot be used.'),
        ({"SHOESTRING_LOG__TASKS": "perhaps"}, 'SHOESTRING_LOG__TASKS = "perhaps" cannot be used. Give true or false'),
        ({"SHOESTRING_RUN": "1"}, "SHOESTRING_RUN: run is a section. Name a key in it."),
        ({"SHOESTRING_CONFIG": "/nowhere.toml"}, "/nowhere.toml (SHOESTRING_CONFIG names it) does not exist."),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    env: dict[str, str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit file and a shell profile are harder to search than a config file."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as caught:
        Config.load(environ=env)

    assert complaint in str(caught.value)


def test_a_mistake_in_an_option_names_the_option(write: Write) -> None:
    """The command line shows the message as it is."""
    with pytest.raises(ConfigError, match=r'^--run-slots = "x" cannot be used'):
        Config.load(write(""), {"run.slots": "x"}, environ={})


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """To go on with defaults would mean another database, and an empty one."""
    with pytest.raises(ConfigError, match=r"missing\.toml does not exist"):
        Config.load(tmp_path / "missing.toml", environ={})
    with pytest.raises(ConfigError, match="is not a file"):
        Config.load(tmp_path, environ={})


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """A decoding traceback tells nobody which file to save again."""
    file = tmp_path / "shoestring.toml"
    file.write_bytes(b'app = "\xff"')

    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 7\)"):
        Config.load(file, environ={})


def test_a_message_must_be_able_to_hold_one_payload(write: Write) -> None:
    """Else a payload that is allowed could never be sent, and the error would blame the wrong limit."""
    with pytest.raises(ConfigError) as caught:
        Config.load(write("[limits]\npayload_bytes_max = 5_000_000"), environ={})

    assert "limits.frame_bytes_max = 4194304 (default) cannot hold one payload" in str(caught.value)


def test_no_path_may_serve_twice(write: Write) -> None:
    """A socket in the database's place would be data lost."""
    with pytest.raises(ConfigError, match="database and socket are both"):
        Config.load(write('socket = "shoestring.db"'), environ={})
