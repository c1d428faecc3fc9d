/* Stopped inside handlers that run on alternate stacks: one stays registered, one disarms itself until it returns. */
#include "selfcheck.h"
#include <pthread.h>
#include <signal.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static pthread_barrier_t start, finish;
static char stacks[2][65536];

static int flags_now(void)
{
	stack_t now;

	CHECK(sigaltstack(NULL, &now) == 0);
	return now.ss_flags;
}

static void stay(int signal)
{
	int before = flags_now();

	pthread_barrier_wait(&start);
	if (signal == SIGUSR1)
		ready();
	pthread_barrier_wait(&finish);
	CHECK_EQ(flags_now(), before);
	if (signal == SIGUSR1) {
		stack_t other = { .ss_sp = stacks[1], .ss_size = 40000 };

		CHECK_EQ(before, SS_ONSTACK);
		CHECK(sigaltstack(&other, NULL) == -1 && errno == EPERM);
	} else {
		CHECK_EQ(before, SS_DISABLE);
	}
}

static void run_on(int number, int signal, unsigned flags)
{
	stack_t stack = { .ss_sp = stacks[number], .ss_size = sizeof(stacks[number]), .ss_flags = (int)flags }, now;

	MUST(sigaltstack(&stack, NULL) == 0);
	raise(signal);
	CHECK(sigaltstack(NULL, &now) == 0);
	CHECK(now.ss_sp == stack.ss_sp && now.ss_size == stack.ss_size);
	CHECK_EQ((unsigned)now.ss_flags, flags);
}

static void *thread(void *unused)
{
	(void)unused;
	run_on(1, SIGUSR2, SS_AUTODISARM);
	return NULL;
}

int main(void)
{
	struct sigaction action = { .sa_handler = stay, .sa_flags = SA_ONSTACK };
	pthread_t other;

	MUST(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
	MUST(pthread_barrier_init(&start, NULL, 2) == 0 && pthread_barrier_init(&finish, NULL, 2) == 0);
	MUST(pthread_create(&other, NULL, thread, NULL) == 0);
	run_on(0, SIGUSR1, 0);
	CHECK_EQ(pthread_join(other, NULL), 0);
	return verdict();
}
