/* Two threads under filters that kill whoever makes a call that they do not need themselves. */
#include "selfcheck.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

#define ALLOW(call)                                                                                                    \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static atomic_bool confined, done;

static void confine(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		ALLOW(write),     ALLOW(nanosleep),       ALLOW(clock_nanosleep), ALLOW(openat), ALLOW(close),
		ALLOW(futex),     ALLOW(restart_syscall), ALLOW(exit),            ALLOW(exit_group),
		ALLOW(rt_sigprocmask), ALLOW(madvise),    ALLOW(munmap),          ALLOW(prctl),  ALLOW(seccomp),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &program) == 0);
}

static void *work(void *unused)
{
	(void)unused;
	confine();
	confined = 1;
	while (!done)
		sleep_ms(5);
	return NULL;
}

int main(void)
{
	pthread_t thread;

	MUST(pthread_create(&thread, NULL, work, NULL) == 0);
	while (!confined)
		sleep_ms(1);
	confine();
	confine();
	ready();
	done = 1;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	return verdict();
}
