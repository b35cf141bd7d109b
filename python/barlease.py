# SPDX-License-Identifier: MIT
"""Lease slices of a PCI device's BARs, and use such leases, by libbarlease.

What a function does, and which errors it has, is in the library's man pages,
libbarlease(7) first. Here errors are OSError, and of a lease that is gone
LeaseRevoked. The library is libbarlease.so.0, or what BARLEASE_LIBRARY names.

The library's handler of SIGBUS hands on what is not its own to the handler that
was there before: faulthandler is to be enabled before the first map, as
`python3 -X faulthandler` does, and left so. Enabled later it ends the program at a
loss; and so does disabling it after the first map, which puts back what was there
before it and takes the library's handler away.
"""

from __future__ import annotations

import ctypes
import errno
import math
import operator
import os
import select
import socket
import threading
import time
import warnings
import weakref
from ctypes import c_char, c_char_p, c_int, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterable, Optional, Tuple, Type

__all__ = ["Device", "Info", "Lease", "LeaseRevoked", "Map", "VA_HINT_UNKNOWN", "WC", "UC", "features"]

VA_HINT_UNKNOWN = 2**64 - 1
UC, WC = 0, 1

_READONLY, _PREFAULT, _DONTFORK, _SURVIVE = 1, 2, 4, 8


class LeaseRevoked(OSError):
    """The lease is gone, for good or, if Map.restore() succeeds, for a while."""


class _Range(ctypes.Structure):
    _fields_ = [("offset", c_uint64), ("length", c_uint64)]


class _Info(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("state", c_uint32), ("id", c_uint64), ("length", c_uint64),
        ("nr_ranges", c_uint32), ("nr_spans", c_uint32), ("memattr", c_uint32), ("access", c_uint32),
        ("va_hint", c_uint64), ("faults", c_uint64),
    ]


class _Options(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("flags", c_uint32), ("offset", c_uint64), ("length", c_uint64), ("va_hint", c_uint64),
    ]


class _Bar(ctypes.Structure):
    _fields_ = [("size", c_uint64), ("offset", c_uint64), ("flags", c_uint32), ("kind", c_uint32)]


class _Device(ctypes.Structure):
    _fields_ = [
        ("container_fd", c_int), ("group_fd", c_int), ("iommu_fd", c_int), ("device_fd", c_int), ("group", c_int),
        ("ioas_id", c_uint32), ("bdf", c_char * 16), ("bars", _Bar * 6), ("msix", c_uint32 * 6),
        ("reserved", c_uint64 * 16),
    ]


_lib = ctypes.CDLL(os.environ.get("BARLEASE_LIBRARY", "libbarlease.so.0"), use_errno=True)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, "barlease_" + name)
    function.restype = result
    function.argtypes = arguments
    return function


_features = _function("features", c_int, c_int, ctypes.POINTER(c_uint32))
_export = _function("export", c_int, c_int, c_uint32, ctypes.POINTER(_Range), c_size_t, c_int)
_revoke = _function("revoke", c_int, c_int, c_int)
_set_memattr = _function("set_memattr", c_int, c_int, c_int, c_uint32)
_get_info = _function("get_info", c_int, c_int, c_int, ctypes.POINTER(_Info))
_send = _function("send", c_int, c_int, c_int, ctypes.POINTER(_Info))
_recv = _function("recv", c_int, c_int, ctypes.POINTER(_Info))
_map = _function("map", c_void_p, c_int, ctypes.POINTER(_Options))
_unmap = _function("unmap", c_int, c_void_p)
_map_addr = _function("map_addr", c_void_p, c_void_p)
_map_length = _function("map_length", c_size_t, c_void_p)
_map_lost = _function("map_lost", c_int, c_void_p)
_map_restore = _function("map_restore", c_int, c_void_p)
_prefault = _function("prefault", c_int, c_int)
_device_open = _function("device_open", c_int, ctypes.POINTER(_Device), c_char_p)
_device_close = _function("device_close", None, ctypes.POINTER(_Device))
_device_reset = _function("device_reset", c_int, ctypes.POINTER(_Device))
_WIDTHS = {8: c_uint8, 16: c_uint16, 32: c_uint32, 64: c_uint64}
_read = {bits: _function(f"read{bits}", kind, c_void_p, c_uint64) for bits, kind in _WIDTHS.items()}
_write = {bits: _function(f"write{bits}", None, c_void_p, c_uint64, kind) for bits, kind in _WIDTHS.items()}


