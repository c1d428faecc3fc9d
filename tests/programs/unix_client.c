/*
 * A unix socket that is connected to ADDRESS, where somebody else listens; TYPE is stream or dgram.  It is asked whether
 * it can still send "ping" there.
 */
#include "unix.h"

int main(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	MUST(getenv("ADDRESS") != NULL && strlen(getenv("ADDRESS")) < sizeof(address.sun_path));
	strcpy(address.sun_path, getenv("ADDRESS"));
	fd = connected(strcmp(getenv("TYPE"), "dgram") == 0 ? SOCK_DGRAM : SOCK_STREAM, &address, sizeof(address));
	ready();
	CHECK_EQ(send(fd, "ping", 4, MSG_NOSIGNAL | MSG_DONTWAIT), 4);
	return verdict();
}
