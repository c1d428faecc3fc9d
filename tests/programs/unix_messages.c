/*
 * Unix sockets with messages that hold more than bytes: files of several kinds, also such that nobody has open any more
 * and sockets with messages of their own; credentials.  And queues that are as long as they can be.
 */
#include "unix.h"
#include <sys/ioctl.h>

static void give_files(int fd, const char *text, int count, const int *files)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec part = { (void *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(head), files, count * sizeof(int));
	MUST(sendmsg(fd, &message, MSG_DONTWAIT) == (ssize_t)strlen(text));
}

/* Receives `text` and as many files; credentials if wanted. */
static void check_files_(int line, int fd, const char *text, int count, int *files, struct ucred *creds)
{
	char control[CMSG_SPACE(16 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))], got[1000];
	struct iovec part = { got, sizeof(got) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);
	int found = 0;

	if (length != (ssize_t)strlen(text) || memcmp(got, text, length) != 0) {
		selfcheck_failures++;
		say("FAIL: line %d: %s was not received, but %zd: %.*s", line, text, length, length < 0 ? 0 : (int)length, got);
	}
	for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); length >= 0 && head != NULL; head = CMSG_NXTHDR(&message, head)) {
		if (head->cmsg_type == SCM_RIGHTS) {
			found = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(files, CMSG_DATA(head), (found < count ? found : count) * sizeof(int));
		} else if (head->cmsg_type == SCM_CREDENTIALS && creds != NULL) {
			memcpy(creds, CMSG_DATA(head), sizeof(*creds));
		}
	}
	if (found != count) {
		selfcheck_failures++;
		say("FAIL: line %d: %d files instead of %d with %s", line, found, count, text);
	}
}
#define check_files(fd, text, count, files) check_files_(__LINE__, fd, text, count, files, NULL)

static int carrier[2], letters[2], inner[2], ring[2], tube[2], file, vouched[2], crowd[2], flood[2];

static void set_up_files(void)
{
	int files[4], nested[2];

	pair(SOCK_STREAM, carrier);
	pair(SOCK_DGRAM, letters);
	file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644);
	MUST(file >= 0 && write(file, "0123456789", 10) == 10 && lseek(file, 4, SEEK_SET) == 4);
	MUST(pipe(tube) == 0 && write(tube[1], "in the pipe", 11) == 11);
	pair(SOCK_STREAM, inner);
	pair(SOCK_SEQPACKET, nested);
	give(nested[0], "in the nested one");
	give_files(inner[0], "nested", 1, &nested[1]);
	files[0] = file, files[1] = tube[0], files[2] = inner[1];
	give_files(carrier[0], "three", 3, files);
	give(carrier[0], "plain");
	give_files(letters[0], "letter", 1, &file);
	give(letters[0], "plain");
	give_files(letters[0], "another", 1, &tube[1]);
	close(nested[1]); /* only in a message that is in a message */
	close(inner[1]);
	close(tube[0]);
	file = nested[0];
	/* Its own peer in its queue. */
	pair(SOCK_STREAM, ring);
	give_files(ring[0], "itself", 1, &ring[1]);
	give_files(ring[0], "other", 1, &ring[0]);
}

static void check_files_arrive(void)
{
	int files[4] = { -1, -1, -1, -1 }, again = -1, last = -1, nested = -1;
	char text[100];

	check_files(carrier[1], "three", 3, files);
	check_files(carrier[1], "plain", 0, NULL);
	check_files(letters[1], "letter", 1, &again);
	check_files(letters[1], "plain", 0, NULL);
	check_files(letters[1], "another", 1, &last);
	CHECK_EQ(lseek(files[0], 0, SEEK_CUR), 4);
	CHECK_EQ(lseek(files[0], 1, SEEK_CUR), 5);
	CHECK_EQ(lseek(again, 0, SEEK_CUR), 5); /* one open file description */
	CHECK(read(files[1], text, sizeof(text)) == 11 && memcmp(text, "in the pipe", 11) == 0);
	CHECK(write(last, "more", 4) == 4 && write(tube[1], "!", 1) == 1 && read(files[1], text, sizeof(text)) == 5);
	check_files(files[2], "nested", 1, &nested);
	check_gets(nested, "in the nested one");
	check_sends(file, nested, "ping");
	check_sends(nested, file, "pong");
	check_sends(inner[0], files[2], "ping");
	check_files(ring[1], "itself", 1, files);
	check_files(ring[1], "other", 1, files + 1);
	check_sends(files[1], files[0], "through copies");
}

