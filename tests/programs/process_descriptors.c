/*
 * pidfds: of oneself, of children alive, dead and waited for, shared and twice open; and files of namespaces.
 */
#include "tree.h"
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define PIDFD_THREAD_ O_EXCL

static int own, brother = -1;

static int pidfd(pid_t pid, int flags)
{
	int fd = syscall(SYS_pidfd_open, pid, flags);

	MUST(fd >= 0);
	return fd;
}

static int is_over(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, 0);
}

static int signals(int fd, int number)
{
	return syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
}

static long inode(int fd)
{
	char path[64], link[64] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	return atol(strchr(link, '[') + 1);
}

static long own_inode(const char *kind)
{
	char path[64], link[64] = "";

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	return atol(strchr(link, '[') + 1);
}

static void in_child(void *other)
{
	if (other != NULL)
		brother = pidfd(*(pid_t *)other, 0);
	is_set_up();
	until("child");
	CHECK_EQ(signals(own, 0), 0);
	if (brother >= 0)
		CHECK_EQ(signals(brother, 0), 0);
	did("child");
	until("end");
}

static void nothing(void *unused)
{
	(void)unused;
	close(set_up_ends[1]);
}

/* A watched child ends, and only then. */
static void check_end(int fd, int poller, pid_t pid)
{
	struct epoll_event event;
	siginfo_t info = { 0 };

	CHECK_EQ(epoll_wait(poller, &event, 1, 10000), 1);
	CHECK_EQ(event.data.u64, pid);
	CHECK_EQ(is_over(fd), 1);
	CHECK_EQ(waitid(P_PIDFD, fd, &info, WEXITED), 0);
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_status, 0);
	CHECK_EQ(signals(fd, 0), -1);
}

int main(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	const char *kinds[] = { "net", "uts", "ipc", "mnt", "user" };
	int dead, again, other, zombie, namespaces[5], poller, watched;
	int kinds_of_files = getenv("OWN_PIDS") == NULL ? 5 : 0; /* refused there */

	tree_begins();
	own = pidfd(getpid(), O_NONBLOCK);
	MUST(fcntl(own, F_SETFD, 0) == 0);
	for (int i = 0; i < kinds_of_files; i++) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[i]);
		MUST((namespaces[i] = open(path, O_RDONLY)) >= 0);
	}
	pid_t gone = child(nothing, NULL), gone_too = child(nothing, NULL), left = child(nothing, NULL);
	dead = pidfd(gone, 0);
	again = pidfd(gone, O_NONBLOCK);
	other = pidfd(gone_too, 0);
	zombie = pidfd(left, 0);
	MUST(fcntl(other, F_DUPFD, 100) >= 0);
	MUST(waitpid(gone, NULL, 0) == gone && waitpid(gone_too, NULL, 0) == gone_too);
	pid_t first = child(in_child, NULL), second = child(in_child, &first);
	watched = pidfd(first, 0);
	MUST((poller = epoll_create1(0)) >= 0);
	event.data.u64 = first;
	MUST(epoll_ctl(poller, EPOLL_CTL_ADD, watched, &event) == 0);
	wait_set_up(2);
	while (is_over(zombie) != 1)
		sleep_ms(1);

	ready();

	CHECK_EQ(fcntl(own, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(fcntl(own, F_GETFD), 0);
	CHECK_EQ(fcntl(watched, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(signals(own, 0), 0);
	for (int i = 0; i < kinds_of_files; i++) {
		CHECK_EQ(inode(namespaces[i]), own_inode(kinds[i]));
		CHECK_EQ(ioctl(namespaces[i], 0xb703, 0) & 0x7e020000, ioctl(namespaces[i], 0xb703, 0));
	}
	CHECK_EQ(is_over(dead), 1);
	CHECK_EQ(is_over(other), 1);
	CHECK_EQ(signals(dead, 0), -1);
	CHECK_EQ(fcntl(again, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(syscall(SYS_kcmp, getpid(), getpid(), 0, other, 100), 0);
	CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, dead, again) != 0);
	CHECK_EQ(is_over(zombie), 1);
	siginfo_t info = { 0 };
	CHECK_EQ(waitid(P_PIDFD, zombie, &info, WEXITED), 0);
	CHECK_EQ(info.si_pid, left);

	CHECK_EQ(is_over(watched), 0);
	CHECK_EQ(epoll_wait(poller, &event, 1, 0), 0);
	let("child");
	announce("end");
	check_end(watched, poller, first);
	CHECK_ENDED_WELL(second);
	check_no_child();
	return verdict();
}
