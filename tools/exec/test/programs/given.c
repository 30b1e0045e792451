/* argv[1]: a folder. A device of the test that gives files and takes descriptors: /dev/siov-test. The ioctls are those of test/given.test.ts. */
#include "queue.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { GIVE = 1, GIVE_IN = 2, TWO = 3, KIND = 4, TAKE = 5, SIGNAL = 6, OPEN = 7, DROP = 8, PUT = 9 };
enum { NONE, OURS, EVENTFD, OTHER };

static void nothing(int number) { (void)number; }
static void *reader(void *fd)
{
	char byte = 0;
	CHECK(read(*(int *)fd, &byte, 1) == 1);
	return (void *)(intptr_t)byte;
}

int main(int argc, char **argv)
{
	int fd = open("/dev/siov-test", O_RDWR), before = ioctl(fd, OPEN, 0);
	CHECK(fd >= 0 && before == 0);
	struct stat st;
	CHECK(stat("/dev/siov-test", &st) == 0 && S_ISCHR(st.st_mode));

	/* As the result: a real descriptor of that number, closed at exec, of no type, that can be called. */
	int given = ioctl(fd, GIVE, 0);
	CHECK(given > fd && fcntl(given, F_GETFD) == FD_CLOEXEC && fstat(given, &st) == 0 && st.st_mode == 0600);
	CHECK(ioctl(fd, OPEN, 0) == 1 && ioctl(given, KIND, fd) == OURS && ioctl(fd, KIND, given) == OURS);
	/* In a structure, beside the first. */
	int second = -1;
	CHECK(ioctl(fd, GIVE_IN, &second) == 0 && second > 0 && second != given && fcntl(second, F_GETFD) == FD_CLOEXEC);
	CHECK(ioctl(fd, OPEN, 0) == 2);
	/* It lives as long as any descriptor does, whatever its number. */
	int copy = dup(given);
	CHECK(copy >= 0 && close(given) == 0 && ioctl(fd, OPEN, 0) == 2 && ioctl(copy, KIND, second) == OURS);
	/* The driver's number and the program's are not confused: the place is another file's now. */
	CHECK(dup2(STDIN_FILENO, given) == given && ioctl(fd, KIND, given) == OTHER);
	CHECK(close(copy) == 0 && close(second) == 0 && ioctl(fd, OPEN, 0) == 0 && close(given) == 0);
	/* Where nothing is free, nothing is given and nothing stays open. */
	struct rlimit limit, small = {64, 0};
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	for (int i = 512; i < 900; i++)
		CHECK(dup2(STDIN_FILENO, i) == i);
	CHECK(ioctl(fd, GIVE, 0) == -1 && errno == EMFILE && ioctl(fd, OPEN, 0) == 0);
	for (int i = 512; i < 900; i++)
		close(i);
	small.rlim_max = limit.rlim_max;
	CHECK(setrlimit(RLIMIT_NOFILE, &small) == 0);
	given = ioctl(fd, GIVE, 0);
	CHECK(given > fd && given < 64 && close(given) == 0 && setrlimit(RLIMIT_NOFILE, &limit) == 0);
	CHECK(ioctl(fd, TWO, 0) == -1 && errno == EMFILE && ioctl(fd, OPEN, 0) == 0);

	/* What numbers are to a driver. */
	CHECK(ioctl(fd, KIND, fd) == OURS && ioctl(fd, KIND, STDIN_FILENO) == OTHER && ioctl(fd, KIND, -1) == NONE && ioctl(fd, KIND, 400) == NONE);
	CHECK(ioctl(fd, KIND, 0x7fffffff) == NONE && ioctl(fd, KIND, 1 << 30) == NONE && ioctl(fd, KIND, (1 << 30) + 1) == NONE);
	int pair[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && ioctl(fd, KIND, pair[0]) == OTHER);
	int path = open("/dev/null", O_PATH);
	CHECK(ioctl(fd, KIND, path) == OTHER);
	/* A file whose name says eventfd. */
	CHECK(argc == 2 && chdir(argv[1]) == 0);
	const char *name = "anon_inode:[eventfd]";
	int liar = open(name, O_CREAT | O_RDWR, 0600);
	CHECK(liar >= 0 && ioctl(fd, KIND, liar) == OTHER && unlink(name) == 0);

	/* Eventfds: signals arrive, also through a copy, and after the program's own descriptor went. */
	int event = eventfd(0, 0), twin = dup(event);
	uint64_t count = 0;
	CHECK(ioctl(fd, KIND, event) == EVENTFD && ioctl(fd, TAKE, event) == 0 && ioctl(fd, TAKE, twin) == 0);
	CHECK(close(event) == 0 && ioctl(fd, SIGNAL, 0) == 2);
	CHECK(read(twin, &count, sizeof count) == sizeof count && count == 2);
	/* A blocking one that is full, and one that does not block: nobody waits. */
	int full = eventfd(0, 0), nonblocking = eventfd(0, EFD_NONBLOCK);
	count = 0xfffffffffffffffe;
	CHECK(write(full, &count, sizeof count) == sizeof count && write(nonblocking, &count, sizeof count) == sizeof count);
	CHECK(ioctl(fd, TAKE, full) == 0 && ioctl(fd, TAKE, nonblocking) == 0);
	for (int i = 0; i < 200; i++)
		CHECK(ioctl(fd, SIGNAL, 0) == 4);
	CHECK(read(twin, &count, sizeof count) == sizeof count && count == 400);
	CHECK(read(full, &count, sizeof count) == sizeof count && count == ~0ull);
	/* Many, each only for the call: none of them stays behind when the file goes. */
	for (int i = 0; i < 3000; i++) {
		int each = eventfd(0, 0);
		int kind = ioctl(fd, KIND, each);
		CHECK(kind == EVENTFD || kind == NONE);
		close(each);
	}
	CHECK(ioctl(fd, DROP, 0) == 0 && ioctl(fd, SIGNAL, 0) == 0);

	/* A read waits without holding up other threads, and a signal ends it. */
	pthread_t thread;
	struct sigaction action = {.sa_handler = nothing};
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	CHECK(sigaction(SIGALRM, &action, NULL) == 0 && poll(&poller, 1, 10) == 0);
	CHECK(pthread_create(&thread, NULL, reader, &fd) == 0);
	usleep(30000);
	CHECK(ioctl(fd, KIND, fd) == OURS && ioctl(fd, PUT, 'x') == 0);
	void *got;
	CHECK(pthread_join(thread, &got) == 0 && got == (void *)'x');
	struct itimerval timer = {.it_value = {0, 50000}};
	char byte;
	CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0 && read(fd, &byte, 1) == -1 && errno == EINTR);
	CHECK(ioctl(fd, PUT, 'y') == 0 && poll(&poller, 1, 0) == 1 && poll(&poller, 1, 0) == 1 && poller.revents == POLLIN);
	CHECK(read(fd, &byte, 1) == 1 && byte == 'y' && poll(&poller, 1, 0) == 0);

	/* By fork, the child's own calls: files are known by their handles. */
	int parents = ioctl(fd, GIVE, 0);
	pid_t child = fork();
	if (child == 0) {
		CHECK(ioctl(fd, KIND, parents) == OURS && ioctl(parents, KIND, twin) == EVENTFD);
		int own = ioctl(parents, GIVE, 0);
		CHECK(own > 0 && own != parents && close(own) == 0);
		_exit(0);
	}
	CHECK(ended(child) == 0 && ioctl(fd, OPEN, 0) == 1);
	/* The rest ends with the program. */
	return 0;
}
