/* Robust lists and clear_child_tid: threads that end after the restore wake those who wait, and give up their locks. */
#include "selfcheck.h"
#include <linux/futex.h>
#include <pthread.h>

static pthread_mutex_t robust;
static pthread_barrier_t start;
static atomic_bool end;

static void *owner(void *argument)
{
	MUST(pthread_mutex_lock(&robust) == 0);
	pthread_barrier_wait(&start);
	while (!end)
		sleep_ms(2);
	return argument;
}

int main(void)
{
	pthread_mutexattr_t attributes;
	pthread_t thread;
	void *result, *head = NULL, *now = NULL;
	size_t size = 0;

	MUST(pthread_mutexattr_init(&attributes) == 0);
	MUST(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
	MUST(pthread_mutex_init(&robust, &attributes) == 0);
	MUST(pthread_barrier_init(&start, NULL, 2) == 0);
	MUST(syscall(SYS_get_robust_list, 0, &head, &size) == 0);
	MUST(pthread_create(&thread, NULL, owner, &robust) == 0);
	pthread_barrier_wait(&start);
	ready();
	CHECK_EQ(pthread_mutex_trylock(&robust), EBUSY);
	end = 1;
	CHECK_EQ(pthread_mutex_lock(&robust), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_consistent(&robust), 0);
	CHECK_EQ(pthread_mutex_unlock(&robust), 0);
	CHECK_EQ(pthread_join(thread, &result), 0);
	CHECK(result == &robust);
	CHECK(syscall(SYS_get_robust_list, 0, &now, &size) == 0);
	CHECK(head == now && size == 24);
	return verdict();
}
