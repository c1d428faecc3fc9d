/*
 * inotify: watches with their numbers, gaps among these, masks and one-shot; on files, directories, a symbolic link,
 * another file system, and what is not open.  A restore causes no event.  CRIU follows the link, and
 * forgets one-shot.
 */
#include "selfcheck.h"
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static char events[4096] __attribute__((aligned(8)));

static void make(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	MUST(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

/* One event, of those that were read at once; nothing but zeros if there is none. */
static const struct inotify_event *event(int fd)
{
	static size_t at, size;
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	const struct inotify_event *first;

	if (at == size) {
		memset(events, 0, sizeof(events));
		at = size = 0;
		if (poll(&poller, 1, 0) == 1)
			CHECK((size = read(fd, events, sizeof(events))) > 0);
	}
	first = (void *)(events + at);
	if (at < size)
		at += sizeof(*first) + first->len;
	return first;
}

#define CHECK_EVENT(fd, number, bits, file)                                                                            \
	do {                                                                                                           \
		const struct inotify_event *event_ = event(fd);                                                        \
		CHECK_EQ(event_->wd, number);                                                                          \
		CHECK_EQ(event_->mask, bits);                                                                          \
		if (event_->len > 0)                                                                                   \
			CHECK(strcmp(event_->name, file) == 0);                                                        \
		else                                                                                                   \
			CHECK(strlen(file) == 0);                                                                      \
	} while (0)

int main(void)
{
	int fd, other, elsewhere, wds[12];
	char shm[64];

	snprintf(shm, sizeof(shm), "/dev/shm/criupy-inotify-%d", getpid());
	MUST(mkdir("directory", 0755) == 0 && mkdir("directory/below", 0755) == 0 && symlink("nowhere", "link") == 0);
	MUST((rmdir(shm) == 0 || errno == ENOENT) && mkdir(shm, 0755) == 0);
	make("file");
	make("once");
	make("quiet");
	MUST((fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) >= 0 && (other = inotify_init()) >= 0);
	MUST((elsewhere = inotify_init1(IN_NONBLOCK)) >= 0);

	MUST((wds[0] = inotify_add_watch(fd, "file", IN_MODIFY)) == 1);
	for (int i = 0; i < 40; i++) {
		int gone = inotify_add_watch(fd, "once", IN_MODIFY);
		MUST(gone == i + 2 && inotify_rm_watch(fd, gone) == 0 && event(fd)->mask == IN_IGNORED);
	}
	MUST((wds[1] = inotify_add_watch(fd, "directory", IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_EXCL_UNLINK)) == 42);
	MUST((wds[2] = inotify_add_watch(fd, "once", IN_ALL_EVENTS | (beyond_criu() ? IN_ONESHOT : 0))) == 43);
	MUST((wds[3] = inotify_add_watch(fd, beyond_criu() ? "link" : ".", IN_DELETE_SELF | IN_DONT_FOLLOW)) == 44);
	MUST((wds[4] = inotify_add_watch(fd, "directory/below", IN_ALL_EVENTS)) == 45);
	MUST((wds[5] = inotify_add_watch(fd, "quiet", IN_ALL_EVENTS)) == 46);
	MUST(inotify_add_watch(elsewhere, shm, IN_ALL_EVENTS) == 1 && inotify_add_watch(elsewhere, "/dev", IN_CREATE) == 2);
	MUST(event(fd)->mask == 0 && event(elsewhere)->mask == 0);

	ready();

	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(fd, F_GETFL), O_NONBLOCK);
	CHECK_EQ(fcntl(other, F_GETFL), 0);
	CHECK_EVENT(fd, 0, 0, "");
	CHECK_EVENT(elsewhere, 0, 0, "");
	make("file");
	CHECK_EVENT(fd, wds[0], IN_MODIFY, "");
	make("directory/new");
	CHECK_EVENT(fd, wds[1], IN_CREATE, "new");
	make("once");
	CHECK_EVENT(fd, wds[2], IN_OPEN, "");
	if (beyond_criu()) {
		CHECK_EVENT(fd, wds[2], IN_IGNORED, "");
	} else {
		CHECK_EVENT(fd, wds[2], IN_MODIFY, "");
		CHECK_EVENT(fd, wds[2], IN_CLOSE_WRITE, "");
	}
	CHECK_EVENT(fd, 0, 0, "");
	make("directory/below/x");
	CHECK_EVENT(fd, wds[4], IN_CREATE, "x");
	CHECK_EVENT(fd, wds[4], IN_OPEN, "x");
	CHECK_EVENT(fd, wds[4], IN_MODIFY, "x");
	CHECK_EVENT(fd, wds[4], IN_CLOSE_WRITE, "x");
	if (beyond_criu()) {
		CHECK(unlink("link") == 0);
		CHECK_EVENT(fd, wds[3], IN_DELETE_SELF, "");
		CHECK_EVENT(fd, wds[3], IN_IGNORED, "");
	}
	CHECK_EVENT(fd, 0, 0, "");
	CHECK_EQ(inotify_add_watch(fd, "file", IN_ATTRIB), wds[0]);
	CHECK(inotify_add_watch(fd, "/", IN_ATTRIB) > wds[5]);
	CHECK(rmdir(shm) == 0);
	CHECK_EVENT(elsewhere, 1, IN_DELETE_SELF, "");
	CHECK_EVENT(elsewhere, 1, IN_IGNORED, "");
	CHECK_EVENT(elsewhere, 0, 0, "");
	return verdict();
}
