# SPDX-License-Identifier: MIT
"""barlease.py on the host: memfds that are cut off stand for leases."""

import errno
import faulthandler
import os
import signal
import socket
import subprocess
import sys
import unittest

import barlease

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
            view.release()

    def test_errors(self):
        with self.assertRaises(OSError) as caught:
            barlease.Map(-1)
        self.assertEqual(caught.exception.errno, errno.EBADF)
        with self.assertRaises(OSError) as caught:
            barlease.Map(self.fd, offset=1)
        self.assertEqual(caught.exception.errno, errno.EINVAL)

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


class SigbusTest(unittest.TestCase):
    def run_foreign(self, *options):
        return subprocess.run([sys.executable, *options, "-c", FOREIGN], capture_output=True, text=True, check=False)

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


if __name__ == "__main__":
    unittest.main(verbosity=2)
