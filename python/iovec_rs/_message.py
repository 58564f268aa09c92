"""Socket addresses and control messages: conversion between Python's `socket` form and the kernel's structures."""

from __future__ import annotations

import operator
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, SupportsIndex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

Ancillary = tuple[int, int, "Buffer"]

_HEADER = struct.Struct("@Nii")  # struct cmsghdr: length, level, type
_FAMILY = struct.Struct("=H")
_INET = struct.Struct("!H4s8x")
_INET6 = struct.Struct("!HI16s")
_SCOPE = struct.Struct("=I")
_NETLINK = struct.Struct("=2xII")
_VSOCK = struct.Struct("=2xII4x")
_UNIX_PATH = 108

__all__ = ["Ancillary", "decode_address", "decode_control", "encode_address", "encode_control"]


def encode_control(ancdata: Iterable[Ancillary]) -> bytes:
    """Control messages from `(level, type, data)` tuples, each aligned as CMSG_NXTHDR expects the next."""
    control = bytearray()
    for index, item in enumerate(ancdata):
        if not isinstance(item, tuple) or len(item) != 3:
            what = f"a tuple of {len(item)}" if isinstance(item, tuple) else type(item).__name__
            raise TypeError(f"ancdata[{index}]: (level, type, data) is expected, not {what}")
        level, kind, data = (_int(index, item[0]), _int(index, item[1]), memoryview(item[2]).cast("B"))
        control += _HEADER.pack(socket.CMSG_LEN(len(data)), level, kind) + data
        control += bytes(socket.CMSG_SPACE(len(data)) - socket.CMSG_LEN(len(data)))
    return bytes(control)


def _int(index: int, value: SupportsIndex) -> int:
    number = operator.index(value)
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError(f"ancdata[{index}]: {number} does not fit a C int")
    return number


def decode_control(control: bytes) -> list[tuple[int, int, bytes]]:
    """`(level, type, data)` of each control message. The data of the last one may be truncated (MSG_CTRUNC)."""
    messages = []
    start = 0
    while len(control) - start >= socket.CMSG_LEN(0):
        length, level, kind = _HEADER.unpack_from(control, start)
        if length < socket.CMSG_LEN(0):
            break
        end = min(start + length, len(control))
        messages.append((level, kind, control[start + socket.CMSG_LEN(0) : end]))
        start += socket.CMSG_SPACE(length - socket.CMSG_LEN(0))
    return messages


def _resolved(sock: Any, address: Any) -> tuple[Any, ...]:
    """The first address of a host name. Numeric addresses need no lookup."""
    if not isinstance(address, tuple):
        raise TypeError(f"address: a tuple is expected, not {type(address).__name__}")
    host, port = address[:2]
    if not isinstance(port, int):
        raise TypeError(f"address: the port is an int, not {type(port).__name__}")
    if not 0 <= port <= 0xFFFF:
        raise OverflowError(f"address: port is {port}: expected 0 to 65535")
    if host in ("", b""):
        host = "0.0.0.0" if sock.family == socket.AF_INET else "::"
    elif host == "<broadcast>":
        host = "255.255.255.255"
    found: Any = socket.getaddrinfo(host, port, sock.family, sock.type)[0][4]
    return tuple(found) + address[len(found) :] if len(address) <= len(found) else tuple(found)


def encode_address(sock: Any, address: Any) -> bytes:
    """The `struct sockaddr` of an address for this socket. Host names are looked up."""
    family = sock.family
    if family == socket.AF_UNIX:
        path = address if isinstance(address, bytes) else os.fsencode(address)
        if len(path) >= _UNIX_PATH + path.startswith(b"\0"):
            raise OSError("AF_UNIX path too long")
        return _FAMILY.pack(family) + path + (b"" if path.startswith(b"\0") else b"\0")
    if family == socket.AF_INET:
        host, port = _resolved(sock, address)[:2]
        return _FAMILY.pack(family) + _INET.pack(port, socket.inet_pton(family, host))
    if family == socket.AF_INET6:
        host, port, flow, scope = _resolved(sock, address)
        if len(address) > 2:
            flow = address[2]
        if len(address) > 3:
            scope = address[3]
        packed = socket.inet_pton(family, host.partition("%")[0])
        return _FAMILY.pack(family) + _INET6.pack(port, flow, packed) + _SCOPE.pack(scope)
    if family == socket.AF_NETLINK:
        pid, groups = address
        return _FAMILY.pack(family) + _NETLINK.pack(pid, groups)
    if family == getattr(socket, "AF_VSOCK", None):
        cid, port = address
        return _FAMILY.pack(family) + _VSOCK.pack(port, cid)
    raise OSError(f"sendmsg: addresses of family {family} are not supported: connect the socket instead")


def decode_address(name: bytes) -> Any:
    """An address in `socket`'s form; None for an empty one, `(family, bytes)` for a family not known here."""
    if len(name) < _FAMILY.size:
        return None
    (family,) = _FAMILY.unpack_from(name)
    rest = name[_FAMILY.size :]
    if family == socket.AF_UNIX:
        if rest.startswith(b"\0"):
            return rest
        return os.fsdecode(rest.partition(b"\0")[0])
    if family == socket.AF_INET and len(rest) >= _INET.size:
        port, packed = _INET.unpack_from(rest)
        return socket.inet_ntop(family, packed), port
    if family == socket.AF_INET6 and len(rest) >= _INET6.size + _SCOPE.size:
        port, flow, packed = _INET6.unpack_from(rest)
        (scope,) = _SCOPE.unpack_from(rest, _INET6.size)
        host = socket.inet_ntop(family, packed)
        if scope:
            host = socket.getnameinfo((host, port, flow, scope), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
        return host, port, flow, scope
    if family == socket.AF_NETLINK and len(rest) >= _NETLINK.size:
        return _NETLINK.unpack_from(rest)
    if family == getattr(socket, "AF_VSOCK", None) and len(rest) >= _VSOCK.size:
        port, cid = _VSOCK.unpack_from(rest)
        return cid, port
    return family, rest
