/*
 * Unix sockets of several processes: a server with a worker and clients that are other processes, pairs across a fork,
 * who everybody is to the others (SO_PEERCRED), and a descriptor on its way from one process to another.
 */
#include "tree.h"
#include "unix.h"
#include <sys/mman.h>

#define CLIENTS 3
#define CLIENT_USER 4321

/* How the processes know each other's sockets and pids, and what they found. */
static struct board {
	struct sockaddr_un address, letters;
	socklen_t size, letters_size;
	pid_t server, worker, clients[CLIENTS];
} *board;

static struct ucred peer_of(int fd)
{
	struct ucred creds = { -1, -1, -1 };
	socklen_t size = sizeof(creds);

	CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creds, &size) == 0);
	return creds;
}

#define CHECK_PEER(fd, pid_, uid_)                                                                                     \
	do {                                                                                                           \
		struct ucred creds_ = peer_of(fd);                                                                     \
		if (beyond_criu())                                                                                     \
			CHECK_EQ(creds_.pid, pid_);                                                                    \
		if (beyond_criu())                                                                                     \
			CHECK_EQ(creds_.uid, uid_);                                                                    \
	} while (0)

/* Blocks, for the others are processes of their own. */
static void expect_(int line, int fd, const char *text)
{
	char got[200];
	ssize_t length = recv(fd, got, sizeof(got), 0);

	if (length != (ssize_t)strlen(text) || memcmp(got, text, length) != 0) {
		selfcheck_failures++;
		say("FAIL: line %d: %s was not received, but %zd", line, text, length);
	}
}
#define expect(fd, text) expect_(__LINE__, fd, text)

static void client(void *argument)
{
	int number = (long)argument, fd, mail;

	MUST(setresgid(0, CLIENT_USER + number, 0) == 0);
	MUST(setresuid(0, CLIENT_USER + number, 0) == 0);
	fd = connected(SOCK_STREAM, &board->address, board->size);
	mail = connected(SOCK_DGRAM, &board->letters, board->letters_size);
	MUST(setresuid(0, 0, 0) == 0 && setresgid(0, 0, 0) == 0);
	if (number < CLIENTS - 1) /* the last one waits to be accepted */
		MUST(send(fd, "hello", 5, 0) == 5);
	MUST(send(mail, "letter", 6, 0) == 6);
	board->clients[number] = getpid();
	is_set_up();
	expect(fd, "welcome");
	CHECK_PEER(fd, board->server, 0);
	CHECK_EQ(send(mail, "later", 5, 0), 5);
	CHECK_EQ(send(fd, "bye", 3, 0), 3);
	expect(fd, "bye");
	close(fd);
	fd = connected(SOCK_STREAM, &board->address, board->size); /* to a listener that was restored */
	CHECK_PEER(fd, board->server, 0);
	expect(fd, "again");
}

static int job[2], result[2]; /* pairs between server and worker */

static void worker(void *unused)
{
	(void)unused;
	close(job[0]);
	is_set_up();
	expect(job[1], "job");
	CHECK_PEER(job[1], board->server, 0);
	CHECK_EQ(send(result[1], "result", 6, 0), 6);
	expect(result[1], "");
}

int main(void)
{
	int listener, mail, ends[CLIENTS];
	struct ucred peer;
	pid_t pids[CLIENTS], hand;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(board != MAP_FAILED);
	umask(0);
	board->size = set_name(&board->address, "server");
	board->letters_size = set_name(&board->letters, "letters");
	board->server = getpid();
	listener = bound(SOCK_STREAM, &board->address, board->size);
	mail = bound(SOCK_DGRAM, &board->letters, board->letters_size);
	MUST(listen(listener, 8) == 0);
	pair(SOCK_SEQPACKET, job);
	pair(SOCK_STREAM, result);
	tree_begins();
	hand = child(worker, NULL);
	board->worker = hand;
	close(job[1]);
	for (long i = 0; i < CLIENTS; i++) {
		pids[i] = child(client, (void *)i);
		while (*(volatile pid_t *)&board->clients[i] == 0)
			sleep_ms(1); /* in this order */
		if (i < CLIENTS - 1)
			MUST((ends[i] = accept(listener, NULL, NULL)) >= 0);
	}
	wait_set_up(CLIENTS + 1);
	ready();
	MUST((ends[CLIENTS - 1] = accept(listener, NULL, NULL)) >= 0);
	for (int i = 0; i < CLIENTS; i++) {
		peer = peer_of(ends[i]);
		if (beyond_criu()) {
			CHECK_EQ(peer.pid, board->clients[i]);
			if (i < CLIENTS - 1) { /* what the last one was, nobody can ask */
				CHECK_EQ(peer.uid, CLIENT_USER + i);
				CHECK_EQ(peer.gid, CLIENT_USER + i);
			}
		}
		if (i < CLIENTS - 1)
			expect(ends[i], "hello");
		expect(mail, "letter");
	}
	for (int i = 0; i < CLIENTS; i++) {
		CHECK_EQ(send(ends[i], "welcome", 7, 0), 7);
		expect(ends[i], "bye");
		expect(mail, "later");
		CHECK_EQ(send(ends[i], "bye", 3, 0), 3);
		int again = accept(listener, NULL, NULL);
		peer = peer_of(again);
		CHECK_EQ(peer.pid, board->clients[i]);
		CHECK_EQ(send(again, "again", 5, 0), 5);
		CHECK_ENDED_WELL(pids[i]);
	}
	CHECK_PEER(result[0], board->server, 0);
	CHECK_EQ(send(job[0], "job", 3, 0), 3);
	expect(result[0], "result");
	close(result[1]);
	CHECK_EQ(shutdown(result[0], SHUT_WR), 0);
	CHECK_ENDED_WELL(hand);
	check_no_child();
	return verdict();
}
