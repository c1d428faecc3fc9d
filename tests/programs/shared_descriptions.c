/* Descriptors that share an open file description, and others of the same file that do not. */
#include "selfcheck.h"
#include <linux/kcmp.h>
#include <sys/eventfd.h>

static int same(int left, int right)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, left, right) == 0;
}

int main(void)
{
	int one, again, copy, far, ends[2], other_end, event, event_copy;

	MUST((one = open("data", O_RDWR | O_CREAT, 0644)) >= 0 && write(one, "0123456789", 10) == 10);
	MUST((again = open("data", O_RDWR)) >= 0);
	MUST((copy = fcntl(one, F_DUPFD_CLOEXEC, 0)) >= 0 && (far = fcntl(one, F_DUPFD, 333)) == 333);
	MUST(pipe(ends) == 0 && (other_end = dup(ends[1])) >= 0);
	MUST((event = eventfd(3, 0)) >= 0 && (event_copy = dup(event)) >= 0);
	ready();
	CHECK(same(one, copy) && same(one, far) && !same(one, again));
	CHECK(same(ends[1], other_end) && !same(ends[0], ends[1]));
	CHECK(same(event, event_copy));
	CHECK(same(STDOUT_FILENO, STDERR_FILENO) && !same(STDIN_FILENO, STDOUT_FILENO));
	CHECK_EQ(lseek(one, 3, SEEK_SET), 3);
	CHECK_EQ(lseek(copy, 0, SEEK_CUR), 3);
	CHECK_EQ(lseek(far, 0, SEEK_CUR), 3);
	CHECK_EQ(lseek(again, 0, SEEK_CUR), 0);
	CHECK_EQ(fcntl(copy, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(far, F_GETFD), 0);
	CHECK(fcntl(far, F_SETFL, O_NONBLOCK) == 0 && (fcntl(one, F_GETFL) & O_NONBLOCK) && !(fcntl(again, F_GETFL) & O_NONBLOCK));
	return verdict();
}
