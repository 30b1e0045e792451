/* dup, SCM_RIGHTS, CLOEXEC: an open file is one however many descriptors there are, and belongs to its opener's address space. */
#include "queue.h"
#include <poll.h>
#include <sys/ioctl.h>

static void pass(int over, int fd)
{
	char room[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
	struct iovec part = {&byte, 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	*head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
	memcpy(CMSG_DATA(head), &fd, sizeof fd);
	CHECK(sendmsg(over, &message, 0) == 1);
}
static int taken(int over)
{
	char room[CMSG_SPACE(sizeof(int))], byte;
	int fd;
	struct iovec part = {&byte, 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	CHECK(recvmsg(over, &message, 0) == 1 && CMSG_FIRSTHDR(&message));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	return fd;
}

int main(int argc, char **argv)
{
	struct dsa_hw_desc nothing = {0};
	if (argc > 1) {
		/* After exec: the file lives on, its address space does not. */
		int fd = atoi(argv[1]), cloexec = atoi(argv[2]);
		CHECK(fcntl(cloexec, F_GETFD) == -1 && errno == EBADF);
		CHECK(portal_of(fd) == MAP_FAILED && errno == EPERM);
		CHECK(write(fd, &nothing, sizeof nothing) == -1 && errno == EPERM);
		CHECK(open(DEDICATED, O_RDWR) == -1 && errno == EBUSY);
		CHECK(close(fd) == 0);
		CHECK(copies(portal_at(DEDICATED), 0) == 1 && copies(portal_at(SHARED), 1) == 1);
		return 0;
	}
	/* Closed by one number, used by another. */
	int fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0);
	int again = dup(fd), third = fcntl(fd, F_DUPFD_CLOEXEC, 50), fourth = dup2(fd, 60);
	CHECK(again >= 0 && third >= 50 && fourth == 60);
	CHECK(close(fd) == 0 && close(again) == 0 && close(fourth) == 0);
	void *portal = portal_of(third);
	CHECK(portal != MAP_FAILED && copies(portal, 0) == 1);
	CHECK(open(DEDICATED, O_RDWR) == -1 && errno == EBUSY);
	CHECK(close(third) == 0);
	CHECK(copies(portal, 0) == 1); /* the mapping holds the file */
	CHECK(open(DEDICATED, O_RDWR) == -1 && errno == EBUSY);
	CHECK(munmap(portal, 4096) == 0);
	fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0);
	/* What dup2 lands on is closed. */
	int other = open("/dev/null", O_RDWR);
	CHECK(dup2(other, fd) == fd);
	fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0 && dup3(other, fd, O_CLOEXEC) == fd);
	CHECK(copies(portal_at(SHARED), 1) == 1);

	/* Calls that the device does not have. */
	char text[64];
	fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0);
	CHECK(read(fd, text, sizeof text) == -1 && errno == EINVAL);
	CHECK(ioctl(fd, 0x1234, text) == -1 && errno == ENOTTY);
	CHECK(close(fd) == 0);
	CHECK(read(fd, text, 1) == -1 && errno == EBADF);
	CHECK(open("/dev/dsa/wq0.7", O_RDWR) == -1 && errno == ENOENT);
	CHECK(open("/dev/dsa", O_RDWR) == -1 && errno == EISDIR);

	/* To another process. */
	int pair[2], how;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	pid_t child = fork();
	if (child == 0) {
		struct stat st;
		struct pollfd poller = {.events = POLLIN};
		close(pair[0]);
		int got = taken(pair[1]);
		CHECK(fstat(got, &st) == 0 && S_ISCHR(st.st_mode));
		CHECK(portal_of(got) == MAP_FAILED && errno == EPERM);
		CHECK(write(got, &nothing, sizeof nothing) == -1 && errno == EPERM);
		poller.fd = got;
		(void)poller;
		CHECK(write(pair[1], "x", 1) == 1 && read(pair[1], text, 1) == 1);
		CHECK(copies(portal_at(SHARED), 1) == 1);
		_exit(0);
	}
	close(pair[1]);
	fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0);
	pass(pair[0], fd);
	CHECK(close(fd) == 0 && read(pair[0], text, 1) == 1);
	CHECK(open(DEDICATED, O_RDWR) == -1 && errno == EBUSY); /* the child has it */
	CHECK(write(pair[0], "x", 1) == 1);
	how = ended(child);
	CHECK(how == 0);
	fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0);

	int cloexec = open(SHARED, O_RDWR | O_CLOEXEC);
	char a[16], b[16];
	snprintf(a, sizeof a, "%d", fd);
	snprintf(b, sizeof b, "%d", cloexec);
	void *mapped = portal_of(cloexec);
	CHECK(mapped != MAP_FAILED && copies(mapped, 1) == 1);
	execl(argv[0], argv[0], a, b, NULL);
	return 1;
}
