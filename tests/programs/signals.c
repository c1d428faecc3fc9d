/* Signal actions with masks and flags, masks and alternate stacks of two threads, pending signals with their siginfo. */
#include "selfcheck.h"
#include <pthread.h>
#include <signal.h>

static volatile sig_atomic_t handled[NSIG], value[NSIG], code[NSIG], order[64], handled_count;
static volatile uintptr_t handler_stack;
static pthread_barrier_t start, finish;
static char stacks[2][65536];

static void handler(int signal, siginfo_t *info, void *context)
{
	(void)context;
	handled[signal]++;
	value[signal] = info->si_value.sival_int;
	code[signal] = info->si_code;
	order[handled_count++ % 64] = info->si_value.sival_int;
	handler_stack = (uintptr_t)__builtin_frame_address(0);
}

static void take(int signal, int flags, int also_blocked)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	sigaddset(&action.sa_mask, also_blocked);
	MUST(sigaction(signal, &action, NULL) == 0);
}

static void check_action(int signal, int flags, int also_blocked)
{
	struct sigaction action;

	CHECK(sigaction(signal, NULL, &action) == 0);
	CHECK(action.sa_sigaction == handler);
	CHECK_EQ(action.sa_flags & ~0x04000000, (SA_SIGINFO | flags));
	CHECK_EQ(sigismember(&action.sa_mask, also_blocked), 1);
	CHECK_EQ(sigismember(&action.sa_mask, SIGPWR), 0);
}

static void queue_to_thread(int signal, int number)
{
	siginfo_t info = { .si_signo = signal, .si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid() };

	info.si_value.sival_int = number;
	MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal, &info) == 0);
}

static void *thread(void *unused)
{
	stack_t stack = { .ss_sp = stacks[1], .ss_size = sizeof(stacks[1]) }, now;
	sigset_t mask;

	(void)unused;
	MUST(sigaltstack(&stack, NULL) == 0);
	sigfillset(&mask);
	sigdelset(&mask, SIGHUP);
	MUST(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
	queue_to_thread(SIGRTMIN + 5, 501);
	queue_to_thread(SIGRTMIN + 5, 502);
	queue_to_thread(SIGTERM, 503);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);

	CHECK(sigaltstack(NULL, &now) == 0);
	CHECK(now.ss_sp == stacks[1] && now.ss_size == sizeof(stacks[1]) && now.ss_flags == 0);
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
	CHECK_EQ(sigismember(&mask, SIGHUP), 0);
	CHECK_EQ(sigismember(&mask, SIGRTMAX), 1);
	handled_count = 0;
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + 5);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &mask, NULL) == 0);
	CHECK_EQ(handled[SIGRTMIN + 5], 2);
	CHECK_EQ(order[0], 501);
	CHECK_EQ(order[1], 502);
	CHECK(handler_stack >= (uintptr_t)stacks[1] && handler_stack < (uintptr_t)stacks[1] + sizeof(stacks[1]));
	CHECK(sigpending(&mask) == 0);
	CHECK_EQ(sigismember(&mask, SIGTERM), 1);
	return NULL;
}

int main(void)
{
	stack_t stack = { .ss_sp = stacks[0], .ss_size = sizeof(stacks[0]) }, now;
	struct sigaction action;
	sigset_t mask, pending;
	pthread_t other;

	take(SIGUSR1, SA_ONSTACK | SA_RESTART, SIGUSR2);
	take(SIGUSR2, SA_NODEFER | SA_RESETHAND, SIGUSR1);
	take(SIGCHLD, SA_NOCLDSTOP | SA_NOCLDWAIT, SIGTTOU);
	take(SIGRTMIN + 5, SA_ONSTACK, SIGRTMIN + 6);
	take(SIGRTMAX, 0, SIGRTMIN + 7);
	take(SIGTERM, 0, SIGHUP);
	MUST(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGURG, SIG_IGN) != SIG_ERR);
	if (beyond_criu())
		MUST(signal(SIGTRAP, SIG_IGN) != SIG_ERR);
	MUST(sigaltstack(&stack, NULL) == 0);
	MUST(pthread_barrier_init(&start, NULL, 2) == 0 && pthread_barrier_init(&finish, NULL, 2) == 0);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMAX);
	sigaddset(&mask, SIGWINCH);
	MUST(pthread_sigmask(SIG_BLOCK, &mask, NULL) == 0);
	MUST(pthread_create(&other, NULL, thread, NULL) == 0);
	pthread_barrier_wait(&start);
	MUST(kill(getpid(), SIGUSR1) == 0); /* pending for the process: both threads block it */
	for (int i = 1; i <= 3; i++)
		MUST(sigqueue(getpid(), SIGRTMAX, (union sigval){ .sival_int = 700 + i }) == 0);
	queue_to_thread(SIGWINCH, 600);

	ready();
	CHECK(sigpending(&pending) == 0);
	CHECK_EQ(sigismember(&pending, SIGUSR1), 1);
	CHECK_EQ(sigismember(&pending, SIGRTMAX), 1);
	CHECK_EQ(sigismember(&pending, SIGWINCH), 1);
	CHECK_EQ(sigismember(&pending, SIGRTMIN + 5), 0);
	CHECK_EQ(handled_count, 0);
	pthread_barrier_wait(&finish);
	CHECK_EQ(pthread_join(other, NULL), 0);

	check_action(SIGUSR1, SA_ONSTACK | SA_RESTART, SIGUSR2);
	check_action(SIGUSR2, SA_NODEFER | SA_RESETHAND, SIGUSR1);
	check_action(SIGCHLD, SA_NOCLDSTOP | SA_NOCLDWAIT, SIGTTOU);
	check_action(SIGRTMIN + 5, SA_ONSTACK, SIGRTMIN + 6);
	check_action(SIGRTMAX, 0, SIGRTMIN + 7);
	CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
	CHECK(sigaction(SIGTRAP, NULL, &action) == 0 && action.sa_handler == (beyond_criu() ? SIG_IGN : SIG_DFL));
	CHECK(sigaction(SIGURG, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
	CHECK(sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
	CHECK(sigaltstack(NULL, &now) == 0);
	CHECK(now.ss_sp == stacks[0] && now.ss_size == sizeof(stacks[0]));

	handled_count = 0;
	CHECK(pthread_sigmask(SIG_UNBLOCK, &mask, NULL) == 0);
	CHECK_EQ(handled[SIGUSR1], 1);
	CHECK_EQ(code[SIGUSR1], SI_USER);
	CHECK_EQ(handled[SIGRTMAX], 3);
	CHECK_EQ(code[SIGRTMAX], SI_QUEUE);
	CHECK_EQ(value[SIGRTMAX], 703);
	return verdict();
}
