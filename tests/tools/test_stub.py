"""The stub has the docstrings of the core, so that editors show them."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import iovec_rs
import pytest
from iovec_rs import FaultMap, FolioQueue, PipeRing, _core

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB = Path(iovec_rs.__file__).with_name("_core.pyi")


def documented(body: list[ast.stmt], owner: object, prefix: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """Yields each definition: its name, the stub's docstring and the core's. Of overloads, only the first has a
    docstring.
    """
    seen = set()
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("__") or node.name in seen:
            continue
        seen.add(node.name)
        found = getattr(owner, node.name, None)
        if found is None:
            continue
        yield prefix + node.name, ast.get_docstring(node), inspect.getdoc(found) if found.__doc__ else None
        if isinstance(node, ast.ClassDef):
            yield from documented(node.body, found, f"{node.name}.")


def words(text: str | None) -> list[str]:
    return (text or "").split()


def test_the_stub_has_the_docstrings_of_the_core() -> None:
    found = list(documented(ast.parse(STUB.read_text()).body, _core))
    wrong = [name for name, stub, core in found if words(stub) != words(core)]
    assert wrong == []
    assert sum(core is not None for _, _, core in found) > 100


@pytest.mark.parametrize(
    ("made", "defaults"),
    [
        (FaultMap, {"ranges": ()}),
        (FolioQueue, {"folios": (), "slots_per_node": 31}),
        (PipeRing, {"slots": 16, "max_usage": None}),
    ],
)
def test_the_signature_of_a_class_shows_its_defaults(made: type, defaults: dict[str, object]) -> None:
    shown = inspect.signature(made).parameters
    assert {name: parameter.default for name, parameter in shown.items()} == defaults
    made(*(default for default in defaults.values() if default is not None))
