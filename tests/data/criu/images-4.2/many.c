/* What the images beside this file are of: two tasks and a zombie with one of many a kind of kernel object.
 * cc -O1 -static -s -o many many.c; run by setsid in an empty directory, dumped by criu 4.2.1 with
 *     --link-remap --file-locks --network-lock skip
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static char stack[8192] __attribute__((aligned(16)));

static int thread(void *unused) {
    for (;;)
        pause();
    return 0;
}

static void must(int holds) {
    if (!holds)
        _exit(1);
}

static void sockets(int right) {
    int stream[2], dgram[2];
    struct sockaddr_un name = {AF_UNIX, "named"}, abstract = {AF_UNIX, "\0abstract = \xff"};
    struct sockaddr_in local = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 local6 = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    must(!socketpair(AF_UNIX, SOCK_STREAM, 0, stream) && write(stream[0], "queued", 6) == 6);
    must(!socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram));
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr head;
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), &right, sizeof(int));
    struct iovec text = {"with rights", 11};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    must(sendmsg(dgram[0], &message, 0) == 11);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    must(!bind(listener, (void *)&name, sizeof(name)) && !listen(listener, 3));
    must(!bind(other, (void *)&abstract, 2 + 13) && !listen(other, 3));
    int tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET6, SOCK_DGRAM, 0);
    must(!bind(tcp, (void *)&local, sizeof(local)) && !listen(tcp, 5));
    must(!bind(udp, (void *)&local6, sizeof(local6)));
    must(socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
}

static void files(void) {
    must(!mkfifo("fifo", 0600));
    int fifo = open("fifo", O_RDWR), gone = open("gone", O_RDWR | O_CREAT, 0600);
    int sparse = open("sparse", O_RDWR | O_CREAT, 0600), locked = open("locked", O_WRONLY | O_CREAT | O_APPEND, 0600);
    must(write(fifo, "in the fifo", 11) == 11 && write(gone, "ghost", 5) == 5);
    must(pwrite(sparse, "start", 5, 0) == 5 && pwrite(sparse, "end", 3, 65536) == 3);
    must(!unlink("gone") && !unlink("sparse") && !flock(locked, LOCK_EX));
    int shared = memfd_create("shared", MFD_ALLOW_SEALING);
    must(!ftruncate(shared, 8192) && write(shared, "memory", 6) == 6 && !fcntl(shared, F_ADD_SEALS, F_SEAL_GROW));
    must(open(".", O_RDONLY | O_DIRECTORY) >= 0 && open("/dev/zero", O_RDONLY) >= 0);
    must(inotify_add_watch(inotify_init(), ".", IN_CREATE) > 0);
}

static void timers(void) {
    struct itimerval interval = {{3, 5}, {100000, 0}};
    struct itimerspec when = {{1, 2}, {100000, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    timer_t timer;
    must(!setitimer(ITIMER_REAL, &interval, 0) && !timer_create(CLOCK_MONOTONIC, &event, &timer));
    must(!timer_settime(timer, 0, &when, 0) && !timerfd_settime(timerfd_create(CLOCK_MONOTONIC, 0), 0, &when, 0));
}

int main(void) {
    int ends[2], count = eventfd(7, EFD_NONBLOCK), poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event what = {.events = EPOLLIN | EPOLLET, .data.u64 = 42};
    sigset_t mask;
    must(!pipe(ends) && write(ends[1], "in the pipe", 11) == 11 && !epoll_ctl(poll, EPOLL_CTL_ADD, count, &what));
    dup(ends[0]);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    must(!sigprocmask(SIG_BLOCK, &mask, 0) && signalfd(-1, &mask, 0) >= 0 && !raise(SIGUSR2));
    sockets(ends[0]);
    files();
    timers();
    if (!fork()) {
        setpgid(0, 0);
        for (;;)
            pause();
    }
    if (!fork())
        _exit(0x93);
    must(clone(thread, stack + sizeof(stack),
               CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, 0) > 0);
    must(close(open("ready", O_WRONLY | O_CREAT, 0600)) == 0);
    for (;;)
        pause();
}
