"""Copies of every kind over good memory, with each instruction set."""

from __future__ import annotations

from iovec_rs import PAGE_SIZE, READ, WRITE, copy_from_iter, copy_to_iter, cpu

from guest.harness import equal, test
from guest.memory import good, pattern
from guest.shapes import SHAPES, over

LENGTH = 5 * PAGE_SIZE + 13


@test(kind=SHAPES)
def copies_are_right_with_every_instruction_set(kind: str) -> None:
    fill = pattern(8 * PAGE_SIZE)
    for isa in cpu.available():
        with cpu.use_isa(isa):
            source, out = good(8 * PAGE_SIZE, fill), bytearray(LENGTH)
            equal(copy_from_iter(out, over(kind, source, WRITE, 5, LENGTH)), LENGTH, f"{isa}: copied from")
            equal(out == fill[5 : 5 + LENGTH], True, f"{isa}: the bytes from")
            target = good(8 * PAGE_SIZE)
            equal(copy_to_iter(fill[:LENGTH], over(kind, target, READ, 5, LENGTH)), LENGTH, f"{isa}: copied to")
            equal(bytes(target.view[5 : 5 + LENGTH]) == fill[:LENGTH], True, f"{isa}: the bytes to")
