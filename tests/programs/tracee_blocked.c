/*
 * Threads in every kind of interrupted system call, and in loops whose state is all in registers.  Each does the same
 * thing again and again and checks what came of it; nothing that stops or traces the process may show.  With an argument
 * the calls that the kernel itself ends with EINTR at every stop (signal(7) lists them) may do so.
 */
#include "selfcheck.h"
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>

#define SHORT_MS 20
#define SIGANSWER (SIGRTMIN + 1)

static atomic_bool done;
static int eintr_is_fine;
static _Atomic uint64_t *beat;
static pthread_t suspended, waiting, restarted;
static atomic_int suspensions_seen, handled, answers, restarts, finished;
static int byte_pipe[2], quiet_pipe[2], event;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Runs `call` until done; it must give `expected` (-errno on failure) and not before SHORT_MS. */
#define REPEAT(call, expected)                                                                                         \
	while (!done) {                                                                                                \
		int64_t start = now_ms();                                                                              \
		errno = 0;                                                                                             \
		long got = (call);                                                                                     \
		CHECK_EQ(got == -1 ? -errno : got, expected);                                                          \
		CHECK(now_ms() - start >= SHORT_MS - 1);                                                               \
		atomic_fetch_add(beat, 1);                                                                             \
	}                                                                                                              \
	return NULL

static struct timespec short_time = { 0, SHORT_MS * 1000000 };

static void *in_nanosleep(void *unused)
{
	(void)unused;
	REPEAT(syscall(SYS_nanosleep, &short_time, NULL), 0);
}

static void *in_poll(void *unused)
{
	(void)unused;
	REPEAT(poll(NULL, 0, SHORT_MS), 0);
}

static void *in_select(void *unused)
{
	(void)unused;
	REPEAT(({
		       struct timeval left = { 0, SHORT_MS * 1000 };
		       select(0, NULL, NULL, NULL, &left);
	       }),
	       0);
}

static void *in_ppoll(void *unused)
{
	sigset_t all;

	(void)unused;
	sigfillset(&all);
	REPEAT(ppoll(NULL, 0, &short_time, &all), 0);
}

static void *in_futex(void *unused)
{
	static int word;

	(void)unused;
	REPEAT(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &short_time, NULL, 0), -ETIMEDOUT);
}

static void *in_clock_nanosleep(void *unused)
{
	(void)unused;
	REPEAT(({
		       struct timespec end;
		       clock_gettime(CLOCK_MONOTONIC, &end);
		       end.tv_nsec += SHORT_MS * 1000000;
		       end.tv_sec += end.tv_nsec / 1000000000;
		       end.tv_nsec %= 1000000000;
		       clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
	       }),
	       0);
}

static void *in_read(void *unused)
{
	unsigned char expected = 0;

	(void)unused;
	while (!done) {
		unsigned char got;
		CHECK_EQ(read(byte_pipe[0], &got, 1), 1);
		CHECK_EQ(got, expected);
		expected++;
		atomic_fetch_add(beat, 1);
	}
	return NULL;
}

static void *in_epoll(void *unused)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event watch = { .events = EPOLLIN };

	(void)unused;
	MUST(fd >= 0 && epoll_ctl(fd, EPOLL_CTL_ADD, event, &watch) == 0);
	while (!done) {
		uint64_t count;
		int got = epoll_wait(fd, &watch, 1, -1);
		if (got == -1 && errno == EINTR && eintr_is_fine)
			continue;
		CHECK_EQ(got, 1);
		CHECK_EQ(read(event, &count, 8), 8);
		atomic_fetch_add(beat, 1);
	}
	return NULL;
}

static void *in_sigwait(void *unused)
{
	sigset_t answer;

	(void)unused;
	sigemptyset(&answer);
	sigaddset(&answer, SIGANSWER);
	while (!done) {
		int got = sigwaitinfo(&answer, NULL);
		if (got == -1 && errno == EINTR && eintr_is_fine)
			continue;
		CHECK_EQ(got, SIGANSWER);
		answers++;
		atomic_fetch_add(beat, 1);
	}
	return NULL;
}

