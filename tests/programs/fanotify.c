/*
 * fanotify: marks on a directory, a file, a mount and a file system, with what they ignore; reports by descriptor and by
 * name.  CRIU knows no marks on file systems and loses flags of groups.
 */
#include "selfcheck.h"
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/stat.h>

static int group(unsigned int flags)
{
	int fd = fanotify_init(flags, O_RDONLY | O_LARGEFILE | O_CLOEXEC);

	if (fd < 0)
		unsupported("fanotify_init");
	return fd;
}

#define MARK(fd, flags, mask, name) MUST(fanotify_mark(fd, FAN_MARK_ADD | (flags), mask, AT_FDCWD, name) == 0)

static void make(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	MUST(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

/* All that has happened to what is `marked`, merged by the kernel or not; by us alone. */
static uint64_t events(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	char buffer[4096] __attribute__((aligned(8)));
	uint64_t mask = 0;

	while (poll(&poller, 1, 0) == 1) {
		ssize_t size = read(fd, buffer, sizeof(buffer));
		struct fanotify_event_metadata *event = (void *)buffer;

		CHECK(size > 0);
		for (; FAN_EVENT_OK(event, size); event = FAN_EVENT_NEXT(event, size)) {
			if (event->pid == getpid())
				mask |= event->mask;
			if (event->fd >= 0)
				close(event->fd);
		}
	}
	return mask;
}

int main(void)
{
	int inodes, ignoring, named = -1, mount_fd = -1, filesystem = -1;

	MUST(mkdir("directory", 0755) == 0 && mkdir("mounted", 0755) == 0);
	make("file");
	make("directory/inside");
	inodes = group(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC);
	MARK(inodes, 0, FAN_MODIFY, "file");
	MARK(inodes, FAN_MARK_ONLYDIR, FAN_OPEN | FAN_EVENT_ON_CHILD | FAN_ONDIR, "directory");
	ignoring = group(FAN_CLASS_NOTIF | FAN_UNLIMITED_MARKS);
	MARK(ignoring, 0, FAN_OPEN | FAN_MODIFY | FAN_EVENT_ON_CHILD, "directory");
	MARK(ignoring, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_OPEN, "directory/inside");
	if (beyond_criu()) {
		named = group(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_FID | FAN_REPORT_DIR_FID | FAN_REPORT_NAME);
		MARK(named, 0, FAN_CREATE | FAN_ONDIR, "directory");
		mount_fd = group(FAN_CLASS_NOTIF | FAN_NONBLOCK);
		MARK(mount_fd, FAN_MARK_MOUNT, FAN_CLOSE_WRITE, "/dev/shm");
		filesystem = group(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_FID);
		MARK(filesystem, FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_ONDIR, "/dev/shm");
	}

	ready();

	CHECK_EQ(fcntl(inodes, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(fcntl(inodes, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(ignoring, F_GETFL), O_RDWR);
	CHECK_EQ(events(inodes), 0);
	CHECK_EQ(events(ignoring), 0);
	make("file");
	CHECK_EQ(events(inodes), FAN_MODIFY);
	make("directory/inside");
	CHECK_EQ(events(inodes), FAN_OPEN);
	CHECK_EQ(events(ignoring), FAN_MODIFY);
	CHECK(close(open("directory", O_RDONLY)) == 0);
	CHECK_EQ(events(inodes), FAN_OPEN);
	make("other");
	CHECK_EQ(events(inodes), 0);
	if (beyond_criu()) {
		char name[64];
		snprintf(name, sizeof(name), "/dev/shm/criupy-fanotify-%d", getpid());
		CHECK_EQ(events(named), 0);
		CHECK(mkdir("directory/new", 0755) == 0);
		CHECK_EQ(events(named), FAN_CREATE | FAN_ONDIR);
		unlink(name);
		CHECK_EQ(events(mount_fd), 0);
		make(name);
		CHECK_EQ(events(mount_fd), FAN_CLOSE_WRITE);
		CHECK_EQ(events(filesystem), FAN_CREATE);
		CHECK(unlink(name) == 0);
	}
	return verdict();
}
