/* One filter for all threads by TSYNC: afterwards they still share it, or a second TSYNC fails. */
#include "selfcheck.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

static pthread_barrier_t start, finish;

static long synchronise(void)
{
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { 1, code };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static int filters(void)
{
	const char *count = proc_field("/proc/thread-self/status", "Seccomp_filters:");

	return count != NULL ? atoi(count) : -1;
}

static void *thread(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	CHECK_EQ(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), SECCOMP_MODE_FILTER);
	return NULL;
}

int main(void)
{
	pthread_t threads[2];

	MUST(pthread_barrier_init(&start, NULL, 3) == 0 && pthread_barrier_init(&finish, NULL, 3) == 0);
	for (int i = 0; i < 2; i++)
		MUST(pthread_create(&threads[i], NULL, thread, NULL) == 0);
	pthread_barrier_wait(&start);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(synchronise() == 0);
	ready();
	CHECK_EQ(filters(), 1);
	CHECK_EQ(synchronise(), 0);
	CHECK_EQ(filters(), 2);
	pthread_barrier_wait(&finish);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	return verdict();
}
