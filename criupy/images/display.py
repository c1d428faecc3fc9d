"""How crit shows the fields of messages: as numbers in hexadecimal, devices, flag names, addresses, text.

A table and not field options of the schema: options would make every dump and restore import and parse
descriptor.proto.
"""

from __future__ import annotations

_FORMS: dict[str, dict[str, str]] = {
    "flags=rfile.flags": {
        "bpfmap_file_entry": "flags",
        "reg_file_entry": "flags",
        "memfd_file_entry": "flags",
    },
    "hex": {
        "thread_info_aarch64": "clear_tid_addr gpregs",
        "thread_info_arm": "clear_tid_addr gpregs",
        "thread_info_loongarch64": "clear_tid_addr gpregs fpregs",
        "thread_info_mips": "clear_tid_addr gpregs fpregs",
        "thread_info_ppc64": "clear_tid_addr gpregs",
        "thread_info_riscv64": "clear_tid_addr gpregs",
        "thread_info_s390": "clear_tid_addr gpregs fpregs vxrs_low vxrs_high gs_cb gs_bc ri_cb",
        "user_x86_cet_entry": "cet ssp",
        "thread_info_x86": "clear_tid_addr gpregs",
        "sa_entry": "sigaction flags restorer mask mask_extended",
        "task_core_entry": "blk_sigset blk_sigset_extended membarrier_registration_mask",
        "tcp_stream_entry": "opt_mask",
        "inet_sk_entry": "flags",
        "packet_sock_entry": "flags",
        "netlink_sk_entry": "flags",
        "signalfd_entry": "flags sigmask",
        "tun_link_entry": "flags",
        "timerfd_entry": "flags settime_flags",
        "inotify_wd_entry": "mask ignored_mask",
        "inotify_file_entry": "flags",
        "fanotify_mark_entry": "mflags mask ignored_mask",
        "fanotify_file_entry": "flags faflags evflags",
        "unix_sk_entry": "flags uflags",
        "pipe_entry": "flags",
        "tty_file_entry": "flags",
        "vma_entry": "start end madv fdflags",
        "mm_entry": (
            "mm_start_code mm_end_code mm_start_data mm_end_data mm_start_stack mm_start_brk mm_brk "
            "mm_arg_start mm_arg_end mm_env_start mm_env_end"
        ),
        "mnt_entry": "flags sb_flags",
        "net_device_entry": "flags",
        "pagemap_entry": "vaddr",
    },
    "dict=gen": {
        "task_core_entry": "task_state",
    },
    "dict=sk": {
        "inet_sk_entry": "family type proto state",
        "unix_sk_entry": "type state",
    },
    "ipadd": {
        "inet_sk_entry": "src_addr dst_addr",
        "sit_entry": "local remote rd_prefix relay_prefix",
    },
    "dev odev": {
        "irmap_cache_entry": "dev",
        "ghost_file_entry": "rdev",
    },
    "dev": {
        "inotify_wd_entry": "s_dev",
        "fanotify_mark_entry": "s_dev",
        "ghost_file_entry": "dev",
        "mnt_entry": "root_dev",
    },
    "conv=unix_name": {
        "unix_sk_entry": "name",
    },
    "flags=seals.flags": {
        "memfd_inode_entry": "seals",
    },
    "flags=mmap.prot": {
        "vma_entry": "prot",
    },
    "flags=mmap.flags": {
        "vma_entry": "flags",
    },
    "flags=mmap.status": {
        "vma_entry": "status",
    },
    "flags=pmap.flags": {
        "pagemap_entry": "flags",
    },
}

FORMS: dict[str, str] = {
    f"{message}.{field}": form
    for form, messages in _FORMS.items()
    for message, fields in messages.items()
    for field in fields.split()
}
"""``message.field`` to its form: hex, dev, odev, flags=KIND, dict=KIND, ipadd or conv=unix_name."""

