"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import shoestring

MODULES = [
    "shoestring",
    *(
        found.name
        for found in pkgutil.walk_packages(shoestring.__path__, "shoestring.")
        if not found.name.endswith("__main__")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    """An example is what people copy, and what nobody runs again after it was written."""
    failed, _ = doctest.testmod(importlib.import_module(name))

    assert failed == 0
