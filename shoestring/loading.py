"""Find the app the configuration names, and explain what is wrong with the name or the module."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType

from shoestring.app import Shoestring
from shoestring.config import Config
from shoestring.core.errors import ConfigError


def load_app(config: Config) -> Shoestring:
    """Import and return the app `config.app` names; the current folder is searched first.

    Raises ConfigError saying which of module, attribute and type is wrong, and where it was set.
    """
    if config.app is None:
        raise ConfigError(
            'No app is set, so there is nothing to run. Set app = "module:attribute" in shoestring.toml,'
            " or SHOESTRING_APP in the environment, where the attribute is your Shoestring()."
        )
    where = f"app = {config.app!r} ({config.origin('app')})"
    name, _, attribute = config.app.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(name, where, here)
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"{where}: {name} has no {attribute!r}. {_suggestion(module, attribute)}") from None
    if not isinstance(found, Shoestring):
        raise ConfigError(
            f"{where}: this is a {type(found).__name__}, not a Shoestring. {_suggestion(module, attribute)}"
        )
    return found


def _import(name: str, where: str, here: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The app's own module, or one that it imports? Only the first is a mistake in the configuration's text.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(f"{where}: importing it failed: {_last_frame(error)}") from error
        raise ConfigError(
            f"{where}: there is no module {error.name!r}. It was looked for in {here} and where Python's packages are."
            " Start in the folder that holds it, or install it into this environment."
        ) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: importing it failed: {_last_frame(error)}") from error


def _last_frame(error: BaseException) -> str:
    """Return the error and where it was raised, as far as that is the user's code."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return what
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    own = [one for one in frames if one.filename != __file__]
    return f"{what} ({own[-1].filename}, line {own[-1].lineno})" if own else what


def _suggestion(module: ModuleType, attribute: str) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, Shoestring)]
    if apps:
        return f"Did you mean {' or '.join(f'{module.__name__}:{name}' for name in apps)}?"
    return f"Make one there: {attribute} = Shoestring()."
