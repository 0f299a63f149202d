"""System calls on many small files at once, with the interpreter's lock let go of once. May be missing at run time."""

Read = tuple[int, int, int, int, int, int, int, int, bytes | None, bytes | None]
Move = tuple[int, bytes, int, bytes, int, int, bool, int, int, int, int, int]

def read(root: int, paths: tuple[bytes, ...], how: bytes, buffer: memoryview, /) -> list[Read]: ...
def move(steps: tuple[Move, ...], may_chown: bool, /) -> list[tuple[int, int]]: ...
