/*
 * What clone(2) can let two processes share; SHARE names it: a descriptor table (files), cwd and umask (fs), the
 * address space (vm), that and signal actions (sighand), the I/O context (io), System V semaphore undos (sysvsem).
 */
#include "tree.h"
#include <limits.h>
#include <linux/ioprio.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/stat.h>

static int kcmp(pid_t one, pid_t other, int kind)
{
	int answer = syscall(SYS_kcmp, one, other, kind, 0, 0);

	CHECK(answer >= 0);
	return answer;
}

/* Like child(), and what `flags` say is shared. */
static pid_t sharing_child(int flags, void (*body)(void *), void *argument)
{
	pid_t pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, 0);

	MUST(pid >= 0);
	if (pid == 0) {
		body(argument);
		_exit(selfcheck_failures != 0);
	}
	return pid;
}

/* --- files: the table is one, so the set-up is told by files only */

enum { EARLY = 70, LATE = 77 };

static void open_at(int number)
{
	int fd = open("data", O_RDONLY | O_CREAT, 0644);

	MUST(fd >= 0 && dup2(fd, number) == number && close(fd) == 0);
}

static void in_files(void *unused)
{
	(void)unused;
	open_at(EARLY);
	announce("set up");
	until("open");
	open_at(LATE);
	did("open");
	until("look");
	CHECK_EQ(fcntl(LATE, F_GETFD), -1);
	CHECK_EQ(fcntl(EARLY, F_GETFD), FD_CLOEXEC);
	did("look");
}

static void in_inner(void *unused)
{
	(void)unused;
	open_at(EARLY);
	announce("inner set up");
	until("inner");
	CHECK_EQ(fcntl(LATE, F_GETFD), -1); /* of the root's table, where it is open now */
	CHECK(close(EARLY) == 0);
	did("inner");
	until("end");
}

/* A table of its own, which it shares with its own child. */
static void in_other_table(void *unused)
{
	(void)unused;
	close(EARLY);
	pid_t inner = sharing_child(CLONE_FILES, in_inner, NULL);
	until("inner set up");
	MUST(fcntl(EARLY, F_GETFD) == 0);
	announce("other set up");
	until("other");
	CHECK_EQ(kcmp(getpid(), inner, KCMP_FILES), 0);
	CHECK(kcmp(getpid(), getppid(), KCMP_FILES) != 0);
	CHECK_EQ(fcntl(EARLY, F_GETFD), -1);
	did("other");
	CHECK_ENDED_WELL(inner);
}

static void files(void)
{
	close(set_up_ends[0]);
	close(set_up_ends[1]);
	pid_t one = sharing_child(CLONE_FILES, in_files, NULL);
	until("set up");
	MUST(fcntl(EARLY, F_GETFD) == 0);
	pid_t other = child(in_other_table, NULL);
	until("other set up");
	ready();
	CHECK_EQ(kcmp(getpid(), one, KCMP_FILES), 0);
	CHECK(kcmp(getpid(), other, KCMP_FILES) != 0);
	CHECK_EQ(fcntl(EARLY, F_GETFD), 0);
	let("open");
	CHECK_EQ(fcntl(LATE, F_GETFD), 0);
	let("inner");
	let("other");
	CHECK(close(LATE) == 0);
	CHECK(fcntl(EARLY, F_SETFD, FD_CLOEXEC) == 0);
	let("look");
	announce("end");
	CHECK_ENDED_WELL(one);
	CHECK_ENDED_WELL(other);
}

/* --- fs */

static int cwd_is(const char *name)
{
	char path[PATH_MAX];

	return getcwd(path, sizeof(path)) != NULL && strcmp(strrchr(path, '/') + 1, name) == 0;
}

static void in_fs(void *unused)
{
	(void)unused;
	MUST(mkdir("one", 0755) == 0 && mkdir("one/two", 0755) == 0);
	MUST(chdir("one") == 0);
	umask(031);
	is_set_up();
	until("go deeper");
	CHECK(cwd_is("one"));
	CHECK(chdir("two") == 0);
	CHECK_EQ(umask(045), 031);
	did("go deeper");
	until("look");
	CHECK(cwd_is("one"));
	CHECK_EQ(umask(022), 023);
}

static void fs(void)
{
	pid_t one = sharing_child(CLONE_FS, in_fs, NULL);

	wait_set_up(1);
	MUST(cwd_is("one"));
	ready_until("../go");
	CHECK_EQ(kcmp(getpid(), one, KCMP_FS), 0);
	CHECK(cwd_is("one"));
	let("go deeper");
	CHECK(cwd_is("two"));
	CHECK_EQ(umask(023), 045);
	CHECK(chdir("..") == 0);
	announce("look");
	CHECK_ENDED_WELL(one);
}

/* --- vm and sighand: the other has its own stack, but thread-local storage of the root's, so it leaves errno alone */

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long answer;

	__asm__ volatile("syscall"
			 : "=a"(answer)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return answer;
}

/* The kernel's own form of an action. */
struct action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static _Atomic int turn; /* odd: the child's */
static _Atomic long question, answer;
static char *_Atomic gift;
static struct action seen;

static void handler(int signal)
{
	(void)signal;
}

