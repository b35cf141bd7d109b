# SPDX-License-Identifier: MIT
"""barlease.py on the host: memfds that are cut off stand for leases."""

import ctypes
import errno
import faulthandler
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
import unittest.mock

import barlease
import tap

PAGE = os.sysconf("SC_PAGE_SIZE")

# Of a program of its own: a SIGBUS that is not the library's.
FOREIGN = """
import barlease, mmap, os
fd = os.memfd_create("lease")
os.ftruncate(fd, 4096)
with barlease.Map(fd) as lease:
    foreign = os.memfd_create("foreign")
    os.ftruncate(foreign, 4096)
    pages = mmap.mmap(foreign, 4096)
    os.ftruncate(fd, 0)
    try:
        lease.read32(0)
    except barlease.LeaseRevoked:
        print("survived", flush=True)
    os.ftruncate(foreign, 0)
    pages[0]
"""


# Whatever of a cycle is finalized first, what it uses is still there.
CYCLES = """
import barlease, gc, os
fd = os.memfd_create("lease")
os.ftruncate(fd, 4096)

class Client:
    def __init__(self, lease, view):
        self.lease, self.view = lease, view
        lease.owner = self

    def __del__(self):
        if self.view:
            self.view[0] = 1
        else:
            self.lease.write32(0, 1)
            self.lease.close()
            self.lease.close()

for turn in range(100):
    lease = barlease.Map(fd)
    Client(lease, lease.view() if turn % 2 else None)
    del lease
gc.collect()
with open("/proc/self/maps") as maps:
    print("left", maps.read().count("/memfd:lease"))
"""

# Another thread is in an access while the map is closed.
CLOSED_MEANWHILE = """
import barlease, os, sys, threading, time
sys.setswitchinterval(1e-6)
fd = os.memfd_create("lease")
os.ftruncate(fd, 4096)
end = time.monotonic() + 0.5

def read(lease):
    try:
        while True:
            lease.read32(0)
    except ValueError:
        pass

while time.monotonic() < end:
    lease = barlease.Map(fd)
    thread = threading.Thread(target=read, args=(lease,))
    thread.start()
    time.sleep(0.0005)
    lease.close()
    thread.join()
"""

WAITING = """
import barlease, socket
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
print("waiting", flush=True)
barlease.Lease.receive(here)
"""

DISABLED = """
import barlease, faulthandler, os
fd = os.memfd_create("lease")
os.ftruncate(fd, 4096)
lease = barlease.Map(fd)
faulthandler.disable()
os.ftruncate(fd, 0)
lease.read32(0)
"""


def run(program, *options):
    return subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=False)


def fds():
    return os.listdir("/proc/self/fd")


