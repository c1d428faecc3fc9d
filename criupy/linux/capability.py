"""Numbers of capabilities(7).  Source: Linux include/uapi/linux/capability.h."""

from __future__ import annotations

CAP_SETGID = 6
CAP_SETPCAP = 8
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24
CAP_SYS_TIME = 25
CAP_CHECKPOINT_RESTORE = 40
