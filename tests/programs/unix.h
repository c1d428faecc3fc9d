/* What programs with unix sockets share. */
#ifndef UNIX_H
#define UNIX_H

#include "selfcheck.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

__attribute__((unused)) static void pair(int type, int ends[2])
{
	MUST(socketpair(AF_UNIX, type, 0, ends) == 0);
}

/*
 * "@name" is abstract, and made unique by the pid, which stays; a path that is not absolute becomes so, unless it begins
 * with "./".
 */
__attribute__((unused)) static socklen_t set_name(struct sockaddr_un *address, const char *name)
{
	char where[sizeof(address->sun_path)];
	int length;

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (name[0] == '@') {
		length = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "criupy-%d-%s", getpid(), name + 1);
		return offsetof(struct sockaddr_un, sun_path) + 1 + length;
	}
	if (strncmp(name, "./", 2) == 0) {
		name += 2;
		length = snprintf(address->sun_path, sizeof(address->sun_path), "%s", name);
	} else {
		MUST(getcwd(where, sizeof(where)) != NULL);
		length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s", where, name);
	}
	MUST(length < (int)sizeof(address->sun_path));
	return offsetof(struct sockaddr_un, sun_path) + 1 + length;
}

__attribute__((unused)) static int bound(int type, const struct sockaddr_un *address, socklen_t length)
{
	int fd = socket(AF_UNIX, type, 0);

	MUST(fd >= 0 && bind(fd, (const struct sockaddr *)address, length) == 0);
	return fd;
}

__attribute__((unused)) static int connected(int type, const struct sockaddr_un *address, socklen_t length)
{
	int fd = socket(AF_UNIX, type, 0);

	MUST(fd >= 0 && connect(fd, (const struct sockaddr *)address, length) == 0);
	return fd;
}

__attribute__((unused)) static void give(int fd, const char *text)
{
	MUST(send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

#define check_gets(fd, text) check_gets_(__LINE__, fd, text)
#define check_empty(fd) check_empty_(__LINE__, fd)
#define check_sends(from, to, text)                                                                                    \
	do {                                                                                                           \
		CHECK_EQ(send(from, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL), strlen(text));                   \
		check_gets(to, text);                                                                                  \
	} while (0)

__attribute__((unused)) static void check_gets_(int line, int fd, const char *text)
{
	char got[4096];
	ssize_t length = recv(fd, got, sizeof(got), MSG_DONTWAIT);

	if (length != (ssize_t)strlen(text) || memcmp(got, text, length) != 0) {
		selfcheck_failures++;
		say("FAIL: line %d: %s was not received, but %zd (%s): %.*s", line, text, length, length < 0 ? strerror(errno) : "",
		    length < 0 ? 0 : (int)length, got);
	}
}

__attribute__((unused)) static void check_empty_(int line, int fd)
{
	char byte;
	ssize_t length = recv(fd, &byte, 1, MSG_DONTWAIT);

	if (length != -1 || errno != EAGAIN) {
		selfcheck_failures++;
		say("FAIL: line %d: something was received: %zd", line, length);
	}
}

#endif
