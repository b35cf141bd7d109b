# SPDX-License-Identifier: MIT
"""barlease.py in the VM: real leases of a device whose BAR is memory, BARLEASE_DEVICE."""

import errno
import os
import signal
import socket
import struct
import threading
import unittest

import barlease
import tap

PAGE = os.sysconf("SC_PAGE_SIZE")
BAR = 2
COMMAND, MEMORY = 0x04, 0x02
# VFIO_PCI_CONFIG_REGION_INDEX's place in the device's fd (linux/vfio.h).
CONFIG = 7 << 40


def set_memory(device, on):
    """Have it answer in its BARs, or not, by its virtual command register."""
    (command,) = struct.unpack("<H", os.pread(device.fd, 2, CONFIG + COMMAND))
    command = command | MEMORY if on else command & ~MEMORY
    os.pwrite(device.fd, struct.pack("<H", command), CONFIG + COMMAND)


def exit_status(body):
    """Of a forked child that does that."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(body())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class DeviceTest(unittest.TestCase):
    def setUp(self):
        self.device = barlease.Device(os.environ["BARLEASE_DEVICE"])
        self.addCleanup(self.device.close)

    def lease(self, *ranges, writable=True):
        lease = self.device.export(BAR, ranges, writable=writable)
        self.addCleanup(lease.close)
        return lease

    def map(self, lease, **options):
        mapped = lease.map(**options)
        self.addCleanup(mapped.close)
        return mapped

    def test_bars_and_features(self):
        self.assertEqual(self.device.bar_sizes[BAR], 64 << 20)
        self.assertEqual(barlease.features(self.device.fd), 0xf)

    def test_ranges_are_one_lease(self):
        whole = self.map(self.lease((0, 16 * PAGE)))
        for page in range(16):
            whole.write64(page * PAGE, page)
        lease = self.lease((8 * PAGE, PAGE), (3 * PAGE, 2 * PAGE))
        self.assertEqual((lease.info.length, lease.info.nr_ranges, lease.info.writable), (3 * PAGE, 2, True))
        pages = self.map(lease)
        self.assertEqual([pages.read64(n * PAGE) for n in range(3)], [8, 3, 4])
        pages.write16(PAGE + 2, 0x1234)
        self.assertEqual(whole.read64(3 * PAGE), 0x12340003)

    def test_each_width_reaches_the_bar(self):
        mapped, owner = (self.map(self.lease((0, PAGE))) for _ in range(2))
        for bits in 8, 16, 32, 64:
            value = 0x8877665544332211 & (2**bits - 1)
            getattr(mapped, f"write{bits}")(8, value)
            self.assertEqual(getattr(owner, f"read{bits}")(8), value)

    def test_read_only(self):
        lease = self.lease((0, PAGE), writable=False)
        self.assertFalse(self.device.info(lease).writable)
        mapped = self.map(lease)
        with self.assertRaises(TypeError):
            mapped.write32(0, 1)
        with self.assertRaises(OSError) as caught:
            barlease.Map(lease.fd)
        self.assertEqual(caught.exception.errno, errno.EACCES)

    def test_revoke_raises(self):
        lease = self.lease((0, PAGE))
        mapped = self.map(lease)
        mapped.write32(0, 1)
        self.device.revoke(lease)
        self.assertTrue(self.device.info(lease).revoked)
        with self.assertRaises(barlease.LeaseRevoked):
            mapped.read32(0)
        with self.assertRaises(barlease.LeaseRevoked):
            mapped.write32(0, 2)
        with self.assertRaises(barlease.LeaseRevoked):
            mapped.restore()
        self.assertTrue(mapped.lost)
        with self.assertRaises(barlease.LeaseRevoked):
            lease.map()
        with self.assertRaises(barlease.LeaseRevoked):
            lease.prefault()
        self.assertEqual(self.map(self.lease((0, PAGE))).read32(0), 1)

    def test_revoke_under_threads_that_read(self):
        lease = self.lease((0, PAGE))
        mapped = self.map(lease)
        mapped.write32(0, 7)
        ready, ends = threading.Barrier(5), []

        def read():
            ready.wait()
            try:
                while True:
                    if mapped.read32(0) != 7:
                        ends.append("another value")
                        return
            except barlease.LeaseRevoked:
                ends.append("revoked")

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        ready.wait()
        self.device.revoke(lease)
        for thread in threads:
            thread.join()
        self.assertEqual(ends, ["revoked"] * 4)

    def test_close_of_the_device_ends_leases(self):
        mapped = self.map(self.lease((0, PAGE)))
        mapped.read32(0)
        self.device.close()
        with self.assertRaises(barlease.LeaseRevoked):
            mapped.read32(0)

    def test_restore_when_it_answers_again(self):
        mapped = self.map(self.lease((0, PAGE)))
        mapped.write32(0, 5)
        set_memory(self.device, False)
        with self.assertRaises(barlease.LeaseRevoked):
            mapped.read32(0)
        with self.assertRaises(OSError) as caught:
            mapped.restore()
        self.assertEqual(caught.exception.errno, errno.EIO)
        set_memory(self.device, True)
        mapped.restore()
        self.assertEqual((mapped.lost, mapped.read32(0)), (False, 5))

    def test_reset_loses_nothing(self):
        mapped = self.map(self.lease((0, PAGE)))
        mapped.write32(0, 3)
        self.device.reset()
        self.assertEqual((mapped.read32(0), mapped.lost), (3, False))

    def test_memattr(self):
        lease = self.lease((0, PAGE))
        self.assertEqual(self.device.info(lease).memattr, barlease.UC)
        self.device.set_memattr(lease, barlease.WC)
        self.assertEqual(self.device.info(lease).memattr, barlease.WC)
        mapped = self.map(lease)
        mapped.write32(0, 9)
        self.assertEqual(mapped.read32(0), 9)
        with self.assertRaises(OSError) as caught:
            self.device.set_memattr(lease, 2)
        self.assertEqual(caught.exception.errno, errno.ENOENT)

    def test_prefault_leaves_no_fault(self):
        lease = self.lease((PAGE, 8 * PAGE))
        mapped = self.map(lease, prefault=True)
        before = self.device.info(lease).faults
        for page in range(8):
            mapped.read32(page * PAGE)
        self.assertEqual(self.device.info(lease).faults, before)
        late = self.lease((PAGE, 8 * PAGE))
        mapped = self.map(late)
        late.prefault()
        before = self.device.info(late).faults
        for page in range(8):
            mapped.read32(page * PAGE)
        self.assertEqual(self.device.info(late).faults, before)
        set_memory(self.device, False)
        with self.assertRaises(OSError) as caught:
            self.map(lease, prefault=True)
        self.assertEqual(caught.exception.errno, errno.EIO)

    def test_a_fork_without_the_map(self):
        kept = self.map(self.lease((0, PAGE)))
        left = self.map(self.lease((0, PAGE)), dontfork=True)
        kept.write32(0, 1)
        self.assertEqual(left.read32(0), 1)
        self.assertEqual(exit_status(lambda: left.view()[0]), -signal.SIGSEGV)
        self.assertEqual((kept.read32(0), left.read32(0)), (1, 1))

    def test_a_view_is_the_bar(self):
        lease = self.lease((0, 2 * PAGE))
        mapped, owner = self.map(lease), self.map(self.lease((0, 2 * PAGE)))
        view = mapped.view()
        view[PAGE:PAGE + 4] = b"\1\2\3\4"
        self.assertEqual(owner.read32(PAGE), 0x04030201)
        self.device.revoke(lease)
        self.assertEqual(bytes(view[:8]), b"\xff" * 8)
        del view

    def test_another_process_gets_it(self):
        lease = self.lease((0, PAGE))
        owner = self.map(self.lease((0, PAGE)))
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here, there:
            pid = os.fork()
            if pid == 0:
                try:
                    here.close()
                    with barlease.Lease.receive(there) as got, got.map() as page:
                        page.write32(0, 42)
                        there.send(b"stored")
                        there.recv(1)
                        try:
                            page.read32(0)
                        except barlease.LeaseRevoked:
                            os._exit(7)
                finally:
                    os._exit(99)
            lease.send(here)
            self.assertEqual(here.recv(6), b"stored")
            self.assertEqual(owner.read32(0), 42)
            self.device.revoke(lease)
            here.send(b"!")
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7)

    def test_errors_are_the_kernels(self):
        for bar, ranges, expected in (
            (BAR, [(0, 0)], errno.EINVAL), (BAR, [(1, PAGE)], errno.EINVAL), (BAR, [(64 << 20, PAGE)], errno.EINVAL),
            (BAR, [], errno.EINVAL), (9, [(0, PAGE)], errno.ENODEV), (1, [(0, PAGE)], errno.ENODEV),
        ):
            with self.assertRaises(OSError, msg=str((bar, ranges))) as caught:
                self.device.export(bar, ranges)
            self.assertEqual(caught.exception.errno, expected, (bar, ranges))
        with self.assertRaises(OSError) as caught:
            barlease.Device("0000:00:00.0")
        self.assertIn(caught.exception.errno, (errno.ENOENT, errno.ENODEV))


if __name__ == "__main__":
    tap.main()
