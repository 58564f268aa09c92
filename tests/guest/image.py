"""The image that a guest boots: Debian's kernel, the modules it needs, and an initramfs.

Everything comes from Debian packages, which are unpacked and never installed. The parts that are slow to get are kept
in the user's cache, in a directory that is named after all of them. The initramfs takes milliseconds and is made for
each run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from guest import debian
from guest.debian import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The kernel series whose behaviour the tests in the guest expect. Cloud and real-time flavours lack modules.
SERIES = "linux-image-6.1.0-"
KERNEL = re.compile(rf"^{re.escape(SERIES)}(\d+)-amd64-unsigned$", re.MULTILINE)
# The modules for the host's files, for a file system with DAX, and for RAM set aside as persistent memory. Those they
# depend on are added.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "crc32c_generic", "ext4", "nd_pmem", "dax_pmem", "device_dax", "nd_e820")
INIT = Path(__file__).with_name("init")


class Image(NamedTuple):
    """The files of one guest."""

    name: str
    kernel: Path
    busybox: Path
    modules: list[Path]  # in the order of insertion


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "iovec_rs" / "guest"


def get() -> Image:
    """The image from the cache; it is made if it is not there."""
    home = place() if debian.available() else None
    if home is not None and home.is_dir():
        return read(home)
    older = sorted(cache().glob(f"linux-image-*_{recipe()}"), key=lambda path: path.stat().st_mtime)
    try:
        return read(made())
    except GuestError as error:
        # Without package lists or a network, an image that was made earlier is used.
        if not older:
            raise
        print(f"test-guest: {error}; going on with {older[-1].name}", file=sys.stderr, flush=True)
        return read(older[-1])


def recipe() -> str:
    """A name for the selection of files from the packages."""
    return hashlib.sha256(repr(MODULES).encode()).hexdigest()[:8]


def place() -> Path | None:
    """The directory for the image with the newest kernel that apt knows, if it knows one."""
    package = debian.newest(SERIES, KERNEL)
    return cache() / f"{package}_{debian.version(package)}_{recipe()}" if package else None


def made() -> Path:
    """Fetches the newest kernel and makes the image of it."""
    if not debian.available():
        raise GuestError("no apt-get found: the guest needs packages of Debian 12")
    debian.refresh()
    home = place()
    if home is None:
        raise GuestError(f"apt knows no {SERIES}NN-amd64-unsigned (Debian 12): the guest needs that kernel")
    if not home.is_dir():
        package = home.name.split("_")[0]
        print(f"test-guest: fetching {package} into {home.parent}", flush=True)
        make(package, home)
    return home


def make(package: str, home: Path) -> None:
    """Copies what a guest needs from the packages. The directory appears complete or not at all."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as name:
        work = Path(name)
        kernel, tools = debian.unpack(package, work), debian.unpack("busybox-static", work)
        picked = work / "picked"
        (picked / "modules").mkdir(parents=True)
        shutil.copy(debian.one(kernel, "vmlinuz-*"), picked / "kernel")
        shutil.copy(debian.one(tools, "bin/busybox"), picked / "busybox")
        for number, module in enumerate(in_order(kernel)):
            shutil.copy(module, picked / "modules" / f"{number:02}-{module.name}")
        try:
            picked.rename(home)
        except OSError:
            if not home.is_dir():  # otherwise another run has made the same directory meanwhile
                raise


def in_order(kernel: Path) -> list[Path]:
    """The modules, each after those that it depends on. A module without a file is built into the kernel."""
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
