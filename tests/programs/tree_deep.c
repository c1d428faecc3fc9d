/* A chain of processes that is DEPTH deep and a fan of as many: everybody has its parent, and ends when told to. */
#include "tree.h"

#define DEPTH 60

static void link_of_chain(void *depth)
{
	int left = *(int *)depth - 1;
	pid_t below = left > 0 ? child(link_of_chain, &left) : 0;
	struct identity was = identity();

	is_set_up();
	if (below > 0) /* who has a child waits for it; only the last looks out for the end */
		CHECK_ENDED_WELL(below);
	else
		until("check");
	CHECK_IDENTITY(was);
	check_no_child();
}

/* Blocked in a pipe until the root lets go of it. */
static void of_fan(void *ends)
{
	struct identity was = identity();
	char byte;

	is_set_up();
	close(((int *)ends)[1]);
	CHECK_EQ(read(((int *)ends)[0], &byte, 1), 0);
	CHECK_IDENTITY(was);
}

int main(void)
{
	int depth = DEPTH, ends[2];
	pid_t chain, fan[DEPTH];

	tree_begins();
	MUST(pipe(ends) == 0);
	for (int i = 0; i < DEPTH; i++)
		fan[i] = child(of_fan, ends);
	close(ends[0]);
	int writing = ends[1];
	chain = fork();
	MUST(chain >= 0);
	if (chain == 0) {
		close(writing);
		link_of_chain(&depth);
		_exit(selfcheck_failures != 0);
	}
	wait_set_up(2 * DEPTH);
	ready();
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), 0);
	announce("check");
	close(writing);
	CHECK_ENDED_WELL(chain);
	for (int i = 0; i < DEPTH; i++)
		CHECK_ENDED_WELL(fan[i]);
	check_no_child();
	return verdict();
}