static void count(int signo)
{
	(void)signo;
	handled++;
}

/* SIGUSR1 is blocked everywhere but in here: every one that is sent ends exactly one sigsuspend. */
static void *in_sigsuspend(void *unused)
{
	sigset_t open;

	(void)unused;
	sigfillset(&open);
	sigdelset(&open, SIGUSR1);
	while (!done) {
		CHECK_EQ(sigsuspend(&open), -1);
		CHECK_EQ(handled, ++suspensions_seen);
		atomic_fetch_add(beat, 1);
	}
	return NULL;
}

static void restart(int signo)
{
	(void)signo;
	restarts++;
}

/* SIGUSR2 has SA_RESTART: this read ends only when there is a byte. */
static void *in_restarted_read(void *unused)
{
	char byte;

	(void)unused;
	CHECK_EQ(read(quiet_pipe[0], &byte, 1), 1);
	CHECK_EQ(byte, '!');
	return NULL;
}

/* All registers that a program has, with the flags; no stack in between. */
static void *in_registers(void *unused)
{
	(void)unused;
	while (!done) {
		uint64_t bad = 0;
		__asm__ volatile("pushq %%rbp\n\t"
				 "movabs $0x1111111111111111, %%rax\n\tmovabs $0x2222222222222222, %%rbx\n\t"
				 "movabs $0x3333333333333333, %%rdx\n\tmovabs $0x4444444444444444, %%rsi\n\t"
				 "movabs $0x5555555555555555, %%rdi\n\tmovabs $0x6666666666666666, %%rbp\n\t"
				 "movabs $0x7777777777777777, %%r8\n\tmovabs $0x8888888888888888, %%r9\n\t"
				 "movabs $0x9999999999999999, %%r10\n\tmovabs $0xaaaaaaaaaaaaaaaa, %%r11\n\t"
				 "movabs $0xbbbbbbbbbbbbbbbb, %%r12\n\tmovabs $0xcccccccccccccccc, %%r13\n\t"
				 "movabs $0xdddddddddddddddd, %%r14\n\tmovabs $0xeeeeeeeeeeeeeeee, %%r15\n\t"
				 "mov $2000000, %%ecx\n\t"
				 "std\n\tmov %%rsp, -64(%%rsp)\n\t" /* DF, and something in the red zone */
				 "movb $0x7f, -1(%%rsp)\n\taddb $1, -1(%%rsp)\n\t" /* OF, SF, AF; no CF */
				 "1:\tjno 2f\n\tjns 2f\n\tjc 2f\n\tjz 2f\n\tlea -1(%%rcx), %%rcx\n\tjrcxz 3f\n\tjmp 1b\n"
				 "2:\tmovq $1, -8(%%rsp)\n\tjmp 4f\n"
				 "3:\tmovq $0, -8(%%rsp)\n"
				 "4:\tcld\n\tcmp %%rsp, -64(%%rsp)\n\tjne 5f\n\t"
				 "add %%rbx, %%rax\n\tadd %%rdx, %%rax\n\tadd %%rsi, %%rax\n\tadd %%rdi, %%rax\n\t"
				 "add %%rbp, %%rax\n\tadd %%r8, %%rax\n\tadd %%r9, %%rax\n\tadd %%r10, %%rax\n\t"
				 "add %%r11, %%rax\n\tadd %%r12, %%rax\n\tadd %%r13, %%rax\n\tadd %%r14, %%rax\n\t"
				 "add %%r15, %%rax\n\tmovabs $0xfffffffffffffff9, %%rbx\n\tsub %%rbx, %%rax\n\t"
				 "or -8(%%rsp), %%rax\n\tjmp 6f\n"
				 "5:\tmov $1, %%eax\n"
				 "6:\tpopq %%rbp\n\t"
				 : "=a"(bad)
				 :
				 : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
				   "memory", "cc");
		CHECK_EQ(bad, 0);
		atomic_fetch_add(beat, 1);
	}
	return NULL;
}

