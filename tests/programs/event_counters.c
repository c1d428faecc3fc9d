/* eventfd: counts and flags.  CRIU's image has no place for semaphores and counts over 32 bits. */
#include "selfcheck.h"
#include <sys/eventfd.h>

static uint64_t take(int fd)
{
	uint64_t value = 0;

	CHECK(read(fd, &value, 8) == 8);
	return value;
}

int main(void)
{
	int plain, empty, semaphore = -1, full = -1;
	uint64_t large = 0xfffffffffffffffeULL;

	MUST((plain = eventfd(5, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0 && eventfd_write(plain, 1000000) == 0);
	MUST((empty = eventfd(0, EFD_NONBLOCK)) >= 0);
	if (beyond_criu()) {
		MUST((semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK)) >= 0);
		MUST((full = eventfd(0, EFD_NONBLOCK)) >= 0 && write(full, &large, 8) == 8);
	}
	ready();
	CHECK_EQ(fcntl(plain, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(fcntl(plain, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(empty, F_GETFD), 0);
	CHECK_EQ(take(plain), 1000005);
	CHECK_EQ(read(empty, &large, 8), -1);
	if (beyond_criu()) {
		for (int i = 0; i < 3; i++)
			CHECK_EQ(take(semaphore), 1);
		CHECK_EQ(read(semaphore, &large, 8), -1);
		CHECK_EQ(write(full, &(uint64_t){ 1 }, 8), -1);
		CHECK_EQ(take(full), 0xfffffffffffffffeULL);
	}
	return verdict();
}
