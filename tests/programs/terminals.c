/*
 * Pairs of pseudo terminals in one process, each in a state of its own: packet mode, a lock, attributes, several
 * descriptions of a slave; and what CRIU does not give back: exclusive mode, content as it was, ends of file that were
 * typed, output that was stopped, ends that were closed.
 */
#include "selfcheck.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

struct pair {
	int master, slave;
};

static struct pair plain, packets, locked, exclusive, lines, stopped, full, closed, unopened, gone, reused;
static int other; /* another description of the slave of `plain` */
static char typed[8192], printed[8192];
static int nr_typed, nr_printed;

static int number_of(int master)
{
	int number = -1;

	MUST(ioctl(master, TIOCGPTN, &number) == 0);
	return number;
}

static int open_master(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);

	MUST(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	return master;
}

static struct pair open_pair(void)
{
	struct pair pair = { .master = open_master() };

	MUST((pair.slave = open(ptsname(pair.master), O_RDWR | O_NOCTTY)) >= 0);
	return pair;
}

static struct termios attributes(int fd)
{
	struct termios now;

	MUST(tcgetattr(fd, &now) == 0);
	return now;
}

static void raw(struct pair pair)
{
	struct termios now = attributes(pair.slave);

	cfmakeraw(&now);
	MUST(tcsetattr(pair.slave, TCSANOW, &now) == 0);
}

static short events(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN | POLLOUT };

	MUST(poll(&poller, 1, 0) >= 0);
	return poller.revents;
}

static void gives(int fd, const char *expected, int length)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	static char got[65536];
	int have = 0;

	while (have < length && poll(&readable, 1, 10000) == 1) {
		ssize_t more = read(fd, got + have, length - have);

		if (more <= 0)
			break;
		have += more;
	}
	CHECK_EQ(have, length);
	CHECK(have == length && memcmp(got, expected, length) == 0);
}

/* One read, as long as it has to be. */
static void reads(int fd, const char *expected)
{
	char got[256];
	struct pollfd readable = { .fd = fd, .events = POLLIN };

	CHECK_EQ(poll(&readable, 1, 10000), 1);
	CHECK_EQ(read(fd, got, sizeof(got)), strlen(expected));
	CHECK(memcmp(got, expected, strlen(expected)) == 0);
}

static int fill(int fd, char *content, int size)
{
	int done = 0;

	for (int i = 0; i < size; i++)
		content[i] = 'a' + i * 7 % 26;
	while (done < size) {
		ssize_t got = write(fd, content + done, size - done < 512 ? size - done : 512);

		MUST(got > 0);
		done += got;
	}
	return done;
}

static void make_content(void)
{
	const char *keys = "one\n\4two\4thr\26\4ee\nfour"; /* with ends of file, one of them quoted */
	struct termios now;

	lines = open_pair();
	MUST(write(lines.master, keys, strlen(keys)) == (ssize_t)strlen(keys));
	stopped = open_pair();
	raw(stopped);
	now = attributes(stopped.slave);
	now.c_iflag |= IXON;
	MUST(tcsetattr(stopped.slave, TCSANOW, &now) == 0);
	MUST(write(stopped.slave, "before", 6) == 6 && write(stopped.master, "\23", 1) == 1);
	while (events(stopped.slave) & POLLOUT)
		sleep_ms(1);
	full = open_pair();
	raw(full);
	nr_typed = fill(full.master, typed, sizeof(typed));
	nr_printed = fill(full.slave, printed, sizeof(printed));
	closed = open_pair();
	MUST(write(closed.slave, "last words\n", 11) == 11 && close(closed.slave) == 0);
	unopened.master = open_master();
	gone = open_pair();
	MUST(close(gone.master) == 0);
	reused = open_pair(); /* the kernel gives the lowest number */
}