class MapTest(unittest.TestCase):
    def setUp(self):
        self.fd = os.memfd_create("lease")
        os.ftruncate(self.fd, 2 * PAGE)
        self.addCleanup(os.close, self.fd)

    def test_widths(self):
        with barlease.Map(self.fd) as lease:
            for bits in 8, 16, 32, 64:
                value = 0x8877665544332211 & (2**bits - 1)
                getattr(lease, f"write{bits}")(PAGE, value)
                self.assertEqual(getattr(lease, f"read{bits}")(PAGE), value)
                self.assertEqual(os.pread(self.fd, bits // 8, PAGE), value.to_bytes(bits // 8, sys.byteorder))

    def test_ones_of_a_live_map_are_ones(self):
        with barlease.Map(self.fd) as lease:
            lease.write32(0, 0xffffffff)
            self.assertEqual(lease.read32(0), 0xffffffff)

    def test_loss_raises_and_restore_mends(self):
        with barlease.Map(self.fd) as lease:
            for width in 8, 16, 32, 64:
                os.ftruncate(self.fd, 0)
                self.assertFalse(lease.lost)
                with self.assertRaises(barlease.LeaseRevoked):
                    getattr(lease, f"read{width}")(PAGE)
                self.assertTrue(lease.lost)
                with self.assertRaises(barlease.LeaseRevoked):
                    getattr(lease, f"write{width}")(0, 1)
                os.ftruncate(self.fd, 2 * PAGE)
                lease.restore()
                self.assertFalse(lease.lost)
                self.assertEqual(getattr(lease, f"read{width}")(PAGE), 0)

    def test_a_store_raises_too(self):
        with barlease.Map(self.fd) as lease:
            os.ftruncate(self.fd, 0)
            with self.assertRaises(barlease.LeaseRevoked):
                lease.write32(4, 1)

    def over_a_restore(self, lease, table, call, width=32):
        """Have what the library's own access finds lost restored before anybody asks."""
        access = table[width]

        def lose_and_restore(*arguments):
            table[width] = access
            os.ftruncate(self.fd, 0)
            result = access(*arguments)
            self.assertTrue(lease.lost)
            os.ftruncate(self.fd, 2 * PAGE)
            lease.restore()
            return result

        with unittest.mock.patch.dict(table, {width: lose_and_restore}):
            return call()

    def test_a_load_over_a_restore_is_done_again(self):
        with barlease.Map(self.fd) as lease:
            value = self.over_a_restore(lease, barlease._read, lambda: lease.read32(0))
            self.assertEqual(value, 0)

    def test_a_store_over_a_restore_raises(self):
        with barlease.Map(self.fd) as lease, self.assertRaises(barlease.LeaseRevoked):
            self.over_a_restore(lease, barlease._write, lambda: lease.write32(0, 1))

    def test_a_fork_during_a_restore(self):
        restore, begun, end = barlease._map_restore, threading.Event(), threading.Event()

        def restore_and_stop(handle):
            result = restore(handle)
            begun.set()
            end.wait()
            return result

        def use(lease):
            signal.alarm(20)
            barlease._map_restore = restore
            lease.write32(0, 0xffffffff)
            lease.restore()
            return 7 if lease.read32(0) == 0xffffffff else 1

        with barlease.Map(self.fd) as lease, unittest.mock.patch.object(barlease, "_map_restore", restore_and_stop):
            thread = threading.Thread(target=lease.restore)
            thread.start()
            begun.wait()
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(use(lease))
                except BaseException:
                    os._exit(99)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7)
            end.set()
            thread.join()

    def test_a_lease_that_is_gone_is_told_by_its_class(self):
        def gone(result):
            def call(*_):
                ctypes.set_errno(errno.ENODEV)
                return result
            return call

        info = barlease.Info(False, 1, PAGE, 1, 1, 0, True, 0, 0)
        with barlease.Lease(os.dup(self.fd), info) as lease:
            for name, result in ("_map", None), ("_prefault", -1):
                with unittest.mock.patch.object(barlease, name, gone(result)):
                    with self.assertRaises(barlease.LeaseRevoked) as caught:
                        getattr(lease, name[1:])()
                self.assertEqual(caught.exception.errno, errno.ENODEV)

    def test_places_that_are_none(self):
        with barlease.Map(self.fd, length=PAGE + 4) as lease:
            self.assertEqual(len(lease), PAGE + 4)
            for offset in -4, 1, 2, PAGE + 4, 2**63:
                with self.assertRaises(IndexError):
                    lease.read32(offset)
                with self.assertRaises(IndexError):
                    lease.write32(offset, 0)
            with self.assertRaises(OverflowError):
                lease.write8(0, 256)

    def test_read_only(self):
        with barlease.Map(self.fd, readonly=True) as lease:
            with self.assertRaises(TypeError):
                lease.write32(0, 1)
            view = lease.view()
            self.assertTrue(view.readonly)
            with self.assertRaises(TypeError):
                view.obj[0] = 1
            self.assertEqual(view.obj[0], 0)
            view.release()

    def test_errors(self):
        with self.assertRaises(OSError) as caught:
            barlease.Map(-1)
        self.assertEqual(caught.exception.errno, errno.EBADF)
        with self.assertRaises(OSError) as caught:
            barlease.Map(self.fd, offset=1)
        self.assertEqual(caught.exception.errno, errno.EINVAL)

    def test_numbers_that_are_too_large(self):
        for name in "offset", "length", "va_hint":
            for value in -1, 2**64, 2**64 + PAGE:
                with self.assertRaises(OverflowError):
                    barlease.Map(self.fd, **{name: value})
        with self.assertRaises(OverflowError):
            barlease.Map(2**32 + self.fd)
        with self.assertRaises(OverflowError):
            barlease.features(2**32)

    def test_it_ends_with_its_last_reference(self):
        # With the first one come fds of the library.
        barlease.Map(self.fd).close()
        before = len(fds())
        lease = barlease.Map(self.fd)
        view = lease.view()
        self.assertEqual(len(fds()), before + 1)
        del lease
        view[0] = 1
        self.assertEqual(len(fds()), before + 1)
        del view
        self.assertEqual(len(fds()), before)

    def test_a_cycle_uses_it_to_its_end(self):
        ended = run(CYCLES)
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "left 0\n", ""))

    def test_it_is_closed_while_another_thread_reads(self):
        ended = run(CLOSED_MEANWHILE)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_a_closed_map(self):
        lease = barlease.Map(self.fd)
        lease.close()
        lease.close()
        with self.assertRaises(ValueError):
            lease.read32(0)

    def test_view(self):
        lease = barlease.Map(self.fd)
        view = lease.view()
        view[0:4] = b"abcd"
        self.assertEqual(os.pread(self.fd, 4, 0), b"abcd")
        with self.assertRaises(BufferError):
            lease.close()
        part = view[2:4]
        view.release()
        with self.assertRaises(BufferError):
            lease.close()
        os.ftruncate(self.fd, 0)
        self.assertEqual(bytes(part), b"\xff\xff")
        self.assertTrue(lease.lost)
        part.release()
        lease.close()

    def test_a_view_keeps_the_map(self):
        view = barlease.Map(self.fd).view()
        view[0] = 7
        self.assertEqual(os.pread(self.fd, 1, 0), b"\x07")

    def test_numpy(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("there is no numpy")
        with barlease.Map(self.fd) as lease:
            words = numpy.frombuffer(lease.view(), dtype=numpy.uint32)
            words[1] = 0x11223344
            self.assertEqual(lease.read32(4), 0x11223344)
            del words


class PassTest(unittest.TestCase):
    def test_a_lease_over_a_socket(self):
        fd = os.memfd_create("lease")
        os.ftruncate(fd, PAGE)
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        info = barlease.Info(False, 5, PAGE, 1, 1, barlease.WC, True, 0x1000, 3)
        with here, there, barlease.Lease(fd, info) as lease:
            lease.send(here)
            with barlease.Lease.receive(there) as other:
                self.assertEqual(other.info, info)
                with lease.map() as mine, other.map() as theirs:
                    mine.write64(8, 12345)
                    self.assertEqual(theirs.read64(8), 12345)
            here.send(b"what is no lease")
            with self.assertRaises(OSError) as caught:
                barlease.Lease.receive(there)
            self.assertEqual(caught.exception.errno, errno.EPROTO)


class WaitTest(unittest.TestCase):
    def setUp(self):
        self.here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.here.close)
        self.addCleanup(self.there.close)
        fd = os.memfd_create("lease")
        os.ftruncate(fd, PAGE)
        self.lease = barlease.Lease(fd, barlease.Info(False, 5, PAGE, 1, 1, barlease.WC, True, 0x1000, 3))
        self.addCleanup(self.lease.close)

    def test_an_interrupt_ends_it(self):
        with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as waiting:
            self.addCleanup(waiting.kill)
            self.assertEqual(waiting.stdout.readline(), "waiting\n")
            time.sleep(0.2)
            waiting.send_signal(signal.SIGINT)
            self.assertIn("KeyboardInterrupt", waiting.communicate(timeout=10)[1])

    def test_a_timeout_ends_it(self):
        self.there.settimeout(0.05)
        with self.assertRaises(socket.timeout):
            barlease.Lease.receive(self.there)
        self.there.settimeout(10)
        later = threading.Timer(0.05, self.lease.send, (self.here,))
        later.start()
        with barlease.Lease.receive(self.there) as other:
            self.assertEqual(other.info, self.lease.info)
        later.join()

    def test_a_socket_that_does_not_block(self):
        self.there.setblocking(False)
        with self.assertRaises(BlockingIOError):
            barlease.Lease.receive(self.there)
        self.lease.send(self.here)
        barlease.Lease.receive(self.there).close()

    def test_sending_has_a_timeout_too(self):
        self.here.settimeout(0.05)
        with self.assertRaises(socket.timeout):
            while True:
                self.lease.send(self.here)

    def test_numbers_that_are_too_large(self):
        self.lease.info = barlease.Info(False, 2**64, PAGE, 1, 1, barlease.WC, True, 0x1000, 3)
        with self.assertRaises(OverflowError):
            self.lease.send(self.here)

    def test_who_forgets_to_close_it_is_told(self):
        before = len(fds())
        lease = barlease.Lease(os.dup(self.lease.fd), self.lease.info)
        with self.assertWarns(ResourceWarning):
            del lease
            gc.collect()
        self.assertEqual(len(fds()), before)