static void set_up_credentials(void)
{
	int on = 1;

	pair(SOCK_DGRAM, vouched);
	MUST(setsockopt(vouched[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
	if (beyond_criu()) { /* CRIU refuses these messages */
		give(vouched[0], "as it is");
		MUST(setresuid(-1, 1234, -1) == 0);
		give(vouched[0], "as somebody else");
		MUST(setresuid(-1, 0, -1) == 0);
	}
}

static void check_credentials(void)
{
	struct ucred creds = { 0 };
	int on = 0;
	socklen_t size = sizeof(on);

	CHECK(getsockopt(vouched[1], SOL_SOCKET, SO_PASSCRED, &on, &size) == 0 && on == 1);
	if (beyond_criu()) {
		check_files_(__LINE__, vouched[1], "as it is", 0, NULL, &creds);
		CHECK_EQ(creds.pid, getpid());
		CHECK_EQ(creds.uid, 0);
		check_files_(__LINE__, vouched[1], "as somebody else", 0, NULL, &creds);
		CHECK_EQ(creds.pid, getpid());
		CHECK_EQ(creds.uid, getuid()); /* the kernel names the real one */
	}
	check_sends(vouched[0], vouched[1], "later");
	CHECK(getsockopt(letters[1], SOL_SOCKET, SO_PEEK_OFF, &on, &size) == 0 && on == -1);
}

#define MANY 200
static size_t flooded;
static int pairs[MANY][2];

static void set_up_queues(void)
{
	static char page[5000];
	ssize_t sent;

	for (int i = 0; i < MANY; i++)
		pair(SOCK_STREAM, pairs[i]);
	pair(SOCK_SEQPACKET, crowd);
	for (int i = 0; i < MANY; i++) {
		memset(page, i, sizeof(page));
		MUST(send(crowd[0], page, i % 7 * 10 + 1, MSG_DONTWAIT) == i % 7 * 10 + 1);
	}
	pair(SOCK_STREAM, flood);
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = i * 7;
	while ((sent = send(flood[0], page, sizeof(page), MSG_DONTWAIT)) > 0)
		flooded += sent;
	MUST(errno == EAGAIN);
}

static void check_queues(void)
{
	static char got[1 << 20];
	int length = 0;

	for (int i = 0; i < MANY; i++) {
		CHECK_EQ(recv(crowd[1], got, sizeof(got), MSG_DONTWAIT), i % 7 * 10 + 1);
		CHECK_EQ((unsigned char)got[0], i);
	}
	check_empty(crowd[1]);
	for (int i = 0; i < MANY; i++)
		check_sends(pairs[i][0], pairs[i][1], "to and fro");
	CHECK(ioctl(flood[1], FIONREAD, &length) == 0);
	CHECK_EQ(length, flooded);
	for (size_t at = 0; at < flooded;) {
		ssize_t part = recv(flood[1], got, 5000, MSG_DONTWAIT | MSG_WAITALL);

		CHECK(part > 0);
		if (part <= 0)
			break;
		for (ssize_t i = 0; i < part; i++)
			if (got[i] != (char)((at + i) % 5000 * 7)) {
				selfcheck_failures++;
				say("FAIL: byte %zu of %zu is %d", at + i, flooded, got[i]);
				return;
			}
		at += part;
	}
	check_sends(flood[0], flood[1], "free again");
}

int main(void)
{
	set_up_files();
	set_up_credentials();
	set_up_queues();
	ready();
	check_files_arrive();
	check_credentials();
	check_queues();
	return verdict();
}
