"""The bad blocks in the JSON of `ndctl list -N -M`: objects, arrays or a row of them, namespaces at any depth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def parse(source: str, namespace: str | None) -> list[tuple[int, int]]:
    """`(offset, length)` of each bad stretch, in blocks of 512 bytes. ValueError says what is missing or malformed."""
    found = {str(entry["dev"]): entry for document in _documents(source) for entry in _namespaces(document)}
    if namespace is not None and namespace not in found:
        raise ValueError(f"namespace is {namespace!r}: expected one of {', '.join(sorted(found)) or 'none at all'}")
    chosen = found.values() if namespace is None else [found[namespace]]
    return [stretch for entry in chosen for stretch in _stretches(entry)]


def _documents(source: str) -> Iterator[Any]:
    """Objects one after the other, as one is printed for each bus."""
    decoder = json.JSONDecoder()
    at = _skip(source, 0)
    while at < len(source):
        document, at = decoder.raw_decode(source, at)
        yield document
        at = _skip(source, at)


def _skip(source: str, at: int) -> int:
    while at < len(source) and source[at].isspace():
        at += 1
    return at


def _namespaces(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, list):
        for item in document:
            yield from _namespaces(item)
    elif isinstance(document, dict):
        if "dev" in document and ("badblock_count" in document or "badblocks" in document or "mode" in document):
            yield document
        for inside in ("regions", "namespaces", "mappings"):
            yield from _namespaces(document.get(inside, []))


def _stretches(entry: dict[str, Any]) -> Iterator[tuple[int, int]]:
    device = entry["dev"]
    if "badblocks" not in entry:
        count = entry.get("badblock_count", 0)
        if count:
            raise ValueError(f"{device}: {count} bad blocks, but no list of them: list with -M, and not in sector mode")
        return
    blocks = entry["badblocks"]
    if not isinstance(blocks, list):
        raise ValueError(f"{device}: badblocks is {blocks!r}: expected a list")
    for number, block in enumerate(blocks):
        offset, length = (block.get("offset"), block.get("length")) if isinstance(block, dict) else (None, None)
        if type(offset) is not int or type(length) is not int or offset < 0 or length < 0:
            raise ValueError(f"{device}: badblocks[{number}] is {block!r}: expected whole numbers (no --human)")
        yield offset, length
