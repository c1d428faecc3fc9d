/* A thread in strict seccomp, blocked in read; another asks it and reads its state. */
#include "selfcheck.h"
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

static int question[2], answer[2], tid;
static pthread_barrier_t start;

static void *strict(void *unused)
{
	char byte = 0;

	(void)unused;
	tid = syscall(SYS_gettid);
	pthread_barrier_wait(&start);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
	while (syscall(SYS_read, question[0], &byte, 1) == 1) {
		byte++;
		syscall(SYS_write, answer[1], &byte, 1);
	}
	syscall(SYS_exit, 0);
	return NULL;
}

static char ask(char byte)
{
	CHECK(write(question[1], &byte, 1) == 1);
	CHECK(read(answer[0], &byte, 1) == 1);
	return byte;
}

int main(void)
{
	char path[64];
	pthread_t thread;

	MUST(pipe(question) == 0 && pipe(answer) == 0 && pthread_barrier_init(&start, NULL, 2) == 0);
	MUST(pthread_create(&thread, NULL, strict, NULL) == 0);
	pthread_barrier_wait(&start);
	MUST(ask('a') == 'b');
	ready();
	CHECK_EQ(ask('x'), 'y');
	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	const char *mode = proc_field(path, "Seccomp:");
	CHECK(mode != NULL && atoi(mode) == SECCOMP_MODE_STRICT);
	mode = proc_field("/proc/thread-self/status", "Seccomp:");
	CHECK(mode != NULL && atoi(mode) == 0);
	int result = verdict();
	syscall(SYS_exit_group, result);
}
