"""From a TOML file, the environment and options to one checked Config.

Every source is first flattened to (key path -> value, origin), so that precedence is one dictionary update and an
error can always name where a value came from. Then each value is checked alone against its annotation, and
the structs are built from what passed.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from shoestring.config import NOT_KEYS, Config, KeyPath, Origin, check_together
from shoestring.core.errors import ConfigError

ENV_PREFIX: Final = "SHOESTRING_"
ENV_FILE: Final = "SHOESTRING_CONFIG"
SEARCH: Final = (Path("shoestring.toml"), Path("/etc/shoestring/shoestring.toml"))


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as some source gave it, before any check."""

    value: object
    origin: Origin
    folder: Path  # what a relative path is relative to
    text: bool  # it came as text: "5" may become 5


def load(path: Path | str | None, overrides: Mapping[str, object], environ: Mapping[str, str] | None) -> Config:
    """Return the checked configuration; see `Config.load`."""
    env = os.environ if environ is None else environ
    here = Path.cwd()
    file = _find(path, env)
    given: dict[KeyPath, _Given] = {}
    if file is not None:
        folder = file.absolute().parent
        for key, value in _leaves(_read(file), (), str(file)):
            given[key] = _Given(value, str(file), folder, text=False)
    for name in sorted(env):
        if name.startswith(ENV_PREFIX) and name != ENV_FILE:
            key = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            _check_known(key, f"environment variable {name}")
            given[key] = _Given(env[name], name, here, text=True)
    for dotted, value in overrides.items():
        if value is not None:
            key = tuple(dotted.split("."))
            _check_known(key, "options")
            option = "--" + dotted.replace(".", "-").replace("_", "-")
            given[key] = _Given(value, option, here, text=isinstance(value, str))

    values = {key: _convert(key, one) for key, one in given.items()}
    if file is not None and ("database",) not in values:
        # The default is relative as any other path of the file, else a producer started elsewhere would look
        # for another database than the daemon.
        values["database",] = file.absolute().parent / Config().database
    if ("runtime_dir",) not in values and (folder_name := env.get("RUNTIME_DIRECTORY")):
        values["runtime_dir",] = Path(folder_name.split(":")[0])
        given["runtime_dir",] = _Given(folder_name, "RUNTIME_DIRECTORY", here, text=True)
    tree = _nest(values)
    _check_complete(Config, tree, (), given)
    origins = {key: one.origin for key, one in given.items()}
    config = msgspec.convert({**tree, "file": file, "origins": {}}, Config, dec_hook=_same)
    config = msgspec.structs.replace(config, origins=origins)
    check_together(config)
    return config


def _find(path: Path | str | None, env: Mapping[str, str]) -> Path | None:
    named, by = (path, "") if path is not None else (env.get(ENV_FILE), f" ({ENV_FILE} names it)")
    if named is not None:
        file = Path(named).expanduser()
        if not file.is_file():
            what = "is not a file" if file.exists() else "does not exist"
            raise ConfigError(f"The config file {file}{by} {what}. Correct the path or leave it out.")
        return file
    return next((file for file in SEARCH if file.is_file()), None)


def _read(file: Path) -> dict[str, object]:
    import tomli  # costs 6 ms, and most commands run where there is no file

    try:
        return tomli.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Let this user read it.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}. Correct that line.") from error


# --- which keys there are -------------------------------------------------------------------------------------------


@cache
def _keys(struct: type[msgspec.Struct]) -> dict[str, object]:
    """Return the annotations of a struct's keys, ranges included."""
    hints: dict[str, object] = get_type_hints(struct, include_extras=True)
    hidden = NOT_KEYS if struct is Config else frozenset()
    return {name: hint for name, hint in hints.items() if name not in hidden}


def _table(hint: object) -> object | None:
    """Return the struct or `dict[str, ...]` that a table at this place fills, None where a value stands."""
    choices: tuple[object, ...] = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for one in choices:
        if (isinstance(one, type) and issubclass(one, msgspec.Struct)) or get_origin(one) is dict:
            return one
    return None


def _value_of(table: object) -> object:
    """Return the annotation of the values of a `dict[str, ...]`."""
    hint: object = get_args(table)[1]
    return hint


def _inside(table: object, part: str) -> object | None:
    """Return the annotation of the key `part` of a table, None if there is none."""
    if get_origin(table) is dict:
        return _value_of(table)
    return _keys(table).get(part) if isinstance(table, type) else None


def _hint(key: KeyPath) -> object | None:
    """Return the annotation at `key`, None if there is no such key."""
    here: object | None = Config
    for part in key:
        here = _inside(_table(here), part)
    return here


