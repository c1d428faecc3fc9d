/*
 * The main thread of a process has ended, two others go on.  So it is with a child (by the system call), and with ROOT
 * with the root too (by pthread_exit).  With KILLED it is a seccomp filter of its own that ends the child's main thread.
 */
#include "tree.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

static atomic_long counted;
static pid_t below;
static struct identity was;

static char state_of_main_thread(void)
{
	const char *word = proc_field("/proc/self/status", "State:");

	return word != NULL ? *word : '?';
}

static void wait_for_the_end_of_main_thread(void)
{
	while (state_of_main_thread() != 'Z')
		sleep_ms(1);
}

static void *count(void *unused)
{
	for (;;) {
		counted++;
		sleep_ms(2);
	}
	return unused;
}

/* Both threads are the same ones, and run. */
static void check(void)
{
	long before = counted;

	for (int left = 1000; counted <= before && left > 0; left--)
		sleep_ms(10);
	CHECK(counted > before);
	CHECK_EQ(state_of_main_thread(), 'Z');
	CHECK(syscall(SYS_gettid) != getpid());
	CHECK_IDENTITY(was);
}

static void *of_child(void *unused)
{
	wait_for_the_end_of_main_thread();
	is_set_up();
	until("check");
	check();
	_exit(selfcheck_failures != 0);
	return unused;
}

static void be_killed(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	syscall(SYS_getppid);
}

static void in_child(void *unused)
{
	pthread_t threads[2];

	(void)unused;
	was = identity();
	MUST(pthread_create(&threads[0], NULL, count, NULL) == 0 && pthread_create(&threads[1], NULL, of_child, NULL) == 0);
	if (getenv("KILLED") != NULL)
		be_killed();
	syscall(SYS_exit, 0);
}

/* In the root; `with_dead_leader` is NULL if it is still the main thread that runs this. */
static void *of_root(void *with_dead_leader)
{
	if (with_dead_leader)
		wait_for_the_end_of_main_thread();
	wait_set_up(1);
	ready();
	if (with_dead_leader)
		check();
	announce("check");
	CHECK_ENDED_WELL(below);
	check_no_child();
	exit(verdict());
	return NULL;
}

int main(void)
{
	pthread_t threads[2];

	tree_begins();
	below = child(in_child, NULL);
	was = identity();
	if (getenv("ROOT") == NULL)
		of_root(NULL);
	MUST(pthread_create(&threads[0], NULL, count, NULL) == 0 && pthread_create(&threads[1], NULL, of_root, &below) == 0);
	pthread_exit(NULL);
}