static int in_vm(void *unused)
{
	struct timespec moment = { 0, 5000000 };
	struct action ignore = { SIG_IGN, 0, NULL, 0 };

	(void)unused;
	for (int mine = 1; mine <= 3; mine += 2) {
		while (turn != mine)
			raw(SYS_nanosleep, (long)&moment, 0, 0, 0, 0, 0);
		answer = question * 3;
		gift = (char *)raw(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		gift[mine] = 'g';
		raw(SYS_rt_sigaction, SIGUSR1, 0, (long)&seen, 8, 0, 0);
		raw(SYS_rt_sigaction, SIGUSR2, (long)&ignore, 0, 8, 0, 0);
		turn = mine + 1;
	}
	raw(SYS_exit_group, 7, 0, 0, 0, 0, 0);
	return 0;
}

static void vm(int flags)
{
	const size_t size = 1 << 16;
	int shares_actions = (flags & CLONE_SIGHAND) != 0, status = -1;
	struct sigaction action;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	MUST(stack != MAP_FAILED);
	pid_t one = clone(in_vm, stack + size, flags | SIGCHLD, NULL);
	MUST(one > 0);
	question = 14;
	turn = 1;
	while (turn != 2)
		sleep_ms(1);
	MUST(answer == 42 && gift[1] == 'g');
	char *before = gift;
	if (shares_actions)
		MUST(signal(SIGUSR2, SIG_DFL) == SIG_IGN);

	ready();
	CHECK_EQ(kcmp(getpid(), one, KCMP_VM), 0);
	CHECK_EQ(kcmp(getpid(), one, KCMP_SIGHAND) == 0, shares_actions);
	CHECK(kcmp(getpid(), one, KCMP_FILES) != 0 && kcmp(getpid(), one, KCMP_FS) != 0);
	CHECK_EQ(before[1], 'g');
	CHECK(signal(SIGUSR1, handler) == SIG_DFL);
	question = 100;
	turn = 3;
	for (int left = 1000; turn != 4 && left > 0; left--)
		sleep_ms(10);
	CHECK_EQ(turn, 4);
	CHECK_EQ(answer, 300);
	CHECK(gift != before && gift[3] == 'g' && before[1] == 'g');
	CHECK(seen.handler == (shares_actions ? (void *)handler : (void *)SIG_DFL));
	CHECK(sigaction(SIGUSR2, NULL, &action) == 0 && action.sa_handler == (shares_actions ? SIG_IGN : SIG_DFL));
	CHECK_EQ(waitpid(one, &status, 0), one);
	CHECK_EQ(status, 7 << 8);
}

/* --- io */

static int io_priority(pid_t pid)
{
	return syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid);
}

static int set_io_priority(int level)
{
	return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, level));
}

static void in_io(void *unused)
{
	(void)unused;
	is_set_up();
	until("set");
	CHECK_EQ(set_io_priority(7), 0);
	did("set");
}

static void io(void)
{
	MUST(set_io_priority(5) == 0); /* an I/O context is there when it is needed */
	pid_t one = sharing_child(CLONE_IO, in_io, NULL);

	wait_set_up(1);
	MUST(io_priority(one) == IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 5));
	ready();
	CHECK_EQ(io_priority(0), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 5));
	CHECK_EQ(io_priority(one), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 5));
	CHECK_EQ(kcmp(getpid(), one, KCMP_IO), 0);
	CHECK_EQ(set_io_priority(6), 0);
	CHECK_EQ(io_priority(one), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6));
	let("set");
	CHECK_EQ(io_priority(0), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7));
	CHECK_ENDED_WELL(one);
}

/* --- sysvsem: an undo is done when the last of those who share the list has ended */

static int semaphores;

static void in_sysvsem(void *unused)
{
	struct sembuf up = { 0, 1, SEM_UNDO };

	(void)unused;
	is_set_up();
	until("check");
	CHECK(semop(semaphores, &up, 1) == 0);
}

static void sysvsem(void)
{
	FILE *list = fopen("sysv", "w");

	semaphores = semget(IPC_PRIVATE, 1, 0600);
	if (semaphores < 0)
		unsupported("semget");
	MUST(list != NULL && fprintf(list, "sem %d\n", semaphores) > 0 && fclose(list) == 0);
	pid_t one = sharing_child(CLONE_SYSVSEM, in_sysvsem, NULL);
	wait_set_up(1);
	ready();
	CHECK_EQ(kcmp(getpid(), one, KCMP_SYSVSEM), 0);
	CHECK_EQ(semctl(semaphores, 0, GETVAL), 0);
	announce("check");
	CHECK_ENDED_WELL(one);
	CHECK_EQ(semctl(semaphores, 0, GETVAL), 1);
	CHECK(semctl(semaphores, 0, IPC_RMID) == 0);
}

int main(void)
{
	const char *share = getenv("SHARE");

	MUST(share != NULL);
	tree_begins();
	if (strcmp(share, "files") == 0)
		files();
	else if (strcmp(share, "fs") == 0)
		fs();
	else if (strcmp(share, "vm") == 0)
		vm(CLONE_VM);
	else if (strcmp(share, "sighand") == 0)
		vm(CLONE_VM | CLONE_SIGHAND);
	else if (strcmp(share, "io") == 0)
		io();
	else if (strcmp(share, "sysvsem") == 0)
		sysvsem();
	else
		MUST(!"SHARE is known");
	check_no_child();
	return verdict();
}
