/*
 * What the benchmark dumps of trees: TASKS processes, the root among them, which has MEBIBYTES of random memory in 4 KiB
 * pages.  Every child has changed one page in a hundred of it, sleeps, and checks its memory when it is told to end.
 */
#include "gap.h"
#include "tree.h"
#include <signal.h>

#define PAGE 4096

static uint64_t *memory;
static size_t size;
static volatile sig_atomic_t told;

static void on_end(int signal)
{
	(void)signal;
	told = 1;
}

static void sleeping(void *nth)
{
	sigset_t none;

	for (size_t at = *(long *)nth % 100 * PAGE; at < size; at += 100 * PAGE)
		for (int i = 0; i < PAGE / 8; i++)
			memory[at / 8 + i] *= 3;
	uint64_t before = sum(memory, size);
	sigemptyset(&none);
	is_set_up();
	while (!told)
		sigsuspend(&none);
	CHECK_EQ(sum(memory, size), before);
}

int main(void)
{
	long tasks = number("TASKS");
	_Atomic int64_t *beat = map_beat();
	pid_t *pids = calloc(tasks + 1, sizeof(*pids));
	sigset_t end;

	MUST(tasks > 0 && pids != NULL && signal(SIGTERM, on_end) != SIG_ERR);
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	MUST(sigprocmask(SIG_BLOCK, &end, NULL) == 0); /* a child takes it only where it sleeps */
	size = (size_t)number("MEBIBYTES") << 20;
	memory = random_memory(size);
	uint64_t before = sum(memory, size);
	tree_begins();
	for (long i = 1; i < tasks; i++)
		pids[i] = child(sleeping, &i);
	wait_set_up(tasks - 1);
	measure_gaps(beat);
	for (long i = 1; i < tasks; i++) {
		MUST(pids[i] > 1);
		CHECK_EQ(kill(pids[i], SIGTERM), 0);
	}
	for (long i = 1; i < tasks; i++)
		CHECK_ENDED_WELL(pids[i]);
	check_no_child();
	CHECK_EQ(sum(memory, size), before);
	return verdict();
}
