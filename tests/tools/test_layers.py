"""No circles among imports: between files, between folders, and between Rust and our own Python.

A file depends on the files that the names it imports are written in: `pub use` in a parent is followed to the child.
Tests (`tests.rs`, what is below it, and `mod tests` within a file) may import what they like.
"""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SRC = ROOT / "src"
PYTHON = ROOT / "python" / "iovec_rs"
USE = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?use\s+((?:crate|super|self)::[^;]+);", re.MULTILINE)
REEXPORT = re.compile(r"^\s*pub(?:\([^)]*\))?\s+use\s+([^;]+);", re.MULTILINE)
INLINE = re.compile(r"(?<![\w:$])(crate(?:::\w+)+)")

Path_ = tuple[str, ...]


def modules() -> dict[Path_, str]:
    """The text of each module, by its path in the crate; comments, texts and tests are left out."""
    found = {}
    for file in SRC.rglob("*.rs"):
        parts = file.relative_to(SRC).with_suffix("").parts
        if "tests" in parts or parts == ("lib",):
            continue
        text = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
        text = re.split(r"#\[cfg\(test\)\]\s*mod tests \{", text)[0]
        found[parts[:-1] if parts[-1] == "mod" else parts] = text
    return found


def names(tree: str) -> list[Path_]:
    """`a::{b, c::d}` spelled out."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    prefix = tuple(part for part in head.replace(" as ", "::").split("::") if part.strip())
    if not brace:
        return [tuple(part.strip() for part in re.sub(r"\s+as\s+\w+", "", tree).split("::"))]
    inner, depth, start, found = rest.rsplit("}", 1)[0], 0, 0, []
    for at, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            part = inner[start:at].strip()
            start = at + 1
            found += [(*prefix, *name) for name in names(part)] if part else []
    return [tuple(part.strip() for part in name) for name in found]


def absolute(module: Path_, name: Path_) -> Path_ | None:
    """A name as seen from the root of the crate; None if it is another crate's."""
    here = list(module)
    parts = list(name)
    if parts[0] == "crate":
        return tuple(parts[1:])
    if parts[0] not in ("self", "super"):
        return (*here, *parts)
    while parts and parts[0] in ("self", "super"):
        if parts.pop(0) == "super":
            here.pop()
    return (*here, *parts)


class Crate:
    def __init__(self) -> None:
        self.modules = modules()
        self.reexports: dict[tuple[Path_, str], Path_] = {}
        for module, text in self.modules.items():
            for tree in REEXPORT.findall(text):
                for name in names(tree):
                    target = absolute(module, name)
                    if target is not None and self.home(target) not in (None, module):
                        self.reexports[module, target[-1]] = target

    def home(self, name: Path_) -> Path_ | None:
        """The deepest module on the way to a name."""
        for length in range(len(name), 0, -1):
            if name[:length] in self.modules:
                return name[:length]
        return None

    def resolve(self, name: Path_) -> Path_ | None:
        for _ in range(5):
            home = self.home(name)
            if home is None or len(name) == len(home):
                return home
            onward = self.reexports.get((home, name[len(home)]))
            if onward is None:
                return home
            name = (*onward, *name[len(home) + 1 :])
        raise AssertionError(f"{name} is re-exported in a circle")

    def imports(self) -> dict[Path_, set[Path_]]:
        graph: dict[Path_, set[Path_]] = {}
        for module, text in self.modules.items():
            used = [name for tree in USE.findall(text) for name in names(tree)]
            used += [tuple(name.split("::")) for name in INLINE.findall(text)]
            targets = {self.resolve(absolute(module, name) or ()) for name in used}
            graph[module] = {target for target in targets if target and target != module}
        return graph


def find_circle(graph: dict[Path_, set[Path_]]) -> str | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join("::".join(module) for module in error.args[1])
    return None


CRATE = Crate()


def test_the_imports_that_are_there_are_found() -> None:
    graph = CRATE.imports()
    assert ("iter", "walk") in graph[("copy", "step")], "through a re-export of its parent"
    assert ("abi",) in graph[("iter",)]
    assert not graph[("abi",)]
    assert find_circle({("a",): {("b",)}, ("b",): {("a",)}})
    assert len(graph) > 100


def test_no_two_files_import_each_other() -> None:
    """A parent and its child may: `mod` makes them one module in two files, and a child sees its parent's names."""
    graph = {
        module: {target for target in targets if module[: len(target)] != target and target[: len(module)] != module}
        for module, targets in CRATE.imports().items()
    }
    assert find_circle(graph) is None


def test_no_two_folders_import_each_other() -> None:
    graph: dict[Path_, set[Path_]] = {}
    for module, targets in CRATE.imports().items():
        graph.setdefault(module[:1], set()).update(target[:1] for target in targets if target[:1] != module[:1])
    assert find_circle(graph) is None


PYTHON_IMPORT = re.compile(r"^(?:from|import) iovec_rs(?:\.(\w+))?", re.MULTILINE)
"""At the top of a module: what is imported within a function is imported after everything is there."""


@pytest.mark.parametrize("rust", sorted(SRC.rglob("*.rs")), ids=lambda path: str(path.relative_to(SRC)))
def test_rust_imports_no_python_that_imports_rust(rust: Path) -> None:
    pending = re.findall(r'"iovec_rs\.(\w+)"', rust.read_text(encoding="utf-8"))
    seen = set()
    while pending:
        name = pending.pop()
        file = PYTHON / f"{name}.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        imported = PYTHON_IMPORT.findall(file.read_text(encoding="utf-8"))
        assert "_core" not in imported, f"{rust.name} imports iovec_rs.{name}, which imports iovec_rs._core"
        assert "" not in imported, f"{rust.name} imports iovec_rs.{name}, which imports all of iovec_rs"
        pending += imported
