/*
 * What every C program under test shares: it sets its objects up, says "ready", waits for a file "go" in its directory,
 * checks itself, and says PASS or FAIL with every check that did not hold.  tests/harness/target.py is the other side.
 */
#ifndef SELFCHECK_H
#define SELFCHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_int selfcheck_failures;

__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	if (write(STDERR_FILENO, line, length) != length)
		_exit(99);
}

/* A check from inside: what does not hold is written at once, and the verdict is FAIL. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		if (!(condition)) {                                                                                    \
			selfcheck_failures++;                                                                          \
			say("FAIL: line %d: %s (%s)", __LINE__, #condition, strerror(errno));                          \
		}                                                                                                      \
	} while (0)

#define CHECK_EQ(left, right)                                                                                          \
	do {                                                                                                           \
		long long is_ = (long long)(left), not_ = (long long)(right);                                          \
		if (is_ != not_) {                                                                                     \
			selfcheck_failures++;                                                                          \
			say("FAIL: line %d: %s is %lld (0x%llx), not %lld (0x%llx)", __LINE__, #left, is_, is_, not_, not_); \
		}                                                                                                      \
	} while (0)

/* Setting up: if this fails there is nothing to test. */
#define MUST(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			say("cannot set up: line %d: %s (%s)", __LINE__, #condition, strerror(errno));                 \
			_exit(2);                                                                                      \
		}                                                                                                      \
	} while (0)

__attribute__((unused)) static void unsupported(const char *what)
{
	say("unsupported: %s: %s", what, strerror(errno));
	_exit(3);
}

/* Whether to test also what CRIU cannot do. */
__attribute__((unused)) static int beyond_criu(void)
{
	return getenv("BEYOND_CRIU") != NULL;
}

__attribute__((unused)) static void sleep_ms(long milliseconds)
{
	struct timespec left = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

/* Says ready and polls for the file at `path`, relative to the present cwd and root. */
__attribute__((unused)) static void ready_until(const char *path)
{
	say("ready");
	for (;;) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd >= 0) {
			close(fd);
			return;
		}
		sleep_ms(3);
	}
}

__attribute__((unused)) static void ready(void)
{
	ready_until("go");
}

__attribute__((unused)) static int verdict(void)
{
	if (selfcheck_failures == 0)
		say("PASS");
	return selfcheck_failures != 0;
}

/* The first word after `key` in a /proc file of ours, or NULL. */
__attribute__((unused)) static const char *proc_field(const char *file, const char *key)
{
	static char text[65536];
	static _Thread_local char word[128];
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t size = 0, got;

	if (fd < 0)
		return NULL;
	while ((got = read(fd, text + size, sizeof(text) - 1 - size)) > 0)
		size += got;
	close(fd);
	text[size] = 0;
	char *at = strstr(text, key);
	if (at == NULL || sscanf(at + strlen(key), " %127s", word) != 1)
		return NULL;
	return word;
}

#endif