def _check(result: Optional[int], failed: Any = -1) -> int:
    if result == failed:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result or 0


def _number(value: int, bits: int) -> int:
    """What C would cut off without a word."""
    if not 0 <= operator.index(value) < 2**bits:
        raise OverflowError(f"{value} is no number of {bits} bits")
    return value


def _fd(value: int) -> int:
    if not -2**31 <= operator.index(value) < 2**31:
        raise OverflowError(f"{value} is no fd")
    return value


def _when_ready(sock: socket.socket, event: int, call: Any, *arguments: Any) -> int:
    """Call it when the socket is ready, within its timeout. It waits here, where the handler of a signal may raise."""
    timeout = sock.gettimeout()
    end = None if timeout is None else time.monotonic() + timeout
    poller = select.poll()
    poller.register(sock, event)
    while True:
        left = None if end is None else max(0, math.ceil((end - time.monotonic()) * 1000))
        if timeout != 0 and not poller.poll(left):
            raise socket.timeout("timed out")
        try:
            return _check(call(sock.fileno(), *arguments))
        except BlockingIOError:
            # Another thread was first.
            if not timeout:
                raise


@dataclass(frozen=True)
class Info:
    """What is known of a lease; of a received one, what its lessor has said."""

    revoked: bool
    id: int
    length: int
    nr_ranges: int
    nr_spans: int
    memattr: int
    writable: bool
    va_hint: int
    faults: int

    @classmethod
    def _of(cls, raw: _Info) -> Info:
        return cls(bool(raw.state), raw.id, raw.length, raw.nr_ranges, raw.nr_spans, raw.memattr,
                   raw.access == os.O_RDWR, raw.va_hint, raw.faults)


def _check_lease(result: Optional[int], failed: Any = -1) -> int:
    """Of a lease that is gone it is told by a class of its own."""
    try:
        return _check(result, failed)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise LeaseRevoked(error.errno, error.strerror) from None
        raise


class _Closing:
    """A thing that `with` closes."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()


_untrack = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("PyObject_GC_UnTrack", ctypes.pythonapi))


class _Handle(int):
    """The library's map, which ends with the last who holds this: a call under way does, and a view."""

    __slots__ = ()

    def __new__(cls, address: int) -> _Handle:
        handle = super().__new__(cls, address)
        # It refers to nothing. The collector would finalize it in no order with those of its cycle who still use it.
        _untrack(handle)
        return handle

    def __del__(self, unmap: Any = _unmap, check: Any = _check) -> None:
        check(unmap(self))


def _refuse(*_: Any) -> None:
    raise TypeError("the map is read-only")


_maps: weakref.WeakSet[Map] = weakref.WeakSet()


def _end_restores_of_others() -> None:
    """In a forked child nobody is left who would end what another thread of the parent had begun."""
    for each in _maps:
        if each._restoring.acquire(blocking=False):
            each._restoring.release()
        else:
            each._restoring = threading.RLock()
            each._over = each._begun


os.register_at_fork(after_in_child=_end_restores_of_others)


