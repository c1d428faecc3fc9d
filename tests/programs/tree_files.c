/*
 * Descriptors that processes share by fork: open file descriptions with one position, pipes whose ends are spread over
 * the tree, an eventfd, an epoll instance, copies with other numbers and flags.  The root has two children, the first
 * of them one of its own.  A pipe that somebody holds who should not would never end.
 */
#include "tree.h"
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

static pid_t root, first, second, grandchild;
static int shared;			   /* of all but the grandchild */
static int copy = 200;			   /* the same description, of the root and the first */
static int of_children;			   /* another description of the same file, no more in the root */
static int skipping;			   /* of the root and the grandchild, no more of who is between them */
static int down[2], up[2], both[2];	   /* root to first, first to root, everybody's */
static int between[2], ended[2], broken[2]; /* first to second; nobody to second; first to nobody */
static int event, poller;		   /* all; root and first */

static int same(pid_t one, int fd, pid_t other, int other_fd)
{
	long answer = syscall(SYS_kcmp, one, other, KCMP_FILE, fd, other_fd);

	CHECK(answer >= 0);
	return answer == 0;
}

static void gives(int fd, const char *expected)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	size_t length = strlen(expected);
	char got[64] = "";

	CHECK_EQ(poll(&readable, 1, 5000), 1);
	if (readable.revents == 0)
		return;
	CHECK_EQ(read(fd, got, length), length);
	CHECK(memcmp(got, expected, length) == 0);
}

static void ends(int fd)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	char byte;

	CHECK_EQ(poll(&readable, 1, 5000), 1);
	if (readable.revents != 0)
		CHECK_EQ(read(fd, &byte, 1), 0);
}

static int queued(int fd)
{
	int count = -1;

	CHECK(ioctl(fd, FIONREAD, &count) == 0);
	return count;
}

static int position(int fd)
{
	return lseek(fd, 0, SEEK_CUR);
}

static int is_closed(int fd)
{
	return fcntl(fd, F_GETFD) == -1 && errno == EBADF;
}

static void close_all(int count, const int *fds)
{
	for (int i = 0; i < count; i++)
		MUST(close(fds[i]) == 0);
}

static void in_grandchild(void *unused)
{
	int fds[] = { shared, copy, of_children, down[0], down[1], up[0], up[1], both[0], both[1], between[0], between[1],
		      ended[0], broken[1], poller };

	(void)unused;
	close_all(sizeof(fds) / sizeof(*fds), fds);
	is_set_up();
	until("grandchild");
	gives(skipping, "xy");
	CHECK(is_closed(shared) && is_closed(poller));
	CHECK_EQ(write(event, &(uint64_t){ 5 }, 8), 8);
	did("grandchild");
}

