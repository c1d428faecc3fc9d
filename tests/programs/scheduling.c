/* Policy, priority, nice value and affinity, each its own in two threads. */
#include "selfcheck.h"
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

static pthread_barrier_t start, finish;
static int real_time;

static void *thread(void *unused)
{
	struct sched_param parameter = { .sched_priority = 3 };
	cpu_set_t cpus;

	(void)unused;
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	if (beyond_criu())
		MUST(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
	real_time = sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &parameter) == 0;
	if (!real_time)
		MUST(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ 0 }) == 0);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	CHECK_EQ(sched_getscheduler(0), real_time ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_IDLE);
	CHECK(sched_getparam(0, &parameter) == 0);
	CHECK_EQ(parameter.sched_priority, real_time ? 3 : 0);
	CHECK(sched_getaffinity(0, sizeof(cpus), &cpus) == 0);
	if (beyond_criu())
		CHECK_EQ(CPU_COUNT(&cpus), 1);
	CHECK(CPU_ISSET(0, &cpus));
	return NULL;
}

int main(void)
{
	pthread_t other;
	cpu_set_t before, now;

	MUST(pthread_barrier_init(&start, NULL, 2) == 0 && pthread_barrier_init(&finish, NULL, 2) == 0);
	MUST(sched_getaffinity(0, sizeof(before), &before) == 0);
	MUST(pthread_create(&other, NULL, thread, NULL) == 0);
	MUST(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 }) == 0);
	MUST(setpriority(PRIO_PROCESS, 0, 7) == 0);
	pthread_barrier_wait(&start);
	ready();
	pthread_barrier_wait(&finish);
	CHECK_EQ(pthread_join(other, NULL), 0);
	CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 7);
	CHECK(sched_getaffinity(0, sizeof(now), &now) == 0);
	CHECK(CPU_EQUAL(&before, &now));
	return verdict();
}
