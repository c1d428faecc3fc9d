/*
 * Members of groups whose leaders have died, and orphans.  The root adopts: what is left over in the middle of the tree
 * becomes its child.  With SESSIONS some of these are in sessions whose leaders have died or are elsewhere in the tree.
 * With DEEP one such is the child of another process that adopts, below the root.  With FURTHER the leader of the session
 * of one is not a child of the root, as it is of a job of a shell that something else has started.
 */
#include "tree.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define ORPHANS 8

static pid_t root;
static struct {
	struct identity is[ORPHANS];
	atomic_int count;
} *book; /* in a file: who they are has to reach the root, which is not their parent yet */

/* Waits for its adoption, and puts itself into the book. */
static void orphan(pid_t parent, pid_t foster)
{
	while (getppid() == parent)
		sleep_ms(1);
	MUST(getppid() == foster);
	book->is[atomic_fetch_add(&book->count, 1)] = identity();
	stay();
}

static void of_dead_session(void *leader)
{
	MUST(getsid(0) == *(pid_t *)leader && getpgrp() == *(pid_t *)leader);
	orphan(*(pid_t *)leader, root);
}

static void group_of_dead_session(void *leader)
{
	MUST(setpgid(0, 0) == 0 && getsid(0) == *(pid_t *)leader);
	orphan(*(pid_t *)leader, root);
}

static void dying_session_leader(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	MUST(setsid() == me);
	child(of_dead_session, &me);
	pid_t other = child(group_of_dead_session, &me);
	while (getpgid(other) != other)
		sleep_ms(1);
}

static void of_dead_group(void *leader)
{
	MUST(getpgrp() == *(pid_t *)leader && getsid(0) == root);
	orphan(*(pid_t *)leader, root);
}

static void joins_group(void *leader)
{
	MUST(setpgid(0, *(pid_t *)leader) == 0);
	announce("joined");
	while (kill(*(pid_t *)leader, 0) == 0) /* it is there until the root has reaped it */
		sleep_ms(1);
	MUST(getppid() == root && getpgrp() == *(pid_t *)leader && getsid(0) == root);
	stay();
}

static void dying_group_leader(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	MUST(setpgid(0, 0) == 0);
	child(of_dead_group, &me);
	announce("group");
	until("joined");
}

static void of_living_session(void *parent)
{
	MUST(getsid(0) != root);
	orphan(*(pid_t *)parent, root);
}

static void dying_in_the_middle(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	child(of_living_session, &me);
}

/* Lives on; its grandchild is adopted by the root, and still in its session. */
static void living_session_leader(void *unused)
{
	(void)unused;
	MUST(setsid() == getpid());
	CHECK_ENDED_WELL(child(dying_in_the_middle, NULL));
	stay();
	check_no_child();
}

static void above_a_session_leader(void *unused)
{
	pid_t below;

	(void)unused;
	below = child(living_session_leader, NULL);
	stay();
	CHECK_ENDED_WELL(below);
	check_no_child();
}

static pid_t deep_foster;

static void of_dead_session_deep(void *leader)
{
	orphan(*(pid_t *)leader, deep_foster);
}

static void dying_session_leader_deep(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	MUST(setsid() == me);
	child(of_dead_session_deep, &me);
}

/* The same deeper in the tree. */
static void inner_subreaper(void *unused)
{
	int status = -1;

	(void)unused;
	deep_foster = getpid();
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	CHECK_ENDED_WELL(child(dying_session_leader_deep, NULL));
	stay();
	CHECK(waitpid(-1, &status, 0) > 0);
	CHECK_EQ(status, 0);
	check_no_child();
}

static void still_adopts(void *unused)
{
	pid_t parent = getpid();

	(void)unused;
	if (fork() == 0) {
		for (int left = 1000; getppid() == parent && left > 0; left--)
			sleep_ms(2);
		CHECK_EQ(getppid(), root);
		_exit(selfcheck_failures != 0);
	}
}

int main(void)
{
	int fd = open("book", O_RDWR | O_CREAT, 0644), subreaper = 0, status = -1;
	int sessions = getenv("SESSIONS") != NULL, deep = getenv("DEEP") != NULL;
	int further = getenv("FURTHER") != NULL;
	pid_t session = 0, group, joined, living = 0, inner = 0, above = 0;

	root = getpid();
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	MUST(fd >= 0 && ftruncate(fd, sizeof(*book)) == 0);
	book = mmap(NULL, sizeof(*book), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(book != MAP_FAILED && close(fd) == 0);
	tree_begins();
	group = child(dying_group_leader, NULL);
	until("group");
	joined = child(joins_group, &group);
	MUST(wait_status(group) == 0);
	if (sessions) {
		session = child(dying_session_leader, NULL);
		MUST(wait_status(session) == 0);
		living = child(living_session_leader, NULL);
	}
	if (deep)
		inner = child(inner_subreaper, NULL);
	if (further)
		above = child(above_a_session_leader, NULL);
	wait_set_up(2 + 4 * sessions + 2 * deep + 3 * further);
	MUST(book->count == 1 + 3 * sessions + deep + further);

	ready();
	CHECK(prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0);
	CHECK_EQ(subreaper, 1);
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), 0); /* all live */
	/* What stands for a dead leader while the tree is rebuilt is gone again, and the number is still the group's. */
	MUST(group > 1);
	CHECK_EQ(kill(group, 0), -1);
	CHECK_EQ(kill(-group, 0), 0);
	CHECK_EQ(getpgid(joined), group);
	CHECK_EQ(getsid(joined), root);
	if (sessions) {
		MUST(session > 1);
		CHECK_EQ(kill(session, 0), -1);
		CHECK_EQ(kill(-session, 0), 0);
		CHECK_EQ(getsid(living), living);
	}
	int of_group = 0, of_session = 0, of_living = 0;
	for (int i = 0; i < book->count; i++) {
		CHECK_EQ(getsid(book->is[i].pid), book->is[i].session);
		CHECK_EQ(getpgid(book->is[i].pid), book->is[i].group);
		of_group += book->is[i].group == group;
		of_session += sessions && book->is[i].session == session;
		of_living += sessions && book->is[i].session == living;
	}
	CHECK_EQ(of_group, 1);
	CHECK_EQ(of_session, 2 * sessions);
	CHECK_EQ(of_living, sessions);
	announce("check");
	CHECK_ENDED_WELL(joined);
	if (sessions)
		CHECK_ENDED_WELL(living);
	if (deep)
		CHECK_ENDED_WELL(inner);
	if (further)
		CHECK_ENDED_WELL(above);
	for (int i = 0; i < book->count; i++)
		if (book->is[i].parent == root)
			CHECK_ENDED_WELL(book->is[i].pid);
	check_no_child();
	CHECK_ENDED_WELL(child(still_adopts, NULL));
	CHECK(waitpid(-1, &status, 0) > 0);
	CHECK_EQ(status, 0);
	return verdict();
}
