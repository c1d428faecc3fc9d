/*
 * /dev/console and a virtual console that nobody else has: opened by their names again, with their attributes.
 */
#include "selfcheck.h"
#include <linux/vt.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

static dev_t device(int fd)
{
	struct stat found;

	MUST(fstat(fd, &found) == 0);
	return found.st_rdev;
}

int main(void)
{
	struct termios was, now;
	int number = -1, current = open("/dev/tty0", O_WRONLY | O_NOCTTY);
	char name[32];

	if (current < 0 || ioctl(current, VT_OPENQRY, &number) != 0 || number <= 0)
		unsupported("a virtual console that is free");
	close(current);
	snprintf(name, sizeof(name), "/dev/tty%d", number);
	int screen = open(name, O_RDWR | O_NOCTTY), log = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK);
	if (screen < 0 || log < 0)
		unsupported("a virtual console and /dev/console");
	MUST(tcgetattr(screen, &was) == 0);
	was.c_lflag &= ~(ECHO | ICANON);
	was.c_cc[VMIN] = 3;
	MUST(tcsetattr(screen, TCSANOW, &was) == 0);

	ready();
	CHECK_EQ(device(screen), makedev(4, number));
	CHECK_EQ(device(log), makedev(5, 1));
	CHECK_EQ(fcntl(log, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	CHECK(tcgetattr(screen, &now) == 0);
	CHECK_EQ(now.c_lflag, was.c_lflag);
	CHECK_EQ(now.c_iflag, was.c_iflag);
	CHECK(memcmp(now.c_cc, was.c_cc, 19) == 0);
	CHECK_EQ(write(screen, "x", 1), 1);
	return verdict();
}
