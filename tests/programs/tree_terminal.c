/*
 * A terminal with both ends in the tree, as a terminal emulator has it.  The root has the master; its child leads the
 * session of the slave, with a job in the foreground and another in the background.  All of it has to be there again:
 * who is in control, attributes and size, what was typed and printed and nobody has read, signals by keys.
 */
#include "tree.h"
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

static int master, slave = -1;
static pid_t shell, job, background, loner;
static struct termios attributes;
static struct winsize size = { 33, 101, 7, 9 };
static volatile sig_atomic_t interrupts, changes;

static void on_signal(int number)
{
	if (number == SIGINT)
		interrupts++;
	else
		changes++;
}

static int terminal_number(int fd)
{
	int number = -1;

	CHECK(ioctl(fd, TIOCGPTN, &number) == 0);
	return number;
}

/* What comes next from `fd` is `expected`. */
static void gives(int fd, const char *expected)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	size_t length = strlen(expected), have = 0;
	char got[8192] = "";

	while (have < length && poll(&readable, 1, 10000) == 1) {
		ssize_t more = read(fd, got + have, length - have);

		if (more <= 0)
			break;
		have += more;
	}
	CHECK_EQ(have, length);
	CHECK(memcmp(got, expected, length) == 0);
	if (have != length || memcmp(got, expected, length) != 0)
		say("got \"%.100s\"", got);
}

static int is_silent(int fd)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };

	return poll(&readable, 1, 0) == 0;
}

static void catch_signals(void)
{
	signal(SIGINT, on_signal);
	signal(SIGWINCH, on_signal);
}

static void in_job(void *unused)
{
	(void)unused;
	MUST(setpgid(0, 0) == 0);
	catch_signals();
	is_set_up();

	until("job");
	if (beyond_criu())
		gives(slave, "typed\n");
	CHECK(is_silent(slave));
	did("job");
	until("job again");
	gives(slave, beyond_criu() ? "half line\n" : " line\n");
	if (beyond_criu()) {
		CHECK_EQ(tcgetpgrp(slave), getpid());
		CHECK_EQ(tcgetsid(slave), getsid(0));
	}
	CHECK_EQ(interrupts, 0);
	CHECK_EQ(changes, 0);
	did("job again");
	until("interrupt");
	while (interrupts == 0)
		sleep_ms(3);
	did("interrupt");
	until("size");
	while (changes == 0)
		sleep_ms(3);
	did("size");
}

static void in_background(void *unused)
{
	(void)unused;
	MUST(setpgid(0, 0) == 0);
	catch_signals();
	is_set_up();
	until("background");
	CHECK_EQ(interrupts, 0);
	CHECK_EQ(changes, 0);
	if (beyond_criu()) {
		int tty = open("/dev/tty", O_RDWR);

		CHECK(tty >= 0);
		CHECK_EQ(tcgetsid(tty), getsid(0));
	}
}

/* In the session, but not at its terminal any more. */
static void in_loner(void *unused)
{
	(void)unused;
	if (beyond_criu())
		MUST(ioctl(slave, TIOCNOTTY) == 0);
	is_set_up();
	until("background");
	if (beyond_criu())
		CHECK(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO);
}

static void in_shell(void *unused)
{
	int tty;

	(void)unused;
	MUST(setsid() == getpid());
	if (slave < 0)
		MUST((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
	MUST(ioctl(slave, TIOCSCTTY, 0) == 0);
	if (beyond_criu())
		MUST(write(slave, "printed\n", 8) == 8);
	close(master);
	MUST((tty = beyond_criu() ? open("/dev/tty", O_RDWR) : dup(slave)) >= 0 && fcntl(tty, F_DUPFD_CLOEXEC, 255) == 255 && close(tty) == 0);
	catch_signals();
	signal(SIGTTOU, SIG_IGN);
	job = child(in_job, NULL);
	background = child(in_background, NULL);
	loner = child(in_loner, NULL);
	MUST(setpgid(job, job) == 0 || errno == EACCES);
	MUST(tcsetpgrp(slave, job) == 0);
	is_set_up();

	until("shell");
	CHECK_EQ(tcgetsid(slave), getpid());
	CHECK_EQ(tcgetpgrp(slave), job);
	CHECK_EQ(tcgetpgrp(255), job);
	CHECK_EQ(fcntl(255, F_GETFD), FD_CLOEXEC);
	did("shell");
	until("shell again");
	CHECK_EQ(interrupts, 0);
	CHECK_ENDED_WELL(job);
	CHECK(tcsetpgrp(255, getpgrp()) == 0);
	CHECK_EQ(tcgetpgrp(slave), getpgrp());
	did("shell again");
	CHECK_ENDED_WELL(background);
	CHECK_ENDED_WELL(loner);
}

static void make_terminal(void)
{
	MUST((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	if (beyond_criu()) /* which knows the session of a terminal only by a descriptor of who belongs to it */
		MUST((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
	MUST(tcgetattr(master, &attributes) == 0); /* those of the slave */
	attributes.c_cc[VINTR] = 5; /* Ctrl-E */
	attributes.c_cc[VERASE] = 8;
	attributes.c_iflag |= IUTF8 | IXANY;
	attributes.c_lflag &= ~ECHOK;
	MUST(cfsetspeed(&attributes, B9600) == 0 && tcsetattr(master, TCSANOW, &attributes) == 0);
	MUST(tcgetattr(master, &attributes) == 0);
	MUST(ioctl(master, TIOCSWINSZ, &size) == 0);
}

static void check_terminal(int number)
{
	struct termios now;
	struct winsize is;

	CHECK_EQ(terminal_number(master), number);
	CHECK(tcgetattr(master, &now) == 0);
	CHECK_EQ(now.c_iflag, attributes.c_iflag);
	CHECK_EQ(now.c_oflag, attributes.c_oflag);
	CHECK_EQ(now.c_cflag, attributes.c_cflag);
	CHECK_EQ(now.c_lflag, attributes.c_lflag);
	CHECK(memcmp(now.c_cc, attributes.c_cc, 19) == 0);
	CHECK(ioctl(master, TIOCGWINSZ, &is) == 0 && memcmp(&is, &size, sizeof(is)) == 0);
}

int main(void)
{
	tree_begins();
	make_terminal();
	int number = terminal_number(master);

	if (beyond_criu()) {
		MUST(write(master, "typed\nhalf", 10) == 10);
		gives(master, "typed\r\nhalf"); /* the echo */
	}
	catch_signals();
	shell = child(in_shell, NULL);
	wait_set_up(4);

	ready();
	check_terminal(number);
	if (beyond_criu())
		gives(master, "printed\r\n");
	CHECK(is_silent(master));
	let("job");
	CHECK_EQ(write(master, " line\n", 6), 6);
	gives(master, " line\r\n");
	let("job again");
	let("shell");
	announce("interrupt");
	CHECK_EQ(write(master, "\5", 1), 1);
	let("interrupt");
	gives(master, "^E");
	size.ws_row = 44;
	CHECK(ioctl(master, TIOCSWINSZ, &size) == 0);
	let("size");
	let("shell again");
	announce("background");
	CHECK_ENDED_WELL(shell);
	CHECK_EQ(interrupts, 0);
	CHECK_EQ(changes, 0);
	check_no_child();
	return verdict();
}
