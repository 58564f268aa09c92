"""Expects an OSError with a certain errno, since the exception's class alone does not say why the kernel refused."""

from __future__ import annotations

import pytest


def os_error(number: int) -> pytest.RaisesExc[OSError]:
    """A context in which an OSError with this errno and a message must be raised."""
    return pytest.raises(OSError, check=lambda error: error.errno == number, match=rf"^\[Errno {number}\] .*\w")