static void check_content(void)
{
	char byte;

	reads(lines.slave, "one\n");
	reads(lines.slave, "");
	reads(lines.slave, "two");
	reads(lines.slave, "thr\4ee\n");
	CHECK(!(events(lines.slave) & POLLIN));
	CHECK_EQ(write(lines.master, "\n", 1), 1);
	reads(lines.slave, "four\n");
	CHECK(!(events(stopped.slave) & POLLOUT));
	gives(stopped.master, "before", 6);
	CHECK(!(events(stopped.slave) & POLLOUT));
	CHECK_EQ(write(stopped.master, "\21", 1), 1);
	for (int i = 0; i < 1000 && !(events(stopped.slave) & POLLOUT); i++)
		sleep_ms(10);
	CHECK_EQ(write(stopped.slave, "after", 5), 5);
	gives(stopped.master, "after", 5);
	gives(full.slave, typed, nr_typed);
	gives(full.master, printed, nr_printed);
	CHECK(!(events(full.slave) & POLLIN) && !(events(full.master) & POLLIN));
	CHECK(events(closed.master) & POLLHUP);
	gives(closed.master, "last words\r\n", 12);
	CHECK(read(closed.master, &byte, 1) == -1 && errno == EIO);
	CHECK(!(events(unopened.master) & (POLLHUP | POLLIN)));
	int late = open(ptsname(unopened.master), O_RDWR | O_NOCTTY);
	CHECK(late >= 0 && write(late, "x", 1) == 1);
	gives(unopened.master, "x", 1);
	CHECK_EQ(read(gone.slave, &byte, 1), 0);
	CHECK(write(gone.slave, "x", 1) == -1 && errno == EIO);
	CHECK_EQ(write(reused.slave, "x", 1), 1);
	gives(reused.master, "x", 1);
}

int main(void)
{
	struct winsize size = { 10, 20, 30, 40 }, now_size;
	struct termios was, now, held = { .c_lflag = ECHO };
	int on = 1, answer, numbers[4];

	plain = open_pair();
	was = attributes(plain.slave);
	was.c_iflag = IGNBRK | ICRNL;
	was.c_oflag = OPOST;
	was.c_lflag = ICANON | ECHO;
	was.c_cc[VTIME] = 7;
	was.c_cc[VKILL] = 'k';
	MUST(tcsetattr(plain.slave, TCSANOW, &was) == 0 && ioctl(plain.slave, TIOCSWINSZ, &size) == 0);
	was = attributes(plain.slave);
	if (ioctl(plain.slave, TIOCSLCKTRMIOS, &held) != 0)
		unsupported("TIOCSLCKTRMIOS");
	MUST((other = open(ptsname(plain.master), O_WRONLY | O_NOCTTY | O_NONBLOCK)) >= 0);
	MUST(fcntl(plain.master, F_SETFL, O_NONBLOCK) == 0 && fcntl(plain.slave, F_SETFD, FD_CLOEXEC) == 0);
	packets = open_pair();
	MUST(ioctl(packets.master, TIOCPKT, &on) == 0);
	locked = open_pair();
	MUST(ioctl(locked.master, TIOCSPTLCK, &on) == 0);
	exclusive = open_pair();
	if (beyond_criu())
		MUST(ioctl(exclusive.slave, TIOCEXCL) == 0);
	struct pair *pairs[] = { &plain, &packets, &locked, &exclusive };
	for (int i = 0; i < 4; i++)
		numbers[i] = number_of(pairs[i]->master);
	if (beyond_criu()) {
		make_content();
		MUST(write(packets.slave, "packet", 6) == 6);
	}

	ready();
	for (int i = 0; i < 4; i++)
		CHECK_EQ(number_of(pairs[i]->master), numbers[i]);
	now = attributes(plain.slave);
	CHECK_EQ(now.c_iflag, was.c_iflag);
	CHECK_EQ(now.c_oflag, was.c_oflag);
	CHECK_EQ(now.c_lflag, was.c_lflag);
	CHECK_EQ(now.c_cflag, was.c_cflag);
	CHECK(memcmp(now.c_cc, was.c_cc, 19) == 0);
	CHECK(ioctl(plain.master, TIOCGWINSZ, &now_size) == 0 && memcmp(&size, &now_size, sizeof(size)) == 0);
	CHECK(ioctl(plain.slave, TIOCGLCKTRMIOS, &held) == 0);
	CHECK_EQ(held.c_lflag, ECHO);
	CHECK_EQ(fcntl(other, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	CHECK_EQ(fcntl(plain.slave, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
	CHECK_EQ(fcntl(plain.slave, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(plain.master, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	CHECK_EQ(write(plain.slave, "xy", 2), 2);
	gives(plain.master, "xy", 2);
	CHECK(ioctl(packets.master, TIOCGPKT, &answer) == 0);
	CHECK_EQ(answer, 1);
	if (beyond_criu())
		gives(packets.master, "\0packet", 7);
	CHECK_EQ(write(packets.slave, "p", 1), 1);
	gives(packets.master, "\0p", 2);
	CHECK(ioctl(locked.master, TIOCGPTLCK, &answer) == 0);
	CHECK_EQ(answer, 1);
	CHECK(open(ptsname(locked.master), O_RDWR | O_NOCTTY) == -1 && errno == EIO);
	CHECK(ioctl(exclusive.slave, TIOCGEXCL, &answer) == 0);
	CHECK_EQ(answer, beyond_criu());
	if (beyond_criu())
		check_content();
	return verdict();
}