class SigbusTest(unittest.TestCase):
    def run_foreign(self, *options):
        return run(FOREIGN, *options)

    def test_disabling_faulthandler_takes_the_handler_away(self):
        self.assertEqual(run(DISABLED, "-X", "faulthandler").returncode, -signal.SIGBUS)
        # It is not on: then that does nothing.
        self.assertIn("LeaseRevoked", run(DISABLED).stderr)

    def test_faulthandler_gets_what_is_its_own(self):
        ended = self.run_foreign("-X", "faulthandler")
        self.assertEqual(ended.stdout, "survived\n")
        self.assertEqual(ended.returncode, -signal.SIGBUS)
        self.assertIn("Fatal Python error: Bus error", ended.stderr)

    def test_without_it_too(self):
        ended = self.run_foreign()
        self.assertEqual((ended.stdout, ended.returncode, ended.stderr), ("survived\n", -signal.SIGBUS, ""))

    def test_these_tests_have_it_on(self):
        self.assertTrue(faulthandler.is_enabled())


class DeviceTest(unittest.TestCase):
    def test_no_device(self):
        with self.assertRaises(OSError) as caught:
            barlease.Device("nowhere")
        self.assertEqual(caught.exception.errno, errno.EINVAL)
        with open("/dev/null", "rb") as null:
            self.assertEqual(barlease.features(null.fileno()), 0)

    def test_a_lease_that_nothing_can_be_asked_of_is_closed(self):
        device = barlease.Device.__new__(barlease.Device)
        device._raw = barlease._Device(device_fd=-1)
        before = len(fds())
        with unittest.mock.patch.object(barlease, "_export", lambda *_: os.memfd_create("lease")):
            with self.assertRaises(OSError):
                device.export(0, [(0, PAGE)])
        self.assertEqual(len(fds()), before)

    def test_numbers_that_are_too_large(self):
        device = barlease.Device.__new__(barlease.Device)
        device._raw = barlease._Device(device_fd=-1)
        for bar, ranges in (2**32, [(0, PAGE)]), (0, [(2**64, PAGE)]), (0, [(0, 2**64 + PAGE)]), (-1, []):
            with self.assertRaises(OverflowError):
                device.export(bar, ranges)
        with self.assertRaises(OverflowError):
            device.set_memattr(barlease.Lease(-1, None), 2**32)

    def test_who_forgets_to_close_it_is_told(self):
        device = barlease.Device.__new__(barlease.Device)
        device._raw = barlease._Device(container_fd=-1, group_fd=-1, iommu_fd=-1, device_fd=os.memfd_create("device"))
        device._opened = True
        before = len(fds())
        with self.assertWarns(ResourceWarning):
            del device
            gc.collect()
        self.assertEqual(len(fds()), before - 1)


if __name__ == "__main__":
    tap.main()
