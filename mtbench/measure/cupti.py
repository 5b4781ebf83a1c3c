"""The GPU's own record of what ran when: CUPTI's activity interface, through ctypes.

One definition for every framework: the library that PyTorch and JAX profile with is asked directly, in the
process that runs the kernels, whoever launched them. Only records of kernels, copies and fills are asked for;
of each the start and the end are read, which lie at the same place in all three and in every CUPTI since 10.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import site
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CuptiError", "Recorder", "recorder"]

KINDS = {"memcpy": 1, "memset": 2, "concurrent kernel": 10}
START, END = 16, 24
"""Byte offsets of the two times, ns, in CUPTI's records of a kernel, a copy and a fill."""

BUFFER = 8 << 20
ALIGNMENT = 8

_Request = ctypes.CFUNCTYPE(
    None,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
)
_Complete = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)


class CuptiError(RuntimeError):
    """CUPTI is not there, refused, or recorded nothing."""


class Recorder:
    """Records the intervals of GPU work while `recording`. One a process: CUPTI has one set of callbacks."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._lib = library
        self._buffers: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._intervals: list[tuple[int, int]] = []
        # Kept on the instance: CUPTI holds bare pointers to them.
        self._request, self._complete = _Request(self._give_buffer), _Complete(self._take_buffer)
        self._call("cuptiActivityRegisterCallbacks", self._request, self._complete)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._lib.cuptiGetResultString(status, ctypes.byref(text))
            raise CuptiError(f"{name}: {(text.value or b'?').decode()} ({status})")

    def _give_buffer(self, buffer: object, size: object, most: object) -> None:
        memory = ctypes.create_string_buffer(BUFFER + ALIGNMENT)
        address = -(-ctypes.addressof(memory) // ALIGNMENT) * ALIGNMENT
        self._buffers[address] = memory
        buffer[0], size[0], most[0] = address, BUFFER, 0  # type: ignore[index]

    def _take_buffer(self, context: int, stream: int, buffer: int, size: int, valid: int) -> None:
        record = ctypes.c_void_p()
        while valid and not self._lib.cuptiActivityGetNextRecord(
            ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)
        ):
            at = record.value or 0
            if ctypes.c_uint32.from_address(at).value in KINDS.values():
                start = ctypes.c_uint64.from_address(at + START).value
                end = ctypes.c_uint64.from_address(at + END).value
                self._intervals.append((start, end))
        self._buffers.pop(buffer, None)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Tracing is on inside; outside it costs the host clock nothing."""
        for kind in KINDS.values():
            self._call("cuptiActivityEnable", kind)
        try:
            yield
        finally:
            for kind in KINDS.values():
                self._call("cuptiActivityDisable", kind)
            self.drain()

    def drain(self) -> list[tuple[int, int]]:
        """The (start, end) of everything that ended since the last drain, ns, in order of start. The caller
        has waited for the device."""
        self._call("cuptiActivityFlushAll", 1)
        found, self._intervals = sorted(self._intervals), []
        return found


@functools.cache
def recorder() -> Recorder:
    """This process's recorder.

    Raises:
        CuptiError: no CUPTI can be loaded.
    """
    tried = []
    for candidate in _candidates():
        try:
            return Recorder(ctypes.CDLL(candidate))
        except OSError as error:
            tried.append(f"{candidate}: {error}")
    raise CuptiError(f"no CUPTI library can be loaded ({'; '.join(tried)})")


def _candidates() -> Iterator[str]:
    # The copy that the framework has in this process, if it has one: two copies would not see each other.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "/libcupti.so" in line:
                yield line[line.index("/") :]
                break
    for folder in dict.fromkeys([*sys.path, *site.getsitepackages()]):
        yield from map(str, sorted(Path(folder).glob("nvidia/*/lib/libcupti.so*"), reverse=True))
    for folder in ("/usr/local/cuda/extras/CUPTI/lib64", "/usr/local/cuda/lib64"):
        yield from map(str, sorted(Path(folder).glob("libcupti.so*"), reverse=True))
    yield "libcupti.so"