BINARY = frozenset(
    {
        "aa_policy.blob",
        "creds_entry.apparmor_data",
        "net_device_entry.address",
        "packet_mclist.addr",
        "seccomp_filter.filter",
        "siginfo_entry.siginfo",
        "sk_packet_entry.sender",
        "thread_core_entry.cpu_affinity",
        "tty_data_entry.data",
        "unix_sk_entry.name",
    }
)
"""Fields of bytes that are not text.  The others are strings to CRIU."""

FLAGS: dict[str, tuple[tuple[str, int], ...]] = {
    "mmap.prot": (("PROT_READ", 1), ("PROT_WRITE", 2), ("PROT_EXEC", 4)),
    "mmap.flags": (
        ("MAP_SHARED", 0x1),
        ("MAP_PRIVATE", 0x2),
        ("MAP_DROPPABLE", 0x8),
        ("MAP_ANON", 0x20),
        ("MAP_GROWSDOWN", 0x100),
    ),
    "mmap.status": (
        ("VMA_AREA_REGULAR", 1 << 0),
        ("VMA_AREA_STACK", 1 << 1),
        ("VMA_AREA_VSYSCALL", 1 << 2),
        ("VMA_AREA_VDSO", 1 << 3),
        ("VMA_AREA_HEAP", 1 << 5),
        ("VMA_FILE_PRIVATE", 1 << 6),
        ("VMA_FILE_SHARED", 1 << 7),
        ("VMA_ANON_SHARED", 1 << 8),
        ("VMA_ANON_PRIVATE", 1 << 9),
        ("VMA_AREA_SYSVIPC", 1 << 10),
        ("VMA_AREA_SOCKET", 1 << 11),
        ("VMA_AREA_VVAR", 1 << 12),
        ("VMA_AREA_AIORING", 1 << 13),
        ("VMA_AREA_MEMFD", 1 << 14),
        ("VMA_AREA_SHSTK", 1 << 15),
        ("VMA_AREA_UPROBES", 1 << 17),
        ("VMA_UNSUPP", 1 << 31),
    ),
    "rfile.flags": (
        ("O_WRONLY", 0o1),
        ("O_RDWR", 0o2),
        ("O_CREAT", 0o100),
        ("O_EXCL", 0o200),
        ("O_NOCTTY", 0o400),
        ("O_TRUNC", 0o1000),
        ("O_APPEND", 0o2000),
        ("O_NONBLOCK", 0o4000),
        ("O_DSYNC", 0o10000),
        ("FASYNC", 0o20000),
        ("O_DIRECT", 0o40000),
        ("O_LARGEFILE", 0o100000),
        ("O_DIRECTORY", 0o200000),
        ("O_NOFOLLOW", 0o400000),
        ("O_NOATIME", 0o1000000),
        ("O_CLOEXEC", 0o2000000),
    ),
    "seals.flags": (
        ("F_SEAL_SEAL", 0x1),
        ("F_SEAL_SHRINK", 0x2),
        ("F_SEAL_GROW", 0x4),
        ("F_SEAL_WRITE", 0x8),
        ("F_SEAL_FUTURE_WRITE", 0x10),
    ),
    "pmap.flags": (("PE_PARENT", 1), ("PE_LAZY", 2), ("PE_PRESENT", 4)),
}
"""Flag names in the order in which they are printed."""

DICTS: dict[str, dict[str, dict[int, str]]] = {
    "gen": {"task_state": {1: "Alive", 3: "Zombie", 6: "Stopped"}},  # the labels are crit's; 3 is stopped
    "sk": {
        "family": {1: "UNIX", 2: "INET", 10: "INET6", 16: "NETLINK", 17: "PACKET"},
        "type": {1: "STREAM", 2: "DGRAM", 3: "RAW", 5: "SEQPACKET", 10: "PACKET"},
        "state": {
            1: "ESTABLISHED",
            2: "SYN_SENT",
            3: "SYN_RECV",
            4: "FIN_WAIT1",
            5: "FIN_WAIT2",
            6: "TIME_WAIT",
            7: "CLOSE",
            8: "CLOSE_WAIT",
            9: "LAST_ACK",
            10: "LISTEN",
        },
        "proto": {0: "IP", 6: "TCP", 17: "UDP", 136: "UDPLITE"},
    },
}
"""Names of single values, by the field's name."""
