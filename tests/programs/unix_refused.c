/* One unix socket that cannot be dumped: WHAT says why. */
#include "unix.h"
#include <linux/bpf.h>

int main(void)
{
	const char *what = getenv("WHAT");
	struct sockaddr_un address;
	socklen_t length = set_name(&address, "socket");
	int listener = bound(SOCK_STREAM, &address, length), client, ends[2];

	MUST(what != NULL && listen(listener, 5) == 0);
	pair(SOCK_STREAM, ends);
	if (strcmp(what, "early data") == 0) {
		client = connected(SOCK_STREAM, &address, length);
		give(client, "before it is accepted");
	} else if (strcmp(what, "gone client") == 0) {
		client = connected(SOCK_STREAM, &address, length);
		close(client);
	} else if (strcmp(what, "moved") == 0) {
		MUST(rename("socket", "elsewhere") == 0);
	} else if (strcmp(what, "urgent") == 0) {
		give(ends[0], "plain");
		MUST(send(ends[0], "!", 1, MSG_OOB) == 1);
		give(ends[0], "plain");
	} else if (strcmp(what, "program") == 0) {
		struct bpf_insn code[2] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = -1 }, { .code = BPF_JMP | BPF_EXIT } };
		union bpf_attr load = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2, .insns = (uint64_t)(uintptr_t)code, .license = (uint64_t)(uintptr_t)"GPL" };
		int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));

		if (program < 0)
			unsupported("eBPF");
		MUST(setsockopt(ends[0], SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)) == 0 && close(program) == 0);
	} else {
		MUST(what == NULL);
	}
	ready();
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	return verdict();
}
