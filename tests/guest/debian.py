"""Programs and packages from Debian's archive: missing programs are installed, other packages only unpacked."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A mirror may be slow, and dpkg may be locked by another process for a while.
PATIENT = ("-qq", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300")
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # in root's PATH only


class GuestError(Exception):
    """Says in one line why no guest can be booted."""


def run(*command: str, cwd: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise GuestError(f"`{shlex.join(command)}` failed with {done.returncode}: {last}")
    return done.stdout


def available() -> bool:
    return shutil.which("apt-get") is not None


@functools.cache
def refresh() -> None:
    """Renews the package lists, once. There may be none, and old ones name files that the mirror has replaced."""
    if os.geteuid() != 0:
        return
    print("test-guest: renewing the package lists", flush=True)
    try:
        run("apt-get", "update", *PATIENT)
    except GuestError as error:
        # One broken source of several is not an error yet. If that source is needed, the next step fails and says so.
        print(f"test-guest: {error}", file=sys.stderr, flush=True)


def need(programs: Mapping[str, str]) -> None:
    """Installs the packages of those programs that are missing."""
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM}"
    packages = [package for program, package in programs.items() if not shutil.which(program, path=path)]
    if not packages:
        return
    names = " ".join(packages)
    if os.geteuid() != 0 or not available():
        raise GuestError(f"the guest needs {names}: install it (Debian: apt-get install {names}) or run this as root")
    refresh()
    print(f"test-guest: installing {names}", flush=True)
    run("apt-get", "install", *PATIENT, "-y", "--no-install-recommends", *packages)


def newest(prefix: str, pattern: re.Pattern[str]) -> str | None:
    """The package whose name matches and has the greatest number in the group; None if apt knows none."""
    found = list(pattern.finditer(run("apt-cache", "pkgnames", prefix)))
    return max(found, key=lambda match: int(match[1]))[0] if found else None


def version(package: str) -> str:
    shown = run("apt-cache", "show", "--no-all-versions", package)
    found = re.search(r"^Version: (\S+)$", shown, re.MULTILINE)
    if found is None:
        raise GuestError(f"apt knows no version of {package}")
    return found[1]


def unpack(package: str, work: Path) -> Path:
    """Unpacks the package's files below a directory of its own in `work`."""
    refresh()
    # If this runs as root, apt would warn that its own user cannot write to this directory.
    run("apt-get", "download", *PATIENT, "-o", "APT::Sandbox::User=root", package, cwd=work)
    tree = work / package
    run("dpkg", "-x", str(one(work, f"{package}_*.deb")), str(tree))
    return tree


def one(tree: Path, pattern: str) -> Path:
    found = [path for path in tree.rglob(pattern) if path.is_file() and not path.is_symlink()]
    if len(found) != 1:
        raise GuestError(f"expected one {pattern} in {tree.name}, found {len(found)}")
    return found[0]