__attribute__((target("avx"))) static void *in_vectors(void *unused)
{
	static const uint64_t pattern[4] = { 0x0123456789abcdef, 0xfedcba9876543210, 0x5a5a5a5aa5a5a5a5, 0x1337 };

	(void)unused;
	while (!done) {
		uint64_t low[4], high[4];
		__asm__ volatile("vmovdqu %2, %%ymm0\n\tvmovdqu %2, %%ymm15\n\tmov $2000000, %%ecx\n"
				 "1:\tdec %%ecx\n\tjnz 1b\n\t"
				 "vmovdqu %%ymm0, %0\n\tvmovdqu %%ymm15, %1"
				 : "=m"(low), "=m"(high)
				 : "m"(pattern)
				 : "ecx", "cc", "xmm0", "xmm15");
		CHECK(memcmp(low, pattern, 32) == 0 && memcmp(high, pattern, 32) == 0);
		atomic_fetch_add(beat, 1);
	}
	return NULL;
}

static void *counted(void *work)
{
	((void *(*)(void *))work)(NULL);
	finished++;
	return NULL;
}

static pthread_t begin(void *(*work)(void *))
{
	pthread_t thread;

	MUST(pthread_create(&thread, NULL, counted, (void *)work) == 0);
	return thread;
}

/* Gives the others what they wait for, one at a time, until all have seen that it is over. */
static void *feed(void *others)
{
	unsigned char next = 0;
	int asked = 0, sent_answers = 0;
	uint64_t one = 1;

	while (finished < (intptr_t)others) {
		sleep_ms(7);
		CHECK_EQ(write(byte_pipe[1], &next, 1), 1);
		next++;
		CHECK_EQ(write(event, &one, 8), 8);
		pthread_kill(restarted, SIGUSR2);
		if (answers == sent_answers || done) {
			sent_answers++;
			pthread_kill(waiting, SIGANSWER);
		}
		if (suspensions_seen == asked || done) {
			asked++;
			pthread_kill(suspended, SIGUSR1);
		}
		if (done)
			CHECK_EQ(write(quiet_pipe[1], "!", 1), 1);
	}
	return NULL;
}

int main(int arguments, char **unused)
{
	static void *(*const work[])(void *) = {
		in_nanosleep, in_poll, in_select, in_ppoll, in_futex, in_clock_nanosleep,
		in_read,      in_epoll, in_registers, in_vectors,
	};
	enum { WORKERS = sizeof(work) / sizeof(work[0]) };
	pthread_t thread[WORKERS];
	int fd = open("beat", O_RDWR | O_CREAT, 0644);
	sigset_t blocked;

	if (!__builtin_cpu_supports("avx")) {
		errno = ENOSYS;
		unsupported("AVX");
	}
	(void)unused;
	eintr_is_fine = arguments > 1;
	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beat != MAP_FAILED);
	MUST(pipe2(byte_pipe, O_CLOEXEC) == 0 && pipe2(quiet_pipe, O_CLOEXEC) == 0);
	MUST((event = eventfd(0, EFD_CLOEXEC)) >= 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGANSWER);
	MUST(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
	MUST(sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = count }, NULL) == 0);
	MUST(sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = restart, .sa_flags = SA_RESTART }, NULL) == 0);
	for (int i = 0; i < WORKERS; i++)
		thread[i] = begin(work[i]);
	suspended = begin(in_sigsuspend);
	waiting = begin(in_sigwait);
	restarted = begin(in_restarted_read);
	pthread_t feeder;
	MUST(pthread_create(&feeder, NULL, feed, (void *)(intptr_t)(WORKERS + 3)) == 0);

	ready();
	while (restarts == 0 || answers == 0)
		sleep_ms(1);
	done = 1;
	for (int i = 0; i < WORKERS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_EQ(pthread_join(feeder, NULL), 0);
	CHECK_EQ(pthread_join(suspended, NULL), 0);
	CHECK_EQ(pthread_join(waiting, NULL), 0);
	CHECK_EQ(pthread_join(restarted, NULL), 0);
	CHECK_EQ(handled, suspensions_seen);
	return verdict();
}