def keys(table: object = Config, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every key with a fixed place, tables walked into; a queue's keys stand under `*`."""
    inside = {"*": _value_of(table)} if get_origin(table) is dict else _keys(table) if isinstance(table, type) else {}
    for name, hint in inside.items():
        nested = _table(hint)
        yield from keys(nested, (*path, name)) if nested is not None else [(*path, name)]


def _leaves(tree: Mapping[str, object], path: KeyPath, where: str) -> Iterator[tuple[KeyPath, object]]:
    for name, value in tree.items():
        key = (*path, name)
        hint = _hint(key)
        if hint is None:
            raise _unknown(key, where)
        if _table(hint) is None:
            yield key, value
        elif isinstance(value, dict):
            yield from _leaves(value, key, where)
        else:
            raise ConfigError(
                f"{where}: {_dotted(key)} = {_shown(value)} must be a table. Write its keys under [{_dotted(key)}]."
            )


def _check_known(key: KeyPath, where: str) -> None:
    hint = _hint(key)
    if hint is None:
        raise _unknown(key, where)
    if _table(hint) is not None:
        raise ConfigError(f"{where}: {_dotted(key)} is a section. Name a key in it.")


def _unknown(key: KeyPath, where: str) -> ConfigError:
    import difflib

    # Only the first wrong part is at fault; what is right before it narrows the search.
    wrong = next(n for n in range(1, len(key) + 1) if _hint(key[:n]) is None)
    siblings = [path[wrong - 1] for path in keys() if path[: wrong - 1] == _generic(key[: wrong - 1])]
    near = difflib.get_close_matches(key[wrong - 1], dict.fromkeys(siblings), n=1, cutoff=0.5)
    known = [_dotted(path) for path in keys() if path[-1] == key[-1]]
    if known:  # the right name in the wrong section
        remedy = f"Did you mean {' or '.join(known)}?"
    elif near:
        remedy = f"Did you mean {_dotted((*key[: wrong - 1], near[0]))}?"
    else:
        remedy = f"Known here: {', '.join(dict.fromkeys(siblings)) or 'nothing'}."
    return ConfigError(f"{where}: unknown key {_dotted(key)}. {remedy}")


def _generic(key: KeyPath) -> KeyPath:
    """Replace the names people chose (of queues) by `*`, as `keys` yields them."""
    return tuple("*" if n and get_origin(_table(_hint(key[:n]))) is dict else part for n, part in enumerate(key))


def _dotted(key: KeyPath) -> str:
    return ".".join(part if part.replace("_", "").replace("-", "").isalnum() else f'"{part}"' for part in key)


# --- which values they take -----------------------------------------------------------------------------------------


def _convert(key: KeyPath, given: _Given) -> object:
    hint = _hint(key)
    value = given.value
    if Path in (hint, *get_args(hint)):
        if isinstance(value, str | Path) and str(value):
            return given.folder / Path(value).expanduser()
        raise _wrong(key, given, "a path")
    try:
        converted = msgspec.convert(value, type=hint, strict=not given.text)
    except msgspec.ValidationError as error:
        raise _wrong(key, given, _expected(hint)) from error
    if isinstance(converted, float) and converted - converted != 0:
        raise _wrong(key, given, _expected(hint))  # nan and inf pass any comparison or none
    if key == ("app",):
        module, _, attribute = str(converted).partition(":")
        if not (module and attribute):
            raise _wrong(key, given, 'a module and an attribute, as in "myproject.jobs:app"')
    return converted


def _wrong(key: KeyPath, given: _Given, expected: str) -> ConfigError:
    at = given.origin if given.text else f"{given.origin}: {_dotted(key)}"
    default = _default(key)
    without = f", or leave it out for the default, {_shown(default)}" if default is not None else ""
    return ConfigError(f"{at} = {_shown(given.value)} cannot be used. Give {expected}{without}.")


def _shown(value: object) -> str:
    """Write a value as the file would."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return msgspec.json.encode(str(value)).decode()
    return repr(value)


def _default(key: KeyPath) -> object | None:
    here: object = Config()
    for part in key:
        here = getattr(here, part, None)
    return here


def _expected(hint: object) -> str:
    """Say in words what an annotation accepts."""
    if get_origin(hint) is Annotated:
        kind, meta = get_args(hint)[:2]
        noun = "a whole number" if kind is int else "a number"
        low = f"from {meta.ge:,g}" if meta.ge is not None else f"above {meta.gt:,g}"
        return f"{noun} {low} to {meta.le:,.15g}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{one}"' for one in get_args(hint))
    if get_origin(hint) in (types.UnionType, Union):
        return _expected(next(one for one in get_args(hint) if one is not types.NoneType))
    if isinstance(hint, type) and hasattr(hint, "__members__"):
        return "one of " + ", ".join(f'"{one.value}"' for one in hint.__members__.values())
    return "true or false" if hint is bool else "text"


# --- putting it together --------------------------------------------------------------------------------------------


def _nest(values: Mapping[KeyPath, object]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for key, value in values.items():
        here = tree
        for part in key[:-1]:
            child = here.setdefault(part, {})
            assert isinstance(child, dict)
            here = child
        here[key[-1]] = value
    return tree


def _same(_kind: type, value: object) -> object:
    """Let msgspec take paths as they are."""
    return value


def _check_complete(table: object, tree: Mapping[str, object], path: KeyPath, given: Mapping[KeyPath, _Given]) -> None:
    """Refuse a table that lacks a key without default: a limit needs both its numbers."""
    if isinstance(table, type) and issubclass(table, msgspec.Struct):
        missing = [field.name for field in msgspec.structs.fields(table) if field.required and field.name not in tree]
        if missing:
            where = next(one.origin for key, one in given.items() if key[: len(path)] == path)
            raise ConfigError(f"{where}: [{_dotted(path)}] lacks {' and '.join(missing)}. Add it.")
    for name, child in tree.items():
        if isinstance(child, dict):
            _check_complete(_table(_inside(table, name)), child, (*path, name), given)
