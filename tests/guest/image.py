"""What a guest boots: Debian's kernel, the modules it needs to see the host's files, and an initramfs.

Everything comes out of Debian packages that are unpacked, never installed. What is slow to get is kept in the user's
cache, in a directory named after all that went into it; the initramfs takes milliseconds and is made for each run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The series whose behaviour the tests in the guest state. Cloud and real-time flavours lack modules.
KERNEL = re.compile(r"^linux-image-6\.1\.0-(\d+)-amd64-unsigned$", re.MULTILINE)
MODULES = ("virtio_pci", "9pnet_virtio", "9p")  # and whatever these depend on
INIT = Path(__file__).with_name("init")


class GuestError(Exception):
    """Why no guest can be booted; one line for the user."""


class Image(NamedTuple):
    """The files of one guest."""

    name: str
    kernel: Path
    busybox: Path
    modules: list[Path]  # in the order of insertion


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise GuestError(f"`{shlex.join(command)}` failed with {done.returncode}: {last}")
    return done.stdout


def need_qemu() -> None:
    """QEMU is the one thing that has to be installed."""
    if shutil.which("qemu-system-x86_64"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise GuestError(
            "no qemu-system-x86_64 found: install it (Debian: apt-get install qemu-system-x86) or run this as root"
        )
    print("test-guest: installing qemu-system-x86", flush=True)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    options = ("-o", "DPkg::Lock::Timeout=120", "-y", "-qq", "--no-install-recommends")
    if not run("apt-cache", "search", "--names-only", "^qemu-system-x86$"):
        run("apt-get", "update", "-qq")
    run("apt-get", "install", *options, "qemu-system-x86")


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "iovec_rs" / "guest"


def newest_kernel() -> str | None:
    """The package of the newest kernel apt knows, if it knows one."""
    known = run("apt-cache", "pkgnames", "linux-image-6.1.0-")
    found = KERNEL.findall(known)
    return f"linux-image-6.1.0-{max(map(int, found))}-amd64-unsigned" if found else None


def version(package: str) -> str:
    shown = run("apt-cache", "show", "--no-all-versions", package)
    found = re.search(r"^Version: (\S+)$", shown, re.MULTILINE)
    if found is None:
        raise GuestError(f"apt knows no version of {package}")
    return found[1]


def get() -> Image:
    """The image, out of the cache or made and put there."""
    recipe = hashlib.sha256(repr(MODULES).encode()).hexdigest()[:8]
    kept = cache()
    package = None
    if shutil.which("apt-get"):
        package = newest_kernel()
        if package is None and os.geteuid() == 0:
            run("apt-get", "update", "-qq")
            package = newest_kernel()
    if package is None:
        # Without package lists, as in a container that dropped them, an image made earlier still serves.
        older = sorted(kept.glob(f"linux-image-*_{recipe}"), key=lambda path: path.stat().st_mtime)
        if not older:
            raise GuestError(
                "apt knows no linux-image-6.1.0-NN-amd64-unsigned (Debian 12): the guest needs that kernel"
            )
        return read(older[-1])
    home = kept / f"{package}_{version(package)}_{recipe}"
    if not home.is_dir():
        print(f"test-guest: fetching {package} into {kept}", flush=True)
        make(package, home)
    return read(home)


def make(package: str, home: Path) -> None:
    """Pick what a guest needs out of the packages. The directory appears complete or not at all."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as name:
        work = Path(name)
        kernel, tools = unpack(package, work), unpack("busybox-static", work)
        picked = work / "picked"
        (picked / "modules").mkdir(parents=True)
        shutil.copy(one(kernel, "vmlinuz-*"), picked / "kernel")
        shutil.copy(one(tools, "bin/busybox"), picked / "busybox")
        for number, module in enumerate(in_order(kernel)):
            shutil.copy(module, picked / "modules" / f"{number:02}-{module.name}")
        try:
            picked.rename(home)
        except OSError:
            if not home.is_dir():  # otherwise another run was quicker with the same content
                raise


def unpack(package: str, work: Path) -> Path:
    # As root, apt would complain that its own user cannot write to this directory.
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package, cwd=work)
    archive = one(work, f"{package}_*.deb")
    tree = work / package
    run("dpkg", "-x", str(archive), str(tree))
    return tree


def one(tree: Path, pattern: str) -> Path:
    found = [path for path in tree.rglob(pattern) if path.is_file() and not path.is_symlink()]
    if len(found) != 1:
        raise GuestError(f"expected one {pattern} in the package {tree.name}, found {len(found)}")
    return found[0]


def in_order(kernel: Path) -> list[Path]:
    """The modules, each after those it depends on. A module that is no file is built in."""
    files = {path.stem.replace("-", "_"): path for path in kernel.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or path in order:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + path.read_bytes())
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        order.append(path)

    for name in MODULES:
        add(name)
    return order


def read(home: Path) -> Image:
    return Image(home.name.split("_")[0], home / "kernel", home / "busybox", sorted((home / "modules").iterdir()))


def initramfs(image: Image, settings: Mapping[str, str]) -> bytes:
    """A cpio archive (newc) of busybox, the modules, our init, and the settings as shell assignments."""
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())

    def members() -> Iterator[tuple[str, int, bytes]]:
        for directory in ("bin", "modules"):
            yield directory, 0o040755, b""
        yield "bin/busybox", 0o100755, image.busybox.read_bytes()
        for module in image.modules:
            yield f"modules/{module.name}", 0o100644, module.read_bytes()
        yield "init", 0o100755, INIT.read_bytes()
        yield "settings", 0o100644, assignments.encode()
        yield "TRAILER!!!", 0, b""

    archive = bytearray()
    for name, mode, data in members():
        # inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
