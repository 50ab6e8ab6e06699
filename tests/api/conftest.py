"""A queue in the test's folder."""

from tests.serving import serve  # noqa: F401 - a fixture
