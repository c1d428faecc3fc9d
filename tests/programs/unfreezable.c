/*
 * A thread that no freezer stops: in the middle of a system call it waits for a page that a userfaultfd holds back, and
 * goes on to wait whatever wakes it, as long as it is not killed.
 */
#include "selfcheck.h"
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static int ends[2];

static void *copies(void *page)
{
	CHECK_EQ(write(ends[1], page, 1), 1);
	return NULL;
}

int main(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffd_msg message;
	pthread_t thread;

	if (fd < 0)
		unsupported("userfaultfd");
	MUST(ioctl(fd, UFFDIO_API, &api) == 0 && pipe(ends) == 0);
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register held = { .range = { (uintptr_t)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage given = { .range = { (uintptr_t)page, 4096 } };
	MUST(page != MAP_FAILED && ioctl(fd, UFFDIO_REGISTER, &held) == 0);
	MUST(pthread_create(&thread, NULL, copies, page) == 0);
	MUST(read(fd, &message, sizeof(message)) == sizeof(message) && message.event == UFFD_EVENT_PAGEFAULT);
	ready();
	CHECK(ioctl(fd, UFFDIO_ZEROPAGE, &given) == 0);
	pthread_join(thread, NULL);
	return verdict();
}
