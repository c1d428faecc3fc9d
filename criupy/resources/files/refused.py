"""Kinds of files that cannot be dumped, by the names that people know them under."""

from __future__ import annotations

from criupy.resources.filetable import Refused

REFUSED = (
    Refused("socket", ("socket", "socket file"), "close its connections before the dump"),
    Refused(
        "io_uring",
        ("anon_inode:[io_uring]",),
        "start the program without it (node: UV_USE_IO_URING=0), or stop what uses it",
    ),
    Refused(
        "userfaultfd",
        ("anon_inode:[userfaultfd]",),
        "wait until what fills memory by it (a migration, a lazy restore) is done",
    ),
    Refused("seccomp listener", ("anon_inode:seccomp notify",)),
    Refused("perf event", ("anon_inode:[perf_event]",)),
    Refused(
        "bpf object",
        tuple(f"anon_inode:bpf{what}" for what in ("-map", "-prog", "_link", "-link", "iter", "_iter")),
        "stop what uses it: maps and programs of the kernel stay here, and come with the program that loads them",
    ),
    Refused("landlock ruleset", ("anon_inode:[landlock-ruleset]",)),
    Refused("mount context", ("anon_inode:[fscontext]", "anon_inode:[mount]")),
    Refused("kvm", ("character device 10:232", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0")),
    Refused(
        "fuse connection", ("character device 10:229",), "stop the FUSE server by unmounting what it serves"
    ),
    Refused("cuse device", ("character device 10:203",)),
    Refused("tun device", ("character device 10:200",)),
    Refused("character device", ("character device",)),
    Refused("block device", ("block device",)),
)
