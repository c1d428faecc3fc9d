/* Seccomp filters: two in the main thread, another chain in a second thread, none in a third. */
#include "selfcheck.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>

static pthread_barrier_t start, finish;

/* Answers `error` to the system call `number`, and lets all others through. */
static void deny(int number, int error, unsigned flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(*code), code };

	MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) == 0);
}

static void check_denied(int number, int error)
{
	errno = 0;
	CHECK_EQ(syscall(number, 0, 0, 0, 0, 0, 0), -1);
	CHECK_EQ(errno, error);
}

static void *filtered(void *unused)
{
	(void)unused;
	deny(SYS_getpgid, EDOM, SECCOMP_FILTER_FLAG_LOG);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	check_denied(SYS_getpgid, EDOM);
	CHECK(syscall(SYS_getppid) > 0);
	return NULL;
}

static void *unfiltered(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	CHECK(syscall(SYS_getpgid, 0) > 0);
	CHECK(syscall(SYS_getppid) > 0);
	CHECK_EQ(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), 0);
	return NULL;
}

int main(void)
{
	pthread_t threads[2];

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(pthread_barrier_init(&start, NULL, 3) == 0 && pthread_barrier_init(&finish, NULL, 3) == 0);
	MUST(pthread_create(&threads[0], NULL, filtered, NULL) == 0);
	MUST(pthread_create(&threads[1], NULL, unfiltered, NULL) == 0);
	pthread_barrier_wait(&start);
	deny(SYS_getppid, ENOTBLK, 0);
	deny(SYS_getpriority, EXDEV, SECCOMP_FILTER_FLAG_SPEC_ALLOW);

	ready();
	pthread_barrier_wait(&finish);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	check_denied(SYS_getppid, ENOTBLK);
	check_denied(SYS_getpriority, EXDEV);
	CHECK(syscall(SYS_getpgid, 0) > 0);
	CHECK_EQ(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), SECCOMP_MODE_FILTER);
	const char *count = proc_field("/proc/thread-self/status", "Seccomp_filters:");
	CHECK(count != NULL && atoi(count) == 2);
	return verdict();
}
