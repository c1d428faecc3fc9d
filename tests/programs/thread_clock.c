/* A timer on the CPU time of a thread goes on counting that thread's; who works longest is not its owner. */
#include "selfcheck.h"
#include <pthread.h>
#include <signal.h>

static pthread_barrier_t start, finish;
static atomic_int fired_tid;

static void on_timer(int signal)
{
	(void)signal;
	fired_tid = syscall(SYS_gettid);
}

static void *worker(void *unused)
{
	struct { union sigval value; int signal, notify, tid, pad[11]; } event = {
		.signal = SIGRTMIN, .notify = SIGEV_THREAD_ID, .tid = syscall(SYS_gettid) };
	struct itimerspec in_50_ms = { .it_value.tv_nsec = 50000000 };
	int id;

	(void)unused;
	MUST(syscall(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &event, &id) == 0);
	MUST(syscall(SYS_timer_settime, id, 0, &in_50_ms, NULL) == 0);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	for (struct timespec spent = { 0 }; spent.tv_sec < 10 && fired_tid == 0;)
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
	CHECK_EQ(fired_tid, syscall(SYS_gettid));
	return NULL;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_timer };
	struct timespec before, now;
	pthread_t thread;

	MUST(sigaction(SIGRTMIN, &action, NULL) == 0);
	MUST(pthread_barrier_init(&start, NULL, 2) == 0 && pthread_barrier_init(&finish, NULL, 2) == 0);
	MUST(pthread_create(&thread, NULL, worker, NULL) == 0);
	pthread_barrier_wait(&start);
	ready();
	MUST(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before) == 0);
	do /* twice as long as the timer has */
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	while ((now.tv_sec - before.tv_sec) * 1000000000L + now.tv_nsec - before.tv_nsec < 100000000);
	CHECK_EQ(fired_tid, 0);
	pthread_barrier_wait(&finish);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	return verdict();
}
