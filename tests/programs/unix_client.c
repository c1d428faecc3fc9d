/*
 * A unix socket that is connected to ADDRESS ("@..." is abstract), where somebody else listens; TYPE is stream or dgram.
 * It is asked whether it can still send "ping" there; with CUT, whether it sees that nobody is there any more.
 */
#include "unix.h"

int main(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	MUST(getenv("ADDRESS") != NULL && strlen(getenv("ADDRESS")) < sizeof(address.sun_path));
	strcpy(address.sun_path, getenv("ADDRESS"));
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path);
	if (address.sun_path[0] == '@')
		address.sun_path[0] = 0;
	int is_stream = strcmp(getenv("TYPE"), "stream") == 0;
	fd = connected(is_stream ? SOCK_STREAM : SOCK_DGRAM, &address, length);
	ready();
	if (getenv("CUT") == NULL) {
		CHECK_EQ(send(fd, "ping", 4, MSG_NOSIGNAL | MSG_DONTWAIT), 4);
		return verdict();
	}
	char byte;
	if (is_stream)
		CHECK_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
	int error = send(fd, "ping", 4, MSG_NOSIGNAL | MSG_DONTWAIT) == -1 ? errno : 0;
	CHECK_EQ(error, is_stream ? EPIPE : ECONNREFUSED);
	return verdict();
}
