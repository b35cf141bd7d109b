# SPDX-License-Identifier: MIT
"""A lessor that lends a page of QEMU's "edu" to an unprivileged child, in Python.

Usage: python3 share.py ADDRESS
"""

import os
import socket
import sys

import barlease

FACTORIAL, STATUS, COMPUTING = 0x08, 0x20, 0x01


def factorial(page, number):
    page.write32(FACTORIAL, number)
    while page.read32(STATUS) & COMPUTING:
        pass
    return page.read32(FACTORIAL)


def lessee(sock):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    with barlease.Lease.receive(sock) as lease, lease.map() as page:
        print(f"lessee: uid {os.getuid()} has {len(page)} bytes", flush=True)
        print(f"lessee: 5! = {factorial(page, 5)}", flush=True)
        sock.send(b"done")
        sock.recv(1)
        try:
            factorial(page, 6)
        except barlease.LeaseRevoked:
            print("lessee: the page was taken back, and I live", flush=True)


def lessor(sock, bdf):
    page = os.sysconf("SC_PAGE_SIZE")
    with barlease.Device(bdf) as device, device.export(0, [(0, page)]) as lease:
        lease.send(sock)
        sock.recv(4)
        device.revoke(lease)
        print(f"lessor: took it back, revoked is {device.info(lease).revoked}", flush=True)
        sock.send(b"!")
        return os.waitstatus_to_exitcode(os.wait()[1])


here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    here.close()
    lessee(there)
else:
    there.close()
    sys.exit(lessor(here, sys.argv[1]))