class Map(_Closing):
    """A lease that is mapped. It survives its loss: accesses raise LeaseRevoked then; so does a store that another
    thread's restore() has overtaken, as it may or may not have come. With dontfork a forked child has none of it, and may
    only close it: an access ends the child by SIGSEGV."""

    def __init__(self, lease_fd: int, *, offset: int = 0, length: int = 0, va_hint: int = VA_HINT_UNKNOWN,
                 readonly: bool = False, prefault: bool = False, dontfork: bool = False) -> None:
        flags = _SURVIVE | readonly * _READONLY | prefault * _PREFAULT | dontfork * _DONTFORK
        options = _Options(ctypes.sizeof(_Options), flags, _number(offset, 64), _number(length, 64),
                           _number(va_hint, 64))
        self._views: Any = None
        self._readonly = readonly
        # Restores that have begun, and that are over. An access between whose two looks one was under way can't tell
        # what it has met.
        self._begun = self._over = 0
        self._restoring = threading.RLock()
        self._handle: Optional[_Handle] = _Handle(_check_lease(_map(_fd(lease_fd), ctypes.byref(options)), None))
        _maps.add(self)

    def _open(self) -> _Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("the map is closed")
        return handle

    def close(self) -> None:
        """Unmap it, when the accesses of other threads that are under way are done.

        BufferError: a view of it is still in use.
        """
        if self._views is not None and self._views() is not None:
            raise BufferError("a view of the map is still in use")
        self._handle = None

    def __len__(self) -> int:
        return int(_map_length(self._open()))

    @property
    def lost(self) -> bool:
        return bool(_map_lost(self._open()))

    def restore(self) -> None:
        """Map the lease again. LeaseRevoked: it is gone for good; OSError EIO: try again later."""
        with self._restoring:
            self._begun += 1
            try:
                _check_lease(_map_restore(self._open()))
            finally:
                self._over += 1

    @staticmethod
    def _raise_if_lost(handle: _Handle) -> None:
        if _map_lost(handle):
            raise LeaseRevoked(errno.ENODEV, "the lease is gone")

    @staticmethod
    def _at(handle: _Handle, offset: int, bits: int) -> int:
        if offset < 0 or offset % (bits // 8) or offset + bits // 8 > _map_length(handle):
            raise IndexError(f"no {bits} bits at {offset:#x}")
        return offset

    def _load(self, bits: int, offset: int) -> int:
        handle = self._open()
        self._at(handle, offset, bits)
        while True:
            over = self._over
            value = int(_read[bits](handle, offset))
            if value != 2**bits - 1:
                return value
            self._raise_if_lost(handle)
            # Else they may be of before it was restored.
            if self._begun == over:
                return value

    def _store(self, bits: int, offset: int, value: int) -> None:
        if self._readonly:
            _refuse()
        handle = self._open()
        over = self._over
        _write[bits](handle, self._at(handle, offset, bits), _number(value, bits))
        self._raise_if_lost(handle)
        if self._begun != over:
            raise LeaseRevoked(errno.ENODEV, "the lease was gone meanwhile, and with it maybe what was stored")

    def read8(self, offset: int) -> int:
        return self._load(8, offset)

    def read16(self, offset: int) -> int:
        return self._load(16, offset)

    def read32(self, offset: int) -> int:
        return self._load(32, offset)

    def read64(self, offset: int) -> int:
        return self._load(64, offset)

    def write8(self, offset: int, value: int) -> None:
        self._store(8, offset, value)

    def write16(self, offset: int, value: int) -> None:
        self._store(16, offset, value)

    def write32(self, offset: int, value: int) -> None:
        self._store(32, offset, value)

    def write64(self, offset: int, value: int) -> None:
        self._store(64, offset, value)

    def view(self) -> memoryview:
        """All of it as memory, not copied; numpy.frombuffer() takes it.

        For slices that behave as memory: by which widths it is accessed is not
        promised, nor that once. Of a lost map it reads ones.
        """
        pages = self._views() if self._views is not None else None
        if pages is None:
            handle = self._open()
            kind: Any = c_uint8 * _map_length(handle)
            if self._readonly:
                # memoryview.obj leads to it, and a store into such pages ends the program.
                kind = type("_ReadOnly", (kind,), {"__setitem__": _refuse})
            pages = kind.from_address(_map_addr(handle))
            # What the view is of keeps the library's map.
            pages._barlease_handle = handle
            self._views = weakref.ref(pages)
        view = memoryview(pages).cast("B")
        return view.toreadonly() if self._readonly else view


class _Owner(_Closing):
    """One that says so when nobody has closed it, as files do."""

    def _is_open(self) -> bool:
        raise NotImplementedError

    def __del__(self, warn: Any = warnings.warn) -> None:
        if self._is_open():
            warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()


class Lease(_Owner):
    """The fd of a lease, and what is known of it."""

    fd = -1

    def __init__(self, fd: int, info: Info) -> None:
        self.fd, self.info = fd, info

    def _is_open(self) -> bool:
        return self.fd >= 0

    @classmethod
    def receive(cls, sock: socket.socket) -> Lease:
        """Take a lease from a Unix socket, within its timeout."""
        raw = _Info(size=ctypes.sizeof(_Info))
        return cls(_when_ready(sock, select.POLLIN, _recv, ctypes.byref(raw)), Info._of(raw))

    def send(self, sock: socket.socket) -> None:
        """Hand it to another process, within the socket's timeout; it stays open here."""
        info = self.info
        raw = _Info(ctypes.sizeof(_Info), info.revoked, _number(info.id, 64), _number(info.length, 64),
                    _number(info.nr_ranges, 32), _number(info.nr_spans, 32), _number(info.memattr, 32),
                    os.O_RDWR if info.writable else os.O_RDONLY, _number(info.va_hint, 64), _number(info.faults, 64))
        _when_ready(sock, select.POLLOUT, _send, _fd(self.fd), ctypes.byref(raw))

    def map(self, *, offset: int = 0, length: int = 0, prefault: bool = False, dontfork: bool = False) -> Map:
        return Map(self.fd, offset=offset, length=length, va_hint=self.info.va_hint,
                   readonly=not self.info.writable, prefault=prefault, dontfork=dontfork)

    def prefault(self) -> None:
        _check_lease(_prefault(_fd(self.fd)))

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def features(device_fd: int) -> int:
    """What the driver of a VFIO device can do, as BARLEASE_CAN_* of barlease.h."""
    mask = c_uint32()
    _check(_features(_fd(device_fd), ctypes.byref(mask)))
    return mask.value


class Device(_Owner):
    """A PCI device, opened by its address. Its leases end with it."""

    _opened = False

    def __init__(self, bdf: str) -> None:
        self._raw = _Device()
        _check(_device_open(ctypes.byref(self._raw), bdf.encode()))
        self._opened = True

    def _is_open(self) -> bool:
        return self._opened

    @property
    def fd(self) -> int:
        return int(self._raw.device_fd)

    @property
    def bar_sizes(self) -> Tuple[int, ...]:
        return tuple(bar.size for bar in self._raw.bars)

    def export(self, bar: int, ranges: Iterable[Tuple[int, int]], *, writable: bool = True) -> Lease:
        """Lease (offset, length) ranges of a BAR. Keep it: it is what can be revoked."""
        pieces = [_Range(_number(offset, 64), _number(length, 64)) for offset, length in ranges]
        access = os.O_RDWR if writable else os.O_RDONLY
        fd = _check(_export(self.fd, _number(bar, 32), (_Range * len(pieces))(*pieces), len(pieces), access))
        try:
            return Lease(fd, self.info(fd))
        except BaseException:
            # vfio-pci, too, can export; but nothing can be asked of it, nor taken back.
            os.close(fd)
            raise

    def info(self, lease: Lease | int) -> Info:
        raw = _Info(size=ctypes.sizeof(_Info))
        _check(_get_info(self.fd, _fd(lease if isinstance(lease, int) else lease.fd), ctypes.byref(raw)))
        return Info._of(raw)

    def revoke(self, lease: Lease) -> None:
        _check(_revoke(self.fd, _fd(lease.fd)))

    def set_memattr(self, lease: Lease, memattr: int) -> None:
        _check(_set_memattr(self.fd, _fd(lease.fd), _number(memattr, 32)))

    def reset(self) -> None:
        _check(_device_reset(ctypes.byref(self._raw)))

    def close(self) -> None:
        opened, self._opened = self._opened, False
        if opened:
            _device_close(ctypes.byref(self._raw))
