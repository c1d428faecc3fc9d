/*
 * What programs of several processes share.  They keep in step by the names of files in their directory, which no dump
 * touches and which nobody has to hold open; while the tree is set up, also by a pipe that is closed before "ready".
 * A process that is not the root exits with 0 if its checks held.  Its parent checks that, so the root's verdict is on
 * all of them.
 */
#ifndef TREE_H
#define TREE_H

#include "selfcheck.h"
#include <sys/types.h>
#include <sys/wait.h>

static int set_up_ends[2];
static char step_directory[4096]; /* the one that the root started in, wherever a process goes */

/* In the root, before the first fork. */
__attribute__((unused)) static void tree_begins(void)
{
	MUST(getcwd(step_directory, sizeof(step_directory) - 64) != NULL);
	MUST(pipe(set_up_ends) == 0);
}

/* In every other process, when it has become what it should be. */
__attribute__((unused)) static void is_set_up(void)
{
	MUST(write(set_up_ends[1], "", 1) == 1);
	close(set_up_ends[0]);
	close(set_up_ends[1]);
}

/* In the root: returns when `count` processes are set up. */
__attribute__((unused)) static void wait_set_up(int count)
{
	int come = 0;
	ssize_t got;
	char byte;

	close(set_up_ends[1]);
	while ((got = read(set_up_ends[0], &byte, 1)) == 1 || (got < 0 && errno == EINTR))
		come += got == 1;
	close(set_up_ends[0]);
	MUST(come == count);
}

/* The file of a step, or of its end. */
__attribute__((unused)) static const char *step_file(const char *name, const char *suffix)
{
	static _Thread_local char path[4200];

	snprintf(path, sizeof(path), "%s/%s%s", step_directory, name, suffix);
	return path;
}

__attribute__((unused)) static void announce_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	MUST(fd >= 0);
	close(fd);
}

__attribute__((unused)) static void announce(const char *name)
{
	announce_file(step_file(name, ""));
}

__attribute__((unused)) static void until(const char *name)
{
	while (access(step_file(name, ""), F_OK) != 0)
		sleep_ms(10);
}

/* In a child: it has done the part that it waited for. */
__attribute__((unused)) static void did(const char *name)
{
	announce_file(step_file(name, "-done"));
}

/* In the root, after "go": lets a child do the part that it waits for by until(name), and waits for did(name). */
__attribute__((unused)) static void let(const char *name)
{
	int left = 1000;

	announce(name);
	while (access(step_file(name, "-done"), F_OK) != 0 && left > 0) {
		sleep_ms(10);
		left--;
	}
	if (left == 0) {
		selfcheck_failures++;
		say("FAIL: nobody did \"%s\" within 10 s", name);
	}
}

/* Forks; the child runs `body` and exits with 0 if none of its checks failed. */
__attribute__((unused)) static pid_t child(void (*body)(void *), void *argument)
{
	pid_t pid = fork();

	MUST(pid >= 0);
	if (pid == 0) {
		selfcheck_failures = 0; /* those of its parent are not its own */
		body(argument);
		_exit(selfcheck_failures != 0);
	}
	return pid;
}

/* Waits for a child that had only good to say. */
#define CHECK_ENDED_WELL(pid) CHECK_EQ(wait_status(pid), 0)

__attribute__((unused)) static int wait_status(pid_t pid)
{
	int status = -1;
	pid_t got;

	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	CHECK_EQ(got, pid);
	return status;
}

/* No child is left that the checks do not know of. */
__attribute__((unused)) static void check_no_child(void)
{
	int status;

	CHECK_EQ(waitpid(-1, &status, WNOHANG), -1);
}

/* What number a child of this thread has in /proc, which may show another pid namespace. */
__attribute__((unused)) static pid_t number_in_proc(pid_t child)
{
	FILE *children = fopen("/proc/thread-self/children", "re");
	char name[64], line[256];
	pid_t number, found = 0;

	while (children != NULL && found == 0 && fscanf(children, "%d", &number) == 1) {
		snprintf(name, sizeof(name), "/proc/%d/status", number);
		FILE *status = fopen(name, "re");
		while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
			if (strncmp(line, "NSpid:", 6) == 0 && atoi(strrchr(line, '\t')) == child)
				found = number;
		}
		if (status != NULL)
			fclose(status);
	}
	if (children != NULL)
		fclose(children);
	return found;
}

/* Who a process is to others. */
struct identity {
	pid_t pid, parent, group, session;
};

__attribute__((unused)) static struct identity identity(void)
{
	return (struct identity){ getpid(), getppid(), getpgrp(), getsid(0) };
}

#define CHECK_IDENTITY(was)                                                                                            \
	do {                                                                                                           \
		CHECK_EQ(getpid(), (was).pid);                                                                         \
		CHECK_EQ(getppid(), (was).parent);                                                                     \
		CHECK_EQ(getpgrp(), (was).group);                                                                      \
		CHECK_EQ(getsid(0), (was).session);                                                                    \
	} while (0)

/* In a child that has nothing to do but to be who it is. */
__attribute__((unused)) static void stay(void)
{
	struct identity was = identity();

	is_set_up();
	until("check");
	CHECK_IDENTITY(was);
}

#endif
