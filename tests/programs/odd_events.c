/* One descriptor that cannot be dumped, by its name in KIND; whatever a dump says of it, it works afterwards. */
#include "selfcheck.h"
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sched.h>

static int fd;

static void make(const char *name)
{
	int file = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	MUST(file >= 0 && close(file) == 0);
}

static void *wait_for_end(void *tid)
{
	*(_Atomic pid_t *)tid = gettid();
	pause();
	return NULL;
}

static pid_t other_thread(void)
{
	static _Atomic pid_t tid;
	pthread_t thread;

	MUST(pthread_create(&thread, NULL, wait_for_end, (void *)&tid) == 0);
	while (tid == 0)
		sched_yield();
	return tid;
}

static void need(int opened, const char *what)
{
	if (opened < 0)
		unsupported(what);
	fd = opened;
}

static void still_watches(int file)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	CHECK_EQ(fchmod(file, 0600), 0);
	CHECK_EQ(poll(&poller, 1, 0), 1);
}

int main(void)
{
	const char *kind = getenv("KIND") ?: "";
	int file = -1;

	if (strcmp(kind, "watch") == 0) {
		make("gone");
		MUST((fd = inotify_init1(IN_NONBLOCK)) >= 0 && inotify_add_watch(fd, "gone", IN_ATTRIB) == 1);
		MUST((file = open("gone", O_RDONLY)) >= 0 && unlink("gone") == 0);
	} else if (strcmp(kind, "unread") == 0) {
		make("here");
		MUST((fd = inotify_init1(IN_NONBLOCK)) >= 0 && inotify_add_watch(fd, "here", IN_OPEN) == 1);
		make("here");
	} else if (strcmp(kind, "decides") == 0) {
		need(fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK, O_RDONLY), kind);
	} else if (strcmp(kind, "unprivileged") == 0) {
		make("here");
		need(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, O_RDONLY), kind);
		MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "here") == 0 && setuid(65534) == 0);
	} else if (strcmp(kind, "process") == 0) {
		need(syscall(SYS_pidfd_open, getppid(), 0), kind);
	} else if (strcmp(kind, "thread") == 0) {
		need(syscall(SYS_pidfd_open, other_thread(), O_EXCL), kind);
	} else if (strcmp(kind, "namespace") == 0) {
		int own = open("/proc/self/ns/uts", O_RDONLY);
		MUST(own >= 0 && unshare(CLONE_NEWUTS) == 0);
		need(open("/proc/self/ns/uts", O_RDONLY), kind);
		MUST(setns(own, CLONE_NEWUTS) == 0 && close(own) == 0);
	} else if (strcmp(kind, "io_uring") == 0) {
		struct io_uring_params parameters = { 0 };
		need(syscall(SYS_io_uring_setup, 4, &parameters), kind);
	} else if (strcmp(kind, "userfaultfd") == 0) {
		need(syscall(SYS_userfaultfd, O_CLOEXEC), kind);
	} else if (strcmp(kind, "bpf") == 0) {
		union bpf_attr map = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 4 };
		need(syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map)), kind);
	} else if (strcmp(kind, "tun") == 0) {
		need(open("/dev/net/tun", O_RDWR), kind);
	} else {
		errno = EINVAL;
		unsupported(kind);
	}

	ready();

	CHECK(fcntl(fd, F_GETFD) >= 0);
	if (strcmp(kind, "watch") == 0)
		still_watches(file);
	if (strcmp(kind, "unread") == 0 && getenv("RESTORED") == NULL) {
		char event[64];
		CHECK_EQ(read(fd, event, sizeof(event)), sizeof(struct inotify_event));
	}
	if (strcmp(kind, "process") == 0 || strcmp(kind, "thread") == 0)
		CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), 0);
	return verdict();
}
