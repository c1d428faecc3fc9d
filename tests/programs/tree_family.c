/* Parents, process groups and sessions in the shapes that programs have them in. */
#include "tree.h"

static pid_t root;

static void member(void *unused)
{
	(void)unused;
	MUST(getppid() == root && getpgrp() == root && getsid(0) == root);
	stay();
}

static void of_group(void *leader)
{
	MUST(setpgid(0, *(pid_t *)leader) == 0 && getpgrp() == *(pid_t *)leader && getsid(0) == root);
	stay();
}

static void back_in_the_first_group(void *unused)
{
	(void)unused;
	MUST(setpgid(0, root) == 0 && getppid() != root && getpgrp() == root);
	stay();
}

/* Leads a group with a child in it, and has another that went back to the root's group. */
static void group_leader(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	MUST(setpgid(0, 0) == 0 && getpgrp() == me && getsid(0) == root);
	pid_t inside = child(of_group, &me), outside = child(back_in_the_first_group, NULL);
	stay();
	CHECK_ENDED_WELL(inside);
	CHECK_ENDED_WELL(outside);
	check_no_child();
}

static void of_session(void *leader)
{
	MUST(getsid(0) == *(pid_t *)leader && getpgrp() == *(pid_t *)leader);
	stay();
}

static void group_of_session(void *leader)
{
	MUST(setpgid(0, 0) == 0 && getsid(0) == *(pid_t *)leader && getpgrp() == getpid());
	stay();
}

static void session_leader(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	MUST(setsid() == me && getppid() == root);
	pid_t plain = child(of_session, &me), grouped = child(group_of_session, &me);
	stay();
	CHECK_ENDED_WELL(plain);
	CHECK_ENDED_WELL(grouped);
	check_no_child();
}

/* Its parent has a session of its own by now, and it is still in the one before. */
static void elder(void *unused)
{
	pid_t parent = getppid();

	(void)unused;
	while (getsid(parent) != parent)
		sleep_ms(1);
	MUST(getsid(0) == root && getpgrp() == root);
	pid_t of_elder = child(back_in_the_first_group, NULL);
	stay();
	CHECK_ENDED_WELL(of_elder);
}

static void late_leader(void *unused)
{
	pid_t me = getpid(), before, after;

	(void)unused;
	before = child(elder, NULL);
	MUST(setsid() == me);
	after = child(of_session, &me);
	stay();
	CHECK_ENDED_WELL(before);
	CHECK_ENDED_WELL(after);
	check_no_child();
}

/* Beyond: a process that led a group, and left it to another. */
static void left_its_group(void *unused)
{
	pid_t me = getpid();

	(void)unused;
	MUST(setpgid(0, 0) == 0);
	pid_t heir = child(of_group, &me);
	while (getpgid(heir) != me)
		sleep_ms(1);
	MUST(setpgid(0, root) == 0 && getpgid(heir) == me);
	stay();
	CHECK_ENDED_WELL(heir);
}

int main(void)
{
	pid_t children[6], leader;
	int count = 0;

	root = getpid();
	MUST(getsid(0) == root && getpgrp() == root);
	struct identity was = identity();
	tree_begins();
	children[count++] = child(member, NULL);
	leader = children[count++] = child(group_leader, NULL);
	MUST(setpgid(leader, leader) == 0);
	children[count++] = child(of_group, &leader);
	children[count++] = child(session_leader, NULL);
	children[count++] = child(late_leader, NULL);
	if (beyond_criu())
		children[count++] = child(left_its_group, NULL);
	wait_set_up(beyond_criu() ? 14 : 12);
	ready();
	CHECK_EQ(getpid(), was.pid);
	CHECK_EQ(getpgrp(), was.group);
	CHECK_EQ(getsid(0), was.session);
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), 0); /* all live, none is new */
	announce("check");
	for (int i = 0; i < count; i++)
		CHECK_ENDED_WELL(children[i]);
	check_no_child();
	return verdict();
}
