/*
 * Unix sockets of one process: pairs, listeners with connections that are accepted and that wait, names, queues with
 * boundaries, half-shut and broken connections, options.  TYPE: stream, dgram or seqpacket.
 */
#include "unix.h"

static int type;

static void check_echo(int one, int other)
{
	check_sends(one, other, "ping");
	check_sends(other, one, "pong");
}

static int shut[2], closed[2], small[2], packed[2];

static void set_up_pairs(void)
{
	pair(type, packed);
	give(packed[0], "first");
	give(packed[0], "second");
	give(packed[1], "back");
	MUST(fcntl(packed[0], F_SETFL, O_RDWR | O_NONBLOCK) == 0 && fcntl(packed[1], F_SETFD, FD_CLOEXEC) == 0);
	pair(type, shut);
	give(shut[0], "last words");
	MUST(shutdown(shut[0], SHUT_WR) == 0);
	pair(type, closed);
	give(closed[1], "testament");
	MUST(close(closed[1]) == 0);
	pair(type, small);
}

static void check_pairs(void)
{
	char text[200];

	CHECK_EQ(fcntl(packed[0], F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(fcntl(packed[1], F_GETFL), O_RDWR);
	CHECK_EQ(fcntl(packed[1], F_GETFD), FD_CLOEXEC);
	if (type == SOCK_STREAM) {
		check_gets(packed[1], "firstsecond");
	} else {
		check_gets(packed[1], "first");
		check_gets(packed[1], "second");
	}
	check_gets(packed[0], "back");
	check_empty(packed[0]);
	check_empty(packed[1]);
	check_echo(packed[0], packed[1]);
	check_gets(shut[1], "last words");
	if (type != SOCK_DGRAM)
		CHECK_EQ(recv(shut[1], text, sizeof(text), MSG_DONTWAIT), 0);
	CHECK(send(shut[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check_sends(shut[1], shut[0], "still");
	check_gets(closed[0], "testament");
	if (type != SOCK_DGRAM)
		CHECK_EQ(recv(closed[0], text, sizeof(text), MSG_DONTWAIT), 0);
	CHECK_EQ(send(closed[0], "x", 1, MSG_NOSIGNAL), -1);
	int send_error = errno;
	if (type != SOCK_DGRAM || beyond_criu())
		CHECK_EQ(send_error, type == SOCK_DGRAM ? ECONNREFUSED : EPIPE);
	check_echo(small[0], small[1]);
}

/* A listener by a path, one by an abstract name; of each a connection that is accepted and two that wait. */
static struct server {
	struct sockaddr_un address;
	socklen_t size;
	int listener, client, accepted, waiting[2];
} servers[2];

static void set_up_server(struct server *server, const char *path, int backlog)
{
	server->size = set_name(&server->address, path);
	server->listener = socket(AF_UNIX, type, 0);
	MUST(bind(server->listener, (struct sockaddr *)&server->address, server->size) == 0);
	if (path[0] != '@')
		MUST(chmod(path, 0640) == 0);
	MUST(listen(server->listener, backlog) == 0);
	server->client = connected(type, &server->address, server->size);
	server->accepted = accept(server->listener, NULL, NULL);
	MUST(server->accepted >= 0);
	give(server->client, "to the server");
	give(server->accepted, "to the client");
	for (int i = 0; i < 2; i++)
		server->waiting[i] = connected(type, &server->address, server->size);
}

static void check_server(struct server *server)
{
	struct sockaddr_un got;
	socklen_t size = sizeof(got);
	int later;

	check_gets(server->accepted, "to the server");
	check_gets(server->client, "to the client");
	check_echo(server->accepted, server->client);
	if (beyond_criu()) {
		CHECK(getsockname(server->accepted, (struct sockaddr *)&got, &size) == 0 && size == server->size);
		CHECK(memcmp(&got, &server->address, size) == 0);
		size = sizeof(got);
		CHECK(getpeername(server->client, (struct sockaddr *)&got, &size) == 0 && size == server->size);
		CHECK(memcmp(&got, &server->address, size) == 0);
	}
	size = sizeof(got);
	CHECK(getsockname(server->listener, (struct sockaddr *)&got, &size) == 0 && size == server->size);
	CHECK(memcmp(&got, &server->address, size) == 0);
	for (int i = 0; i < 2; i++) {
		int end = accept(server->listener, NULL, NULL);

		CHECK(end >= 0);
		check_echo(end, server->waiting[i]);
		close(end);
	}
	MUST(fcntl(server->listener, F_SETFL, O_NONBLOCK) == 0);
	CHECK(accept(server->listener, NULL, NULL) == -1 && errno == EAGAIN);
	later = connected(type, &server->address, server->size);
	int end = accept(server->listener, NULL, NULL);
	CHECK(end >= 0);
	check_echo(later, end);
}

/* A datagram server with clients: named, without name, connected, not connected. */
static struct {
	struct sockaddr_un address, client_address;
	socklen_t size, client_size;
	int server, named, unnamed, loose;
} letters;

static void set_up_letters(void)
{
	letters.size = set_name(&letters.address, "letters");
	letters.client_size = set_name(&letters.client_address, "@client");
	letters.server = bound(type, &letters.address, letters.size);
	letters.named = bound(type, &letters.client_address, letters.client_size);
	MUST(connect(letters.named, (struct sockaddr *)&letters.address, letters.size) == 0);
	letters.unnamed = connected(type, &letters.address, letters.size);
	letters.loose = socket(AF_UNIX, type, 0);
	give(letters.unnamed, "anonymous");
	give(letters.named, "signed");
	MUST(sendto(letters.server, "answer", 6, 0, (struct sockaddr *)&letters.client_address, letters.client_size) == 6);
}

static void check_letters(void)
{
	struct sockaddr_un from;
	socklen_t size = sizeof(from);
	char text[100];

	check_gets(letters.server, "anonymous");
	CHECK_EQ(recvfrom(letters.server, text, sizeof(text), MSG_DONTWAIT, (struct sockaddr *)&from, &size), 6);
	if (beyond_criu()) {
		CHECK_EQ(size, letters.client_size);
		CHECK(memcmp(&from, &letters.client_address, size) == 0);
	}
	check_gets(letters.named, "answer");
	check_sends(letters.named, letters.server, "again");
	check_sends(letters.unnamed, letters.server, "again");
	CHECK_EQ(sendto(letters.loose, "loose", 5, 0, (struct sockaddr *)&letters.address, letters.size), 5);
	check_gets(letters.server, "loose");
	CHECK_EQ(sendto(letters.server, "answer", 6, 0, (struct sockaddr *)&letters.client_address, letters.client_size), 6);
	check_gets(letters.named, "answer");
}

/* Sockets that are nothing yet, or only have a name. */
static int fresh, named;

int main(void)
{
	const char *wanted = getenv("TYPE") != NULL ? getenv("TYPE") : "stream";
	struct sockaddr_un address, got;
	socklen_t length, got_length = sizeof(got);
	struct stat status;

	type = strcmp(wanted, "stream") == 0 ? SOCK_STREAM : strcmp(wanted, "dgram") == 0 ? SOCK_DGRAM : SOCK_SEQPACKET;
	umask(022);
	set_up_pairs();
	if (type == SOCK_DGRAM) {
		set_up_letters();
	} else {
		set_up_server(&servers[0], "server", 5);
		set_up_server(&servers[1], "@server", 1);
	}
	fresh = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);
	length = set_name(&address, "named");
	named = bound(type, &address, length);
	MUST(fresh >= 0 && chown("named", 7, 8) == 0);

	ready();
	check_pairs();
	if (type == SOCK_DGRAM) {
		check_letters();
	} else {
		check_server(&servers[0]);
		check_server(&servers[1]);
		CHECK(stat("server", &status) == 0 && status.st_mode == (S_IFSOCK | 0640));
	}
	CHECK_EQ(fcntl(fresh, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK(getpeername(fresh, (struct sockaddr *)&got, &got_length) == -1 && errno == ENOTCONN);
	got_length = sizeof(got);
	CHECK(getsockname(named, (struct sockaddr *)&got, &got_length) == 0 && got_length == length);
	CHECK(stat("named", &status) == 0 && status.st_mode == (S_IFSOCK | 0755) && status.st_uid == 7 && status.st_gid == 8);
	return verdict();
}