static void in_first(void *unused)
{
	int fds[] = { down[1], up[0], between[0], ended[0], skipping }, own;
	struct epoll_event watch = { .events = EPOLLIN, .data.u64 = 3 };

	(void)unused;
	pid_t below = child(in_grandchild, NULL);
	int fd = open("grandchild.pid", O_WRONLY | O_CREAT, 0644);
	MUST(fd >= 0 && write(fd, &below, sizeof(below)) == sizeof(below) && close(fd) == 0);
	close_all(sizeof(fds) / sizeof(*fds), fds);
	MUST(fcntl(copy, F_SETFD, FD_CLOEXEC) == 0 && fcntl(copy, F_DUPFD, copy + 1) == copy + 1);
	MUST((own = open("data", O_RDONLY)) >= 0 && dup2(own, 300) == 300 && close(own) == 0);
	own = 300;
	if (beyond_criu()) /* which the root could not add: it does not have it */
		MUST(epoll_ctl(poller, EPOLL_CTL_ADD, down[0], &watch) == 0);
	is_set_up();

	until("first");
	CHECK(is_closed(skipping) && is_closed(down[1]) && is_closed(up[0]));
	gives(shared, "234");
	CHECK_EQ(fcntl(copy, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(copy + 1, F_GETFD), 0);
	CHECK_EQ(fcntl(shared, F_GETFL) & (O_APPEND | O_NONBLOCK), 0);
	CHECK_EQ(position(own), 0);
	gives(of_children, "56");
	CHECK_EQ(queued(both[0]), 4);
	CHECK_EQ(write(event, &(uint64_t){ 4 }, 8), 8);
	if (!beyond_criu())
		CHECK(epoll_ctl(poller, EPOLL_CTL_ADD, down[0], &watch) == 0);
	CHECK(epoll_ctl(poller, EPOLL_CTL_DEL, both[0], NULL) == 0);
	did("first");

	until("first again");
	CHECK_EQ(fcntl(copy, F_GETFL) & (O_APPEND | O_NONBLOCK), O_APPEND | O_NONBLOCK);
	CHECK_EQ(fcntl(own, F_GETFL) & (O_APPEND | O_NONBLOCK), 0);
	gives(down[0], "down");
	ends(down[0]);
	CHECK_EQ(write(broken[1], "x", 1), -1);
	CHECK(close(up[1]) == 0 && close(between[1]) == 0);
	did("first again");
	CHECK_ENDED_WELL(below);
}

static void in_second(void *unused)
{
	int fds[] = { down[0], down[1], up[0], up[1], between[1], broken[1], copy, skipping, poller };

	(void)unused;
	close_all(sizeof(fds) / sizeof(*fds), fds);
	MUST(fcntl(shared, F_DUPFD_CLOEXEC, 250) == 250);
	is_set_up();

	until("second");
	CHECK(is_closed(copy) && is_closed(poller) && is_closed(skipping));
	CHECK_EQ(fcntl(250, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(shared, F_GETFD), 0);
	gives(250, "6");
	gives(of_children, "78");
	CHECK_EQ(queued(both[0]), 4);
	gives(both[0], "bo");
	gives(between[0], "between");
	gives(ended[0], "last");
	ends(ended[0]);
	did("second");

	until("second again");
	ends(between[0]);
	did("second again");
}

/* The numbers that watchers of the epoll instance gave to what is ready now, as bits. */
static int ready_bits(void)
{
	struct epoll_event events[8];
	int count = epoll_wait(poller, events, 8, 0), bits = 0;

	CHECK(count >= 0);
	for (int i = 0; i < count; i++)
		bits |= 1 << events[i].data.u64;
	return bits;
}

int main(void)
{
	struct epoll_event watch = { .events = EPOLLIN };
	uint64_t counter = 0;
	int fd;

	root = getpid();
	MUST(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	tree_begins();
	MUST((shared = open("data", O_RDWR | O_CREAT, 0644)) >= 0 && write(shared, "0123456789", 10) == 10);
	MUST(lseek(shared, 2, SEEK_SET) == 2 && dup2(shared, copy) == copy);
	MUST((of_children = open("data", O_RDONLY)) >= 0 && lseek(of_children, 5, SEEK_SET) == 5);
	MUST((skipping = open("other", O_RDWR | O_CREAT, 0644)) >= 0 && write(skipping, "wxyz", 4) == 4);
	MUST(lseek(skipping, 1, SEEK_SET) == 1);
	MUST(pipe(down) == 0 && pipe(up) == 0 && pipe(both) == 0 && pipe(between) == 0 && pipe(ended) == 0 && pipe(broken) == 0);
	MUST(write(down[1], "down", 4) == 4 && write(up[1], "up", 2) == 2 && write(both[1], "both", 4) == 4);
	MUST(write(between[1], "between", 7) == 7 && write(ended[1], "last", 4) == 4);
	MUST(close(ended[1]) == 0 && close(broken[0]) == 0);
	MUST((event = eventfd(3, EFD_NONBLOCK)) >= 0 && (poller = epoll_create1(EPOLL_CLOEXEC)) >= 0);
	watch.data.u64 = 1;
	MUST(epoll_ctl(poller, EPOLL_CTL_ADD, event, &watch) == 0);
	watch.data.u64 = 2;
	MUST(epoll_ctl(poller, EPOLL_CTL_ADD, both[0], &watch) == 0);
	first = child(in_first, NULL);
	second = child(in_second, NULL);
	int fds[] = { of_children, down[0], up[1], between[0], between[1], ended[0], broken[1] };
	close_all(sizeof(fds) / sizeof(*fds), fds);
	wait_set_up(3);
	MUST((fd = open("grandchild.pid", O_RDONLY)) >= 0 && read(fd, &grandchild, sizeof(grandchild)) == sizeof(grandchild));
	close(fd);

	ready();
	CHECK(same(root, shared, first, shared) && same(root, shared, second, shared) && same(root, shared, second, 250));
	CHECK(same(root, shared, root, copy) && same(root, copy, first, copy) && same(root, copy, first, copy + 1));
	CHECK(same(first, of_children, second, of_children) && same(root, skipping, grandchild, skipping));
	CHECK(!same(root, shared, first, 300) && !same(root, shared, first, of_children));
	CHECK(same(root, both[0], first, both[0]) && same(root, both[1], second, both[1]) && !same(root, both[0], root, both[1]));
	CHECK(same(root, event, first, event) && same(root, event, grandchild, event) && same(root, poller, first, poller));
	CHECK(same(root, STDERR_FILENO, grandchild, STDERR_FILENO) && same(root, STDIN_FILENO, second, STDIN_FILENO));
	CHECK_EQ(fcntl(copy, F_GETFD), 0);
	CHECK_EQ(fcntl(poller, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(position(shared), 2);
	CHECK_EQ(queued(both[0]), 4);
	CHECK_EQ(ready_bits(), beyond_criu() ? 2 + 4 + 8 : 2 + 4);
	let("first");
	CHECK_EQ(position(shared), 5);
	CHECK_EQ(ready_bits(), 2 + 8);
	gives(copy, "5");
	let("second");
	CHECK_EQ(position(copy), 7);
	gives(both[0], "th");
	let("grandchild");
	CHECK_EQ(position(skipping), 3);
	CHECK_EQ(read(event, &counter, 8), 8);
	CHECK_EQ(counter, 3 + 4 + 5);
	CHECK_EQ(ready_bits(), 8);
	CHECK(fcntl(shared, F_SETFL, O_APPEND | O_NONBLOCK) == 0);
	gives(up[0], "up");
	CHECK(close(down[1]) == 0);
	let("first again");
	ends(up[0]);
	let("second again");
	CHECK_ENDED_WELL(first);
	CHECK_ENDED_WELL(second);
	check_no_child();
	return verdict();
}
