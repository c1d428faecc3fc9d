/* Pipes: content, sizes, flags, packets, ends that are closed, a reader that waits. */
#include "selfcheck.h"
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

static int waiting[2];

static void *reader(void *unused)
{
	char byte = 0;

	(void)unused;
	CHECK(read(waiting[0], &byte, 1) == 1 && byte == 'w');
	return NULL;
}

static int queued(int fd)
{
	int count = -1;

	CHECK(ioctl(fd, FIONREAD, &count) == 0);
	return count;
}

int main(void)
{
	int small[2], large[2], packets[2], ended[2], broken[2];
	static char data[200000], got[200000];
	pthread_t thread;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + i / 251;
	MUST(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	MUST(pipe2(small, O_CLOEXEC) == 0 && write(small[1], "hello", 5) == 5 && fcntl(small[1], F_SETFL, O_NONBLOCK) == 0);
	MUST(pipe(large) == 0 && fcntl(large[0], F_SETPIPE_SZ, 1 << 18) == 1 << 18);
	MUST(write(large[1], data, sizeof(data)) == sizeof(data) && read(large[0], got, 100) == 100);
	MUST(pipe2(packets, beyond_criu() ? O_DIRECT : 0) == 0 && fcntl(packets[0], F_SETPIPE_SZ, 1 << 14) == 1 << 14);
	MUST(pipe(ended) == 0 && write(ended[1], "last", 4) == 4 && close(ended[1]) == 0);
	MUST(pipe(broken) == 0 && close(broken[0]) == 0);
	MUST(pipe(waiting) == 0 && pthread_create(&thread, NULL, reader, NULL) == 0);
	sleep_ms(20);

	ready();
	CHECK_EQ(queued(small[0]), 5);
	CHECK(read(small[0], got, 99) == 5 && memcmp(got, "hello", 5) == 0);
	CHECK_EQ(fcntl(small[0], F_GETFL), O_RDONLY);
	CHECK_EQ(fcntl(small[1], F_GETFL), O_WRONLY | O_NONBLOCK);
	CHECK_EQ(fcntl(small[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(large[0], F_GETPIPE_SZ), 1 << 18);
	CHECK_EQ(queued(large[0]), sizeof(data) - 100);
	size_t total = 0;
	for (ssize_t n; total < sizeof(data) - 100 && (n = read(large[0], got + total, sizeof(got) - total)) > 0;)
		total += n;
	CHECK(memcmp(got, data + 100, sizeof(data) - 100) == 0);
	CHECK(write(large[1], "z", 1) == 1 && read(large[0], got, 2) == 1 && got[0] == 'z');
	CHECK_EQ(fcntl(packets[0], F_GETPIPE_SZ), 1 << 14);
	CHECK_EQ(fcntl(packets[1], F_GETFL), O_WRONLY | (beyond_criu() ? O_DIRECT : 0));
	CHECK(write(packets[1], "one", 3) == 3 && write(packets[1], "two", 3) == 3 && read(packets[0], got, 99) == (beyond_criu() ? 3 : 6));
	CHECK(read(ended[0], got, 99) == 4 && read(ended[0], got, 99) == 0);
	errno = 0;
	CHECK_EQ(write(broken[1], "x", 1), -1);
	CHECK_EQ(errno, EPIPE);
	CHECK(write(waiting[1], "w", 1) == 1);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	return verdict();
}
