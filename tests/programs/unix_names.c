/* Names and options of unix sockets: relative and deleted paths, paths through links, abstract names, buffers, timeouts. */
#include "unix.h"
#include <linux/filter.h>
#include <sys/time.h>

#define FILTER_LENGTH 2

static void set(int fd, int option, int value)
{
	MUST(setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)) == 0);
}

static int get(int fd, int option)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -errno;
}

static void check_name_(int line, int fd, const struct sockaddr_un *address, socklen_t length)
{
	struct sockaddr_un got;
	socklen_t size = sizeof(got);

	if (getsockname(fd, (struct sockaddr *)&got, &size) != 0 || size != length || memcmp(&got, address, size) != 0) {
		selfcheck_failures++;
		say("FAIL: line %d: the name is %s", line, got.sun_path);
	}
}
#define check_name(fd, address, length) check_name_(__LINE__, fd, address, length)

int main(void)
{
	struct sockaddr_un relative, deleted, linked, odd, second;
	socklen_t relative_length, deleted_length, linked_length, odd_length, second_length;
	int moved, gone, through, strange, optioned[2], gone_server, friend;
	struct timeval wait = { 3, 250000 };
	struct timeval was; /* as the kernel has rounded it */
	struct linger linger = { 1, 9 };
	struct sock_filter code[FILTER_LENGTH] = { BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_RET | BPF_A, 0) };
	struct sock_fprog program = { FILTER_LENGTH, code };
	struct stat status;

	MUST(mkdir("directory", 0755) == 0 && symlink("directory", "link") == 0);
	relative_length = set_name(&relative, "./here");
	MUST(chdir("directory") == 0);
	moved = bound(SOCK_STREAM, &relative, relative_length);
	MUST(listen(moved, 7) == 0 && chdir("..") == 0); /* it stays where it was bound */
	linked_length = set_name(&linked, "link/socket");
	through = bound(SOCK_DGRAM, &linked, linked_length);
	deleted_length = set_name(&deleted, "deleted");
	gone = bound(SOCK_DGRAM, &deleted, deleted_length);
	friend = connected(SOCK_DGRAM, &deleted, deleted_length);
	MUST(unlink("deleted") == 0);
	second_length = set_name(&second, "second");
	gone_server = bound(SOCK_STREAM, &second, second_length);
	MUST(listen(gone_server, 3) == 0 && unlink("second") == 0);
	odd_length = set_name(&odd, "@odd");
	memcpy(odd.sun_path + odd_length - offsetof(struct sockaddr_un, sun_path), "\0z", 3); /* NUL inside and at the end */
	odd_length += 3;
	strange = bound(SOCK_SEQPACKET, &odd, odd_length);

	pair(SOCK_STREAM, optioned);
	set(optioned[0], SO_SNDBUF, 50000);
	set(optioned[0], SO_RCVBUF, 70000);
	set(optioned[0], SO_PRIORITY, 5);
	set(optioned[0], SO_RCVLOWAT, 3);
	set(optioned[0], SO_PASSSEC, 1);
	set(optioned[0], SO_KEEPALIVE, 1);
	MUST(setsockopt(optioned[0], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
	MUST(setsockopt(optioned[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	MUST(setsockopt(optioned[0], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0);
	if (beyond_criu()) {
		set(optioned[0], SO_PEEK_OFF, 2);
		set(optioned[0], SO_TIMESTAMP, 1);
	}
	give(optioned[1], "0123456");
	socklen_t size = sizeof(was);
	MUST(getsockopt(optioned[0], SOL_SOCKET, SO_RCVTIMEO, &was, &size) == 0 && was.tv_usec != 0);
	int send_size = get(optioned[0], SO_SNDBUF), receive_size = get(optioned[0], SO_RCVBUF);

	ready();
	check_name(moved, &relative, relative_length);
	check_name(through, &linked, linked_length);
	check_name(gone, &deleted, deleted_length);
	check_name(strange, &odd, odd_length);
	check_name(gone_server, &second, second_length);
	CHECK(stat("here", &status) == -1 && stat("directory/here", &status) == 0);
	CHECK(stat("deleted", &status) == -1 && stat("second", &status) == -1);
	check_sends(friend, gone, "still there");
	MUST(chdir("directory") == 0);
	int client = connected(SOCK_STREAM, &relative, relative_length);
	int end = accept(moved, NULL, NULL);
	check_sends(client, end, "relative");
	client = connected(SOCK_DGRAM, &linked, linked_length);
	check_sends(client, through, "by a link");

	CHECK_EQ(get(optioned[0], SO_SNDBUF), send_size);
	CHECK_EQ(get(optioned[0], SO_RCVBUF), receive_size);
	CHECK_EQ(get(optioned[0], SO_PRIORITY), 5);
	CHECK_EQ(get(optioned[0], SO_RCVLOWAT), 3);
	CHECK_EQ(get(optioned[0], SO_PASSSEC), 1);
	CHECK_EQ(get(optioned[0], SO_KEEPALIVE), 1);
	CHECK_EQ(get(optioned[1], SO_KEEPALIVE), 0);
	size = sizeof(wait);
	CHECK(getsockopt(optioned[0], SOL_SOCKET, SO_RCVTIMEO, &wait, &size) == 0 && wait.tv_sec == 3 && wait.tv_usec == was.tv_usec);
	size = sizeof(wait);
	CHECK(getsockopt(optioned[0], SOL_SOCKET, SO_SNDTIMEO, &wait, &size) == 0 && wait.tv_sec == 0 && wait.tv_usec == 0);
	size = sizeof(linger);
	CHECK(getsockopt(optioned[0], SOL_SOCKET, SO_LINGER, &linger, &size) == 0 && linger.l_onoff == 1 && linger.l_linger == 9);
	size = FILTER_LENGTH;
	CHECK(getsockopt(optioned[0], SOL_SOCKET, SO_GET_FILTER, code, &size) == 0 && size == FILTER_LENGTH);
	CHECK(code[0].code == (BPF_LD | BPF_W | BPF_LEN) && code[1].code == (BPF_RET | BPF_A));
	if (beyond_criu()) {
		CHECK_EQ(get(optioned[0], SO_PEEK_OFF), 2);
		CHECK_EQ(get(optioned[0], SO_TIMESTAMP), 1);
		set(optioned[0], SO_PEEK_OFF, -1);
		set(optioned[0], SO_TIMESTAMP, 0);
	}
	check_gets(optioned[0], "0123456");
	return verdict();
}
