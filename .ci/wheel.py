"""Builds the sdist, and from it the wheel, and checks both. `make wheel` calls it.

The sdist holds what git tracks. The wheel is built for glibc 2.17 with zig's linker, holds no path of this machine, and
works in an environment of its own: installed there, it passes its self-test.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PLATFORM = "manylinux_2_17"
NEUTRAL = "/iovec_rs"
"""What stands for the directory of the build in panics and in the list of components (SBOM)."""


def maturin(*args: str, where: Path, **environment: str) -> None:
    command = [str(Path(sys.executable).with_name("maturin")), *args]
    subprocess.run(command, cwd=where, env=os.environ | environment, check=True)


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.rstrip("\0").split("\0"))


def sdist(place: Path) -> Path:
    """The archive in dist/, unpacked below `place`: exactly the tracked files, and the metadata."""
    maturin("sdist", "--out", str(DIST), where=ROOT)
    archive = max(DIST.glob("iovec_rs-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames()}
        tar.extractall(place, filter="data")
    due = tracked() | {"PKG-INFO"}
    assert names == due, f"in the sdist and not tracked: {names - due}; missing: {due - names}"
    return place / archive.name.removesuffix(".tar.gz")


def wheel(source: Path, place: Path) -> Path:
    """Built in `place` from the unpacked sdist. maturin itself refuses symbols that are newer than the platform."""
    cargo = os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))
    flags = " ".join(f"--remap-path-prefix={path}={name}" for path, name in ((source, NEUTRAL), (cargo, "/cargo")))
    options = ["--locked", "--release", "--zig", "--compatibility", PLATFORM]
    options += ["--target-dir", str(ROOT / "target/wheel")]
    # Cargo joins these with those of .cargo/config.toml, which RUSTFLAGS would replace.
    ours = f"CARGO_TARGET_{platform.machine().upper()}_UNKNOWN_LINUX_GNU_RUSTFLAGS"
    maturin("build", *options, "--out", str(place), where=source, **{ours: flags})
    (built,) = place.glob("*.whl")
    return built


def neutral(built: Path, source: Path) -> Path:
    """The wheel in dist/, with the list of components free of the place where it was built."""
    result = DIST / built.name
    lines: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(built) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            content = old.read(entry).replace(f"file://{source}".encode(), f"file://{NEUTRAL}".encode())
            if entry.filename.endswith(".dist-info/RECORD"):
                lines.append((entry.filename, "", ""))
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(lines)
                content = text.getvalue().encode()
            else:
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                lines.append((entry.filename, f"sha256={digest}", str(len(content))))
            for path in (str(source), str(ROOT), str(Path.home())):
                assert path.encode() not in content, f"{entry.filename} tells of {path}"
            new.writestr(entry, content)
        assert entry.filename.endswith("RECORD"), "the RECORD has to come last"
    return result


def smoke(built: Path, place: Path) -> None:
    """Installed where nothing of the source tree is in the way."""
    venv.create(place, with_pip=True)
    python = str(place / "bin/python")
    for command in (["-m", "pip", "install", "--quiet", "--no-index", str(built)], ["-m", "iovec_rs", "selftest"]):
        subprocess.run([python, *command], cwd=place, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    DIST.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="iovec_rs-") as name:
        place = Path(name)
        source = sdist(place / "sdist")
        built = neutral(wheel(source, place), source)
        smoke(built, place / "venv")
    print(f"{built.relative_to(ROOT)}: built from the sdist, installed, and its self-test passes")


if __name__ == "__main__":
    main()
