/*
 * The preload shim of siov exec. It carries system calls on files below the overlay, and stores to mapped device pages, to a server. It
 * knows no ioctl, no register and no descriptor. One address space has one connection and one ring; a child of fork makes its own.
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "wire.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#define EXPORT __attribute__((visibility("default")))
#define REAL(name) ((__typeof__(&name))real(&(static_##name), #name))
#define DECLARE(name) static void *static_##name

static void *real(void **at, const char *name)
{
	if (!*at)
		*at = dlsym(RTLD_NEXT, name);
	return *at;
}

/* ---- system calls that nobody interposes and that leave errno alone */

static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}
#define SYS(n, a, b, c, d, e, f) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
static long answer(long result)
{
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

/* ---- what this address space has; zero again in a child of fork, which has another */

struct region {
	uintptr_t start, length;
	uint32_t number;
};
struct space {
	int lock, connected, socket;
	struct siov_ring *ring;
	struct region regions[SIOV_REGIONS];
};
static struct space *space;
static int ready;	       /* the overlay is there */
static int handles;	       /* this process may have handles */
static int inside;	       /* a directory of the overlay may be the current one, or open */
static int last_socket = -1;   /* for a child, to close its parent's */
static char root[PATH_MAX], token[64], opaque[16][64];
static size_t root_length;
static int opaques;
static struct sigaction chained[3];
static const int trapped[3] = {SIGILL, SIGSEGV, SIGBUS};
static void trap(int, siginfo_t *, void *);
static int handle_of(int fd, uint64_t *id, char *kind, uint64_t *rdev);
DECLARE(sigaction);

static void child(void)
{
	if (last_socket >= 0)
		SYS(SYS_close, last_socket, 0, 0, 0, 0, 0);
	last_socket = -1;
}

/* SIOV_EXEC is the overlay's folder. Its file `names` has the token of handles, then the opaque directories, one a line. */
__attribute__((constructor)) static void begin(void)
{
	static int begun;
	if (begun++)
		return;
	const char *folder = getenv("SIOV_EXEC");
	if (!folder || strlen(folder) > 80)
		return;
	strcpy(root, folder);
	root_length = strlen(root);
	char text[1024], path[128];
	snprintf(path, sizeof path, "%s/names", root);
	long fd = SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	long n = fd < 0 ? -1 : SYS(SYS_read, fd, text, sizeof text - 1, 0, 0, 0);
	if (fd >= 0)
		SYS(SYS_close, fd, 0, 0, 0, 0, 0);
	if (n <= 0)
		return;
	text[n] = 0;
	char *save, *word = strtok_r(text, "\n", &save);
	snprintf(token, sizeof token, "%s", word);
	while ((word = strtok_r(NULL, "\n", &save)) && opaques < 16)
		snprintf(opaque[opaques++], sizeof opaque[0], "%s", word);
	long page = SYS(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page < 0 && page > -4096)
		return;
	space = (struct space *)page;
	madvise(space, 8192, MADV_WIPEONFORK);
	pthread_atfork(NULL, NULL, child);
	struct sigaction action = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	sigfillset(&action.sa_mask);
	for (int i = 0; i < 3; i++)
		sigdelset(&action.sa_mask, trapped[i]);
	for (int i = 0; i < 3; i++)
		REAL(sigaction)(trapped[i], &action, &chained[i]);
	ready = 1;
	char here[PATH_MAX];
	if (SYS(SYS_getcwd, here, sizeof here, 0, 0, 0, 0) > 0 && !strncmp(here, root, root_length))
		inside = 1;
	for (int i = 0; i < 32 && !handles; i++)
		handles = 1, handles = handle_of(i, NULL, NULL, NULL);
}

/* ---- the connection */

static void lock(uint64_t *mask)
{
	uint64_t all = ~0ull;
	for (int i = 0; i < 3; i++)
		all &= ~(1ull << (trapped[i] - 1));
	SYS(SYS_rt_sigprocmask, SIG_SETMASK, &all, mask, 8, 0, 0);
	while (__atomic_exchange_n(&space->lock, 1, __ATOMIC_ACQUIRE))
		SYS(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}
static void unlock(const uint64_t *mask)
{
	__atomic_store_n(&space->lock, 0, __ATOMIC_RELEASE);
	SYS(SYS_rt_sigprocmask, SIG_SETMASK, mask, 0, 8, 0, 0);
}

static long exchange(struct siov_request *request, const void *payload, struct siov_reply *reply)
{
	struct iovec parts[2] = {{request, sizeof *request}, {(void *)payload, request->bytes}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = payload ? 2 : 1};
	if (SYS(SYS_sendmsg, space->socket, &message, MSG_NOSIGNAL, 0, 0, 0) < 0)
		return -EIO;
	return SYS(SYS_recvfrom, space->socket, reply, sizeof *reply, 0, 0, 0) == sizeof *reply ? reply->result : -EIO;
}

static long connected_to(const char *name, int type)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	snprintf(to.sun_path, sizeof to.sun_path, "%s/%s", root, name);
	long fd = SYS(SYS_socket, AF_UNIX, type | SOCK_CLOEXEC, 0, 0, 0, 0);
	if (fd < 0)
		return fd;
	long result = SYS(SYS_connect, fd, &to, sizeof to, 0, 0, 0);
	if (result >= 0)
		return fd;
	SYS(SYS_close, fd, 0, 0, 0, 0, 0);
	return result;
}

static uint64_t ticks_per_ms(void)
{
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	uint64_t from = __rdtsc();
	do
		clock_gettime(CLOCK_MONOTONIC, &b);
	while ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec < 200000);
	return (__rdtsc() - from) * 1000000 / (uint64_t)((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec);
}

static long attach(void)
{
	child();
	long fd = connected_to("socket", SOCK_SEQPACKET);
	if (fd < 0)
		return fd;
	struct rlimit limit;
	long top = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096 ? (long)limit.rlim_cur - 8 : 4000;
	long high = SYS(SYS_fcntl, fd, F_DUPFD_CLOEXEC, top, 0, 0, 0);
	if (high >= 0) {
		SYS(SYS_close, fd, 0, 0, 0, 0, 0);
		fd = high;
	}
	last_socket = space->socket = (int)fd;
	struct siov_request hello = {.op = SIOV_HELLO, .args = {SIOV_VERSION, ticks_per_ms()}};
	struct siov_reply reply;
	long number = exchange(&hello, NULL, &reply);
	if (number < 0)
		return number;
	prctl(PR_SET_PTRACER, reply.args[0], 0, 0, 0);
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%.80s/ring/%ld", root, number);
	long file = SYS(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0, 0, 0);
	if (file < 0)
		return file;
	long ring = SYS(SYS_mmap, 0, sizeof(struct siov_ring), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	SYS(SYS_close, file, 0, 0, 0, 0, 0);
	if (ring < 0 && ring > -4096)
		return ring;
	madvise((void *)ring, sizeof(struct siov_ring), MADV_DONTFORK);
	space->ring = (struct siov_ring *)ring;
	space->connected = 1;
	return 0;
}

/* One call to the server; a result or -errno. A server that is gone is ENXIO, as a device that is. */
static long request(struct siov_request request, const void *payload, struct siov_reply *reply)
{
	uint64_t mask;
	lock(&mask);
	long result = space->connected ? 0 : attach();
	if (result == 0)
		result = exchange(&request, payload, reply);
	unlock(&mask);
	return result == -EIO && !reply->args[0] ? -EIO : result;
}
static long simple(uint32_t op, uint64_t file, uint64_t a, uint64_t b, uint64_t c)
{
	struct siov_reply reply = {0};
	return request((struct siov_request){.op = op, .file = file, .args = {a, b, c}}, NULL, &reply);
}
static void barrier(void)
{
	simple(SIOV_SYNC, 0, 0, 0, 0);
}

/* ---- handles: stream sockets whose abstract name says which file of the server they are */

static int handle_of(int fd, uint64_t *id, char *kind, uint64_t *rdev)
{
	struct sockaddr_un name;
	int length = sizeof name;
	if (!ready || !handles || SYS(SYS_getsockname, fd, &name, &length, 0, 0, 0) < 0 || name.sun_family != AF_UNIX)
		return 0;
	int n = length - (int)offsetof(struct sockaddr_un, sun_path) - 1;
	size_t prefix = strlen(token);
	if (n <= (int)prefix || name.sun_path[0] != 0 || memcmp(name.sun_path + 1, token, prefix) != 0 || n >= 100)
		return 0;
	name.sun_path[1 + n] = 0;
	unsigned long long number, device;
	char what;
	if (sscanf(name.sun_path + 1 + prefix, "/%llx/%c%llx", &number, &what, &device) != 3)
		return 0;
	if (id)
		*id = number;
	if (kind)
		*kind = what;
	if (rdev)
		*rdev = device;
	return 1;
}

static long handle(const struct siov_reply *file, long id, int flags)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX}, to = {.sun_family = AF_UNIX};
	int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "%s/%lx/%c%llx", token, id, (char)file->args[0], (unsigned long long)file->args[1]);
	snprintf(to.sun_path, sizeof to.sun_path, "%s/files", root);
	int type = SOCK_STREAM | (flags & O_CLOEXEC ? SOCK_CLOEXEC : 0);
	long fd = SYS(SYS_socket, AF_UNIX, type, 0, 0, 0, 0);
	long result = fd;
	if (fd >= 0)
		result = SYS(SYS_bind, fd, &name, offsetof(struct sockaddr_un, sun_path) + 1 + n, 0, 0, 0);
	if (fd >= 0 && result >= 0)
		result = SYS(SYS_connect, fd, &to, sizeof to, 0, 0, 0);
	if (result >= 0) {
		if (flags & O_NONBLOCK)
			SYS(SYS_fcntl, fd, F_SETFL, O_NONBLOCK, 0, 0, 0);
		handles = 1;
		return fd;
	}
	if (fd >= 0)
		SYS(SYS_close, fd, 0, 0, 0, 0, 0);
	simple(SIOV_SYNC, (uint64_t)id, 0, 0, 0);
	return result;
}

/* ---- paths */

/* The path in the overlay, in `out`, or the path itself where the overlay has nothing to say. */
static const char *overlay(const char *path, char *out)
{
	if (!ready || !path || path[0] != '/')
		return path;
	size_t at = root_length;
	memcpy(out, root, at);
	for (const char *from = path; *from && at < PATH_MAX - 2;) {
		while (*from == '/' || (from[0] == '.' && (from[1] == '/' || !from[1])))
			from++;
		if (!*from)
			break;
		out[at++] = '/';
		while (*from && *from != '/' && at < PATH_MAX - 2)
			out[at++] = *from++;
	}
	out[at] = 0;
	const char *plain = out + root_length;
	if (strncmp(plain, "/sys/", 5) && strncmp(plain, "/dev/", 5))
		return path;
	for (int i = 0; i < opaques; i++) {
		size_t n = strlen(opaque[i]);
		if (!strncmp(plain, opaque[i], n) && (plain[n] == '/' || !plain[n])) {
			inside = 1;
			return out;
		}
	}
	struct stat st, other;
	if (SYS(SYS_newfstatat, AT_FDCWD, out, &st, AT_SYMLINK_NOFOLLOW, 0, 0) < 0)
		return path;
	if (S_ISDIR(st.st_mode) && SYS(SYS_newfstatat, AT_FDCWD, path, &other, 0, 0, 0) == 0)
		return path;
	inside = 1;
	return out;
}
#define OVERLAY(path) overlay(path, (char[PATH_MAX]){0})

/* Takes the overlay's folder off a path that the kernel gave. */
static char *shown(char *path)
{
	if (ready && path && !strncmp(path, root, root_length) && path[root_length] == '/')
		memmove(path, path + root_length, strlen(path + root_length) + 1);
	return path;
}

/* Whether something of the overlay is the server's to open: `out` gets its path there. */
static int served(int directory, const char *path, int flags, char *out)
{
	if (!ready || (flags & (O_PATH | O_DIRECTORY)) || (path[0] == '/' ? strncmp(path, root, root_length) != 0 : !inside))
		return 0;
	if (path[0] == '/' && (flags & O_ACCMODE) == O_RDONLY && !strncmp(path + root_length, "/sys/", 5))
		return 0;
	long fd = SYS(SYS_openat, directory, path, O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW), 0, 0, 0);
	if (fd < 0)
		return 0;
	struct stat st;
	char link[64], full[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%ld", fd);
	long n = SYS(SYS_readlinkat, AT_FDCWD, link, full, sizeof full - 1, 0, 0);
	int regular = SYS(SYS_fstat, fd, &st, 0, 0, 0, 0) == 0 && S_ISREG(st.st_mode);
	SYS(SYS_close, fd, 0, 0, 0, 0, 0);
	if (n <= (long)root_length || !regular || strncmp(full, root, root_length))
		return 0;
	full[n] = 0;
	const char *plain = full + root_length;
	if (strncmp(plain, "/dev/", 5) && (strncmp(plain, "/sys/", 5) || (flags & O_ACCMODE) == O_RDONLY))
		return 0;
	strcpy(out, plain);
	return 1;
}

static int opened(int directory, const char *path, int flags, mode_t mode)
{
	char name[PATH_MAX];
	const char *at = OVERLAY(path);
	if (!path || !served(directory, at, flags, name)) {
		if (ready && at != path)
			flags &= ~(O_CREAT | O_TRUNC);
		return (int)answer(SYS(SYS_openat, directory, at, flags, mode, 0, 0));
	}
	struct siov_reply reply = {0};
	struct siov_request open = {.op = SIOV_OPEN, .bytes = (uint32_t)strlen(name), .args = {(uint64_t)flags}};
	long id = request(open, name, &reply);
	return (int)answer(id < 0 ? id : handle(&reply, id, flags));
}

#define MODE(flags)                                                                                                                            \
	({                                                                                                                                     \
		mode_t m = 0;                                                                                                                  \
		if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                                       \
			va_list list;                                                                                                          \
			va_start(list, flags);                                                                                                 \
			m = va_arg(list, mode_t);                                                                                              \
			va_end(list);                                                                                                          \
		}                                                                                                                              \
		m;                                                                                                                             \
	})
EXPORT int open(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
EXPORT int open64(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
EXPORT int openat(int at, const char *path, int flags, ...) { return opened(at, path, flags, MODE(flags)); }
EXPORT int openat64(int at, const char *path, int flags, ...) { return opened(at, path, flags, MODE(flags)); }
EXPORT int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
EXPORT int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
EXPORT int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

DECLARE(fopen);
DECLARE(fclose);
EXPORT FILE *fopen(const char *path, const char *mode)
{
	char name[PATH_MAX];
	const char *at = OVERLAY(path);
	int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
	if (!served(AT_FDCWD, at, flags, name))
		return REAL(fopen)(at, mode);
	int fd = opened(AT_FDCWD, path, flags | (strchr(mode, 'e') ? O_CLOEXEC : 0), 0);
	return fd < 0 ? NULL : fdopen(fd, mode);
}
EXPORT FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }
EXPORT int fclose(FILE *file)
{
	int ours = file && handles && handle_of(fileno(file), NULL, NULL, NULL);
	int result = REAL(fclose)(file);
	if (ours)
		barrier();
	return result;
}

DECLARE(opendir);
DECLARE(scandir);
DECLARE(realpath);
EXPORT DIR *opendir(const char *path) { return REAL(opendir)(OVERLAY(path)); }
EXPORT int scandir(const char *path, struct dirent ***list, int (*filter)(const struct dirent *), int (*compare)(const struct dirent **, const struct dirent **))
{
	return REAL(scandir)(OVERLAY(path), list, filter, compare);
}
EXPORT int scandir64(const char *path, struct dirent64 ***list, int (*filter)(const struct dirent64 *), int (*compare)(const struct dirent64 **, const struct dirent64 **))
{
	return scandir(path, (struct dirent ***)list, (void *)filter, (void *)compare);
}
EXPORT char *realpath(const char *path, char *out) { return shown(REAL(realpath)(OVERLAY(path), out)); }
EXPORT char *__realpath_chk(const char *path, char *out, size_t room)
{
	(void)room;
	return realpath(path, out);
}
EXPORT char *canonicalize_file_name(const char *path) { return realpath(path, NULL); }

EXPORT int access(const char *path, int mode) { return (int)answer(SYS(SYS_access, OVERLAY(path), mode, 0, 0, 0, 0)); }
DECLARE(faccessat);
EXPORT int faccessat(int at, const char *path, int mode, int flags) { return REAL(faccessat)(at, OVERLAY(path), mode, flags); }
EXPORT int euidaccess(const char *path, int mode) { return faccessat(AT_FDCWD, path, mode, AT_EACCESS); }
EXPORT int eaccess(const char *path, int mode) { return faccessat(AT_FDCWD, path, mode, AT_EACCESS); }
EXPORT ssize_t readlink(const char *path, char *out, size_t room) { return answer(SYS(SYS_readlink, OVERLAY(path), out, room, 0, 0, 0)); }
EXPORT ssize_t readlinkat(int at, const char *path, char *out, size_t room) { return answer(SYS(SYS_readlinkat, at, OVERLAY(path), out, room, 0, 0)); }
EXPORT ssize_t __readlink_chk(const char *path, char *out, size_t n, size_t room)
{
	(void)room;
	return readlink(path, out, n);
}
EXPORT ssize_t getxattr(const char *path, const char *name, void *out, size_t n) { return answer(SYS(SYS_getxattr, OVERLAY(path), name, out, n, 0, 0)); }
EXPORT ssize_t lgetxattr(const char *path, const char *name, void *out, size_t n) { return answer(SYS(SYS_lgetxattr, OVERLAY(path), name, out, n, 0, 0)); }
EXPORT ssize_t listxattr(const char *path, char *out, size_t n) { return answer(SYS(SYS_listxattr, OVERLAY(path), out, n, 0, 0, 0)); }
EXPORT ssize_t llistxattr(const char *path, char *out, size_t n) { return answer(SYS(SYS_llistxattr, OVERLAY(path), out, n, 0, 0, 0)); }
EXPORT int chdir(const char *path) { return (int)answer(SYS(SYS_chdir, OVERLAY(path), 0, 0, 0, 0, 0)); }
DECLARE(getcwd);
EXPORT char *getcwd(char *out, size_t room) { return shown(REAL(getcwd)(out, room)); }

/* A device's node in the overlay is a plain file whose size is its number. */
static void as_node(struct stat *st)
{
	st->st_mode = S_IFCHR | 0666;
	st->st_rdev = (dev_t)st->st_size;
	st->st_size = 0;
	st->st_blocks = 0;
}
static int status(int at, const char *path, struct stat *st, int flags)
{
	uint64_t rdev;
	char kind;
	const char *to = OVERLAY(path);
	long result = SYS(SYS_newfstatat, at, to, st, flags, 0, 0);
	if (result == 0 && to && path && to != path && S_ISREG(st->st_mode) && !strncmp(to + root_length, "/dev/", 5))
		as_node(st);
	else if (result == 0 && handles && path && !*path && S_ISSOCK(st->st_mode) && handle_of(at, NULL, &kind, &rdev)) {
		st->st_size = (off_t)rdev;
		as_node(st);
		if (kind != 'c') {
			st->st_mode = S_IFREG | 0644;
			st->st_rdev = 0;
			st->st_size = 4096;
		}
	}
	return (int)answer(result);
}
EXPORT int stat(const char *path, struct stat *st) { return status(AT_FDCWD, path, st, 0); }
EXPORT int lstat(const char *path, struct stat *st) { return status(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW); }
EXPORT int fstat(int fd, struct stat *st) { return status(fd, "", st, AT_EMPTY_PATH); }
EXPORT int fstatat(int at, const char *path, struct stat *st, int flags) { return status(at, path, st, flags); }
EXPORT int stat64(const char *path, struct stat64 *st) { return status(AT_FDCWD, path, (struct stat *)st, 0); }
EXPORT int lstat64(const char *path, struct stat64 *st) { return status(AT_FDCWD, path, (struct stat *)st, AT_SYMLINK_NOFOLLOW); }
EXPORT int fstat64(int fd, struct stat64 *st) { return status(fd, "", (struct stat *)st, AT_EMPTY_PATH); }
EXPORT int fstatat64(int at, const char *path, struct stat64 *st, int flags) { return status(at, path, (struct stat *)st, flags); }
EXPORT int __xstat(int v, const char *path, struct stat *st) { return v ? stat(path, st) : stat(path, st); }
EXPORT int __lxstat(int v, const char *path, struct stat *st) { return v ? lstat(path, st) : lstat(path, st); }
EXPORT int __fxstat(int v, int fd, struct stat *st) { return v ? fstat(fd, st) : fstat(fd, st); }
EXPORT int __xstat64(int v, const char *path, struct stat64 *st) { return __xstat(v, path, (struct stat *)st); }
EXPORT int __lxstat64(int v, const char *path, struct stat64 *st) { return __lxstat(v, path, (struct stat *)st); }
EXPORT int __fxstat64(int v, int fd, struct stat64 *st) { return __fxstat(v, fd, (struct stat *)st); }
EXPORT int statx(int at, const char *path, int flags, unsigned mask, struct statx *out)
{
	const char *to = OVERLAY(path);
	struct stat st;
	long result = SYS(SYS_statx, at, to, flags, mask, out, 0);
	int ours = to != path || (handles && path && !*path && handle_of(at, NULL, NULL, NULL));
	if (result == 0 && ours && status(at, path, &st, flags & (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) == 0) {
		out->stx_mode = (uint16_t)st.st_mode;
		out->stx_size = (uint64_t)st.st_size;
		out->stx_rdev_major = major(st.st_rdev);
		out->stx_rdev_minor = minor(st.st_rdev);
	}
	return (int)answer(result);
}

/* ---- descriptors */

DECLARE(close);
DECLARE(read);
DECLARE(write);
DECLARE(pread);
DECLARE(pwrite);
DECLARE(writev);
DECLARE(ioctl);
DECLARE(dup2);
DECLARE(dup3);
DECLARE(recvmsg);
extern int ioctl(int, unsigned long, ...);

EXPORT int close(int fd)
{
	if (ready && fd == last_socket && fd >= 0)
		return (int)answer(-EBADF);
	int ours = handles && handle_of(fd, NULL, NULL, NULL);
	int result = REAL(close)(fd);
	if (ours)
		barrier();
	return result;
}
EXPORT int dup2(int from, int to)
{
	int ours = handles && from != to && handle_of(to, NULL, NULL, NULL);
	int result = REAL(dup2)(from, to);
	if (ours && result >= 0)
		barrier();
	return result;
}
EXPORT int dup3(int from, int to, int flags)
{
	int ours = handles && from != to && handle_of(to, NULL, NULL, NULL);
	int result = REAL(dup3)(from, to, flags);
	if (ours && result >= 0)
		barrier();
	return result;
}
EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t result = REAL(recvmsg)(fd, message, flags);
	if (result >= 0 && message->msg_controllen > 0)
		handles = ready;
	return result;
}
#define POSITION (~0ull)
#define TRANSFER(op, offset) (handles && handle_of(fd, &id, NULL, NULL)) ? answer(simple(op, id, (uint64_t)(uintptr_t)buffer, n, (uint64_t)(offset)))
EXPORT ssize_t read(int fd, void *buffer, size_t n)
{
	uint64_t id;
	return TRANSFER(SIOV_READ, POSITION) : REAL(read)(fd, buffer, n);
}
EXPORT ssize_t write(int fd, const void *buffer, size_t n)
{
	uint64_t id;
	return TRANSFER(SIOV_WRITE, POSITION) : REAL(write)(fd, buffer, n);
}
EXPORT ssize_t pread(int fd, void *buffer, size_t n, off_t offset)
{
	uint64_t id;
	return TRANSFER(SIOV_READ, offset) : REAL(pread)(fd, buffer, n, offset);
}
EXPORT ssize_t pwrite(int fd, const void *buffer, size_t n, off_t offset)
{
	uint64_t id;
	return TRANSFER(SIOV_WRITE, offset) : REAL(pwrite)(fd, buffer, n, offset);
}
EXPORT ssize_t pread64(int fd, void *buffer, size_t n, off64_t offset) { return pread(fd, buffer, n, offset); }
EXPORT ssize_t pwrite64(int fd, const void *buffer, size_t n, off64_t offset) { return pwrite(fd, buffer, n, offset); }
EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
	if (!handles || !handle_of(fd, NULL, NULL, NULL))
		return REAL(writev)(fd, parts, count);
	ssize_t done = 0;
	for (int i = 0; i < count; i++) {
		ssize_t n = parts[i].iov_len ? write(fd, parts[i].iov_base, parts[i].iov_len) : 0;
		if (n < 0)
			return done ? done : n;
		done += n;
		if ((size_t)n < parts[i].iov_len)
			break;
	}
	return done;
}
EXPORT int ioctl(int fd, unsigned long number, ...)
{
	va_list list;
	va_start(list, number);
	uint64_t argument = va_arg(list, uint64_t), id;
	va_end(list);
	if (handles && handle_of(fd, &id, NULL, NULL))
		return (int)answer(simple(SIOV_IOCTL, id, number, argument, 0));
	return REAL(ioctl)(fd, number, argument);
}

/* What stdio still holds reaches the server before the process is gone. */
__attribute__((destructor)) static void end(void)
{
	if (!ready || !handles)
		return;
	fflush(NULL);
	barrier();
}

/* ---- mappings */

static struct region *region_of(uintptr_t address, size_t length)
{
	if (space)
		for (struct region *r = space->regions; r < space->regions + SIOV_REGIONS; r++)
			if (r->length && address < r->start + r->length && r->start < address + length)
				return r;
	return NULL;
}

static long unmapped(uintptr_t address, size_t length)
{
	if (!ready || !region_of(address, length))
		return 0;
	long result = simple(SIOV_MUNMAP, 0, address, length, 0);
	if (result < 0 && result != -EIO)
		return result;
	for (struct region *r; (r = region_of(address, length));)
		__atomic_store_n(&r->length, 0, __ATOMIC_RELEASE);
	return 0;
}

static void *mapped(uint64_t file, void *address, size_t length, int prot, int flags, off_t offset)
{
	struct siov_reply reply = {0};
	long at = (long)address;
	if (!(flags & MAP_FIXED))
		at = SYS(SYS_mmap, address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at < 0 && at > -4096)
		return (void *)answer(at);
	struct siov_request map = {.op = SIOV_MMAP, .file = file, .args = {(uint64_t)at, length, (uint64_t)prot, (uint64_t)flags, (uint64_t)offset}};
	long number = request(map, NULL, &reply);
	if (number >= 0 && flags & MAP_FIXED)
		at = SYS(SYS_mmap, address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (number < 0 || (at < 0 && at > -4096)) {
		if (!(flags & MAP_FIXED))
			SYS(SYS_munmap, at, length, 0, 0, 0, 0);
		return (void *)answer(number < 0 ? number : at);
	}
	if (reply.args[0])
		madvise((void *)at, length, MADV_DONTFORK);
	uint64_t mask;
	lock(&mask);
	for (struct region *r = space->regions; r < space->regions + SIOV_REGIONS; r++)
		if (!r->length) {
			r->start = (uintptr_t)at;
			r->number = (uint32_t)number;
			__atomic_store_n(&r->length, (length + 4095) & ~4095ull, __ATOMIC_RELEASE);
			break;
		}
	unlock(&mask);
	return (void *)at;
}

EXPORT void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
	uint64_t id;
	if (handles && fd >= 0 && !(flags & MAP_ANONYMOUS) && handle_of(fd, &id, NULL, NULL))
		return mapped(id, address, length, prot, flags, offset);
	if (ready && flags & MAP_FIXED)
		unmapped((uintptr_t)address, length);
	return (void *)answer(SYS(SYS_mmap, address, length, prot, flags, fd, offset));
}
EXPORT void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset)
{
	return mmap(address, length, prot, flags, fd, offset);
}
EXPORT int munmap(void *address, size_t length)
{
	long result = unmapped((uintptr_t)address, length);
	return (int)answer(result < 0 ? result : SYS(SYS_munmap, address, length, 0, 0, 0, 0));
}

/* ---- the program's own handlers, and masks: a blocked signal of the processor would kill */

static int index_of(int signal)
{
	for (int i = 0; i < 3; i++)
		if (trapped[i] == signal)
			return i;
	return -1;
}
static const sigset_t *stripped(const sigset_t *set, sigset_t *room)
{
	if (!set || !ready)
		return set;
	*room = *set;
	for (int i = 0; i < 3; i++)
		sigdelset(room, trapped[i]);
	return room;
}
EXPORT int sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
	int i = ready ? index_of(signal) : -1;
	if (i < 0) {
		struct sigaction copy;
		if (action && ready) {
			copy = *action;
			stripped(&action->sa_mask, &copy.sa_mask);
			action = &copy;
		}
		return REAL(sigaction)(signal, action, old);
	}
	struct sigaction before = chained[i];
	if (action)
		chained[i] = *action;
	if (old)
		*old = before;
	return 0;
}
DECLARE(signal);
EXPORT sighandler_t signal(int number, sighandler_t handler)
{
	if (!ready || index_of(number) < 0)
		return REAL(signal)(number, handler);
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
	return sigaction(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}
EXPORT sighandler_t bsd_signal(int number, sighandler_t handler) { return signal(number, handler); }
EXPORT sighandler_t ssignal(int number, sighandler_t handler) { return signal(number, handler); }
EXPORT sighandler_t __sysv_signal(int number, sighandler_t handler)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESETHAND | SA_NODEFER}, old;
	return sigaction(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}
DECLARE(sigprocmask);
DECLARE(pthread_sigmask);
DECLARE(sigsuspend);
DECLARE(ppoll);
DECLARE(pselect);
DECLARE(epoll_pwait);
EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old) { return REAL(sigprocmask)(how, how == SIG_UNBLOCK ? set : stripped(set, &(sigset_t){0}), old); }
EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return REAL(pthread_sigmask)(how, how == SIG_UNBLOCK ? set : stripped(set, &(sigset_t){0}), old);
}
EXPORT int sigsuspend(const sigset_t *set) { return REAL(sigsuspend)(stripped(set, &(sigset_t){0})); }
EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *time, const sigset_t *set) { return REAL(ppoll)(fds, n, time, stripped(set, &(sigset_t){0})); }
EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *time, const sigset_t *set)
{
	return REAL(pselect)(n, r, w, e, time, stripped(set, &(sigset_t){0}));
}
EXPORT int epoll_pwait(int fd, struct epoll_event *events, int n, int ms, const sigset_t *set) { return REAL(epoll_pwait)(fd, events, n, ms, stripped(set, &(sigset_t){0})); }

static void fatal(int number)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	uint64_t bit = 1ull << (number - 1);
	REAL(sigaction)(number, &plain, NULL);
	SYS(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, 0, 8, 0, 0);
	SYS(SYS_tgkill, SYS(SYS_getpid, 0, 0, 0, 0, 0, 0), SYS(SYS_gettid, 0, 0, 0, 0, 0, 0), number, 0, 0, 0);
}

/* What would have happened without us. `raised`: the signal is not the one that the processor sent, so returning would not bring it again. */
static void chain(int number, siginfo_t *info, ucontext_t *context, int raised)
{
	struct sigaction action = chained[index_of(number)];
	if (action.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
		if (raised || info->si_code <= 0)
			fatal(number);
		else {
			struct sigaction plain = {.sa_handler = SIG_DFL};
			REAL(sigaction)(number, &plain, NULL);
		}
		return;
	}
	if (action.sa_flags & (int)SA_RESETHAND)
		chained[index_of(number)].sa_handler = SIG_DFL;
	/* The program's handler runs with the mask that it asked for; what returns here goes back to the context's own. */
	sigset_t mask = context->uc_sigmask;
	sigorset(&mask, &mask, &action.sa_mask);
	for (int i = 0; i < 3; i++)
		sigdelset(&mask, trapped[i]);
	SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8, 0, 0);
	if (action.sa_flags & SA_SIGINFO)
		action.sa_sigaction(number, info, context);
	else
		action.sa_handler(number);
}
static void deliver(int number, int code, uintptr_t address, ucontext_t *context)
{
	siginfo_t info = {.si_signo = number, .si_code = code};
	info.si_addr = (void *)address;
	chain(number, &info, context, 1);
}

/* ---- instructions */

/* Copies 64 bytes; 0, or 1 where a page is missing: the handler then goes to the end. */
int siov_copy64(void *to, const void *from) __attribute__((visibility("hidden")));
extern const char siov_copy64_end[] __attribute__((visibility("hidden"))), siov_copy64_failed[] __attribute__((visibility("hidden")));
__asm__(".text\n.hidden siov_copy64\n.globl siov_copy64\nsiov_copy64:\n"
	"movdqu (%rsi),%xmm0\nmovdqu 16(%rsi),%xmm1\nmovdqu 32(%rsi),%xmm2\nmovdqu 48(%rsi),%xmm3\n"
	"movdqu %xmm0,(%rdi)\nmovdqu %xmm1,16(%rdi)\nmovdqu %xmm2,32(%rdi)\nmovdqu %xmm3,48(%rdi)\n"
	"xor %eax,%eax\nret\n.hidden siov_copy64_end\n.globl siov_copy64_end\nsiov_copy64_end:\n"
	".hidden siov_copy64_failed\n.globl siov_copy64_failed\nsiov_copy64_failed:\nmov $1,%eax\nret\n");
static __thread uintptr_t missing __attribute__((tls_model("initial-exec")));

static int server_gone(void)
{
	char byte;
	return SYS(SYS_recvfrom, space->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT, 0, 0) == 0;
}
static void wake(struct siov_ring *ring)
{
	if (__atomic_load_n(&ring->sleeping, __ATOMIC_SEQ_CST) && __atomic_exchange_n(&ring->sleeping, 0, __ATOMIC_SEQ_CST)) {
		struct siov_request request = {.op = SIOV_WAKE};
		SYS(SYS_sendto, space->socket, &request, sizeof request, MSG_NOSIGNAL, 0, 0);
	}
}

/* Puts one access into the ring; an answer, or -1: the server is gone. Stores are posted and never wait, unless the ring is full. */
static int post(uint32_t kind, uintptr_t address, const void *data, uint32_t width, uint64_t *value)
{
	struct siov_ring *ring = space->ring;
	struct siov_slot *slot;
	uint32_t at = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
	for (;;) {
		slot = &ring->slots[at % SIOV_SLOTS];
		int32_t ahead = (int32_t)(__atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE) - at);
		if (ahead == 0) {
			if (__atomic_compare_exchange_n(&ring->tail, &at, at + 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
				break;
		} else {
			if (ahead < 0) {
				wake(ring);
				if (server_gone())
					return -1;
				SYS(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
			}
			at = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
		}
	}
	slot->kind = kind;
	slot->address = address;
	slot->status = SIOV_EMPTY;
	slot->width = width;
	slot->value = value ? *value : 0;
	if (data)
		memcpy(slot->data, data, 64);
	__atomic_store_n(&slot->sequence, at + 1, __ATOMIC_SEQ_CST);
	wake(ring);
	if (kind == SIOV_MOVDIR64B || kind == SIOV_STORE)
		return SIOV_DONE;
	for (int spins = 0; __atomic_load_n(&slot->status, __ATOMIC_ACQUIRE) != SIOV_ANSWERED;) {
		if (++spins < 1000) {
			_mm_pause();
			continue;
		}
		uint32_t empty = SIOV_EMPTY;
		if (!__atomic_compare_exchange_n(&slot->status, &empty, SIOV_WAITS, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) && empty == SIOV_ANSWERED)
			break;
		struct timespec time = {0, 100000000};
		if (SYS(SYS_futex, &slot->status, FUTEX_WAIT, SIOV_WAITS, &time, 0, 0) == -ETIMEDOUT && server_gone())
			return -1;
	}
	int result = (int)slot->answer;
	if (value)
		*value = slot->value;
	__atomic_store_n(&slot->sequence, at + SIOV_SLOTS, __ATOMIC_RELEASE);
	return result;
}

static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
			      REG_R8,  REG_R9,	REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
enum { CARRY = 0x001, PARITY = 0x004, ADJUST = 0x010, ZERO = 0x040, SIGN = 0x080, OVER = 0x800 };

struct instruction {
	const uint8_t *at;
	int repeat, size16, address32, segment, rex, mod, reg, rm, displacement_bytes;
	uintptr_t address;
};

/* ModRM and what follows; `tail`: bytes of immediate data behind it, which a RIP-relative address counts too. */
static void operand(struct instruction *in, greg_t *g, int tail)
{
	uint8_t modrm = *in->at++;
	int64_t base = 0;
	int mod = in->mod = modrm >> 6;
	in->reg = (modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0);
	in->rm = (modrm & 7) | (in->rex & 1 ? 8 : 0);
	if (mod == 3)
		return;
	if ((modrm & 7) == 4) {
		uint8_t sib = *in->at++;
		int index = (sib >> 3 & 7) | (in->rex & 2 ? 8 : 0);
		if (index != 4)
			base += (int64_t)((uint64_t)g[order[index]] << (sib >> 6));
		if ((sib & 7) == 5 && mod == 0)
			mod = 4;
		else
			base += g[order[(sib & 7) | (in->rex & 1 ? 8 : 0)]];
	} else if ((modrm & 7) == 5 && mod == 0)
		mod = 5;
	else
		base += g[order[in->rm]];
	int32_t wide = 0;
	if (mod == 1)
		base += (int8_t)*in->at++;
	else if (mod != 0) {
		memcpy(&wide, in->at, 4);
		in->at += 4;
		base += wide;
	}
	if (mod == 5)
		base += (int64_t)(uintptr_t)in->at + tail;
	if (in->address32)
		base = (uint32_t)base;
	if (in->segment == 0x64 || in->segment == 0x65) {
		uint64_t start = 0;
		SYS(SYS_arch_prctl, in->segment == 0x64 ? 0x1003 : 0x1004, &start, 0, 0, 0, 0);
		base += (int64_t)start;
	}
	in->address = (uintptr_t)base;
}

static int behind(const struct region *r)
{
	return __atomic_load_n(&space->ring->live[r->number], __ATOMIC_ACQUIRE) == 1;
}

/* 66, F2, F3 0F 38 F8: a store of 64 bytes to the address in a register. 1 when done, 0 when not ours, else a signal went out. */
static int submission(struct instruction *in, greg_t *g, ucontext_t *context)
{
	uint64_t data[8];
	operand(in, g, 0);
	if (in->mod == 3)
		return 0;
	uintptr_t to = (uintptr_t)g[order[in->reg]];
	if (in->address32)
		to = (uint32_t)to;
	if (to & 63 || in->repeat == 0xf3) {
		deliver(SIGSEGV, SI_KERNEL, 0, context);
		return -1;
	}
	if (siov_copy64(data, (void *)in->address)) {
		deliver(SIGSEGV, SEGV_MAPERR, missing, context);
		return -1;
	}
	struct region *r = region_of(to, 64);
	if (!r && in->repeat == 0) {
		if (siov_copy64((void *)to, data)) {
			deliver(SIGSEGV, SEGV_MAPERR, missing, context);
			return -1;
		}
		return 1;
	}
	int result = !r ? SIOV_PROTECTION : behind(r) ? post(in->repeat ? SIOV_ENQCMD : SIOV_MOVDIR64B, to, data, 64, NULL) : SIOV_BUS_ERROR;
	if (result == SIOV_PROTECTION || result == SIOV_BUS_ERROR || result < 0) {
		deliver(result == SIOV_PROTECTION ? SIGSEGV : SIGBUS, result == SIOV_PROTECTION ? SEGV_MAPERR : BUS_ADRERR, to, context);
		return -1;
	}
	if (in->repeat)
		g[REG_EFL] = (g[REG_EFL] & ~(CARRY | PARITY | ADJUST | ZERO | SIGN | OVER)) | (result == SIOV_RETRY ? ZERO : 0);
	return 1;
}

static uint64_t *byte_register(const struct instruction *in, greg_t *g, int number, int *shift)
{
	int high = !in->rex && number >= 4 && number < 8;
	*shift = high ? 8 : 0;
	return (uint64_t *)&g[order[high ? number - 4 : number]];
}
static uint64_t taken(const struct instruction *in, greg_t *g, int number, int width)
{
	int shift = 0;
	uint64_t value = width == 1 ? *byte_register(in, g, number, &shift) : (uint64_t)g[order[number]];
	return width == 8 ? value : value >> shift & ((1ull << 8 * width) - 1);
}
static void given(const struct instruction *in, greg_t *g, int number, int width, uint64_t value)
{
	int shift = 0;
	uint64_t *to = width == 1 ? byte_register(in, g, number, &shift) : (uint64_t *)&g[order[number]];
	if (width >= 4)
		*to = width == 4 ? (uint32_t)value : value;
	else {
		uint64_t mask = ((1ull << 8 * width) - 1) << shift;
		*to = (*to & ~mask) | (value << shift & mask);
	}
}

/* A load from or a store to a device's page, as compilers write them. */
static int access_of(struct instruction *in, greg_t *g, ucontext_t *context, int opcode, int two)
{
	int wide = in->rex & 8 ? 8 : in->size16 ? 2 : 4, width = wide, store = 0, extend = 0, test = 0, immediate = 0;
	if (!two && (opcode == 0x88 || opcode == 0x89))
		store = 1, width = opcode == 0x88 ? 1 : wide;
	else if (!two && (opcode == 0x8a || opcode == 0x8b))
		width = opcode == 0x8a ? 1 : wide;
	else if (!two && (opcode == 0xc6 || opcode == 0xc7))
		store = 1, width = opcode == 0xc6 ? 1 : wide, immediate = width == 8 ? 4 : width;
	else if (!two && (opcode == 0xf6 || opcode == 0xf7))
		test = 1, width = opcode == 0xf6 ? 1 : wide, immediate = width == 8 ? 4 : width;
	else if (!two && opcode == 0x63)
		width = 4, extend = 1;
	else if (two && (opcode & 0xf6) == 0xb6)
		width = opcode & 1 ? 2 : 1, extend = opcode & 8 ? 1 : 2;
	else
		return 0;
	operand(in, g, immediate);
	if (in->mod == 3 || (test && (in->reg & 7) > 1))
		return 0;
	int64_t constant = 0;
	if (immediate) {
		int32_t word = 0;
		memcpy(&word, in->at, (size_t)immediate);
		constant = immediate == 1 ? (int8_t)word : immediate == 2 ? (int16_t)word : word;
		in->at += immediate;
	}
	struct region *r = region_of(in->address, (size_t)width);
	if (!r)
		return 0;
	uint64_t value = !store ? 0 : immediate ? (uint64_t)constant : taken(in, g, in->reg, width);
	int result = behind(r) ? post(store ? SIOV_STORE : SIOV_LOAD, in->address, NULL, (uint32_t)width, &value) : -1;
	if (result != SIOV_DONE) {
		deliver(SIGBUS, BUS_ADRERR, in->address, context);
		return -1;
	}
	if (store)
		return 1;
	uint64_t top = 1ull << (8 * width - 1);
	if (width < 8)
		value &= (top << 1) - 1;
	if (test) {
		value &= (uint64_t)constant;
		g[REG_EFL] &= ~(CARRY | PARITY | ZERO | SIGN | OVER);
		g[REG_EFL] |= (value ? 0 : ZERO) | (value & top ? SIGN : 0) | (__builtin_parity((unsigned)value & 0xff) ? 0 : PARITY);
	} else if (extend)
		given(in, g, in->reg, wide, extend == 1 ? (value ^ top) - top : value);
	else
		given(in, g, in->reg, width, value);
	return 1;
}

/* 1: carried out; 0: not ours; -1: a signal was delivered in its place. */
static int carried(int number, const siginfo_t *info, ucontext_t *context)
{
	greg_t *g = context->uc_mcontext.gregs;
	struct instruction in = {.at = (const uint8_t *)g[REG_RIP]};
	int general = number == SIGSEGV && info->si_code == SI_KERNEL;
	if (region_of((uintptr_t)in.at, 1) || (number != SIGILL && !general && !region_of((uintptr_t)info->si_addr, 1)))
		return 0;
	for (;; in.at++) {
		uint8_t byte = *in.at;
		if (byte == 0x66)
			in.size16 = 1;
		else if (byte == 0x67)
			in.address32 = 1;
		else if (byte == 0xf2 || byte == 0xf3)
			in.repeat = byte;
		else if (byte == 0x64 || byte == 0x65 || byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x26)
			in.segment = byte;
		else
			break;
	}
	if ((*in.at & 0xf0) == 0x40)
		in.rex = *in.at++;
	int opcode = *in.at++, done = 0;
	if (opcode == 0x0f && in.at[0] == 0x38 && in.at[1] == 0xf8 && (in.repeat || in.size16)) {
		in.at += 2;
		done = submission(&in, g, context);
	} else if (opcode == 0x0f && in.at[0] == 0xae && (in.at[1] >> 3) == 030 + 6 && (in.repeat || in.size16)) {
		/* UMONITOR, UMWAIT, TPAUSE: waking at once is allowed. */
		in.at += 2;
		if (in.repeat != 0xf3) {
			SYS(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
			g[REG_EFL] &= ~(CARRY | PARITY | ADJUST | ZERO | SIGN | OVER);
		}
		done = 1;
	} else if (number != SIGILL)
		done = opcode == 0x0f ? (in.at++, access_of(&in, g, context, in.at[-1], 1)) : access_of(&in, g, context, opcode, 0);
	if (done > 0)
		g[REG_RIP] = (greg_t)in.at;
	return done;
}

static void trap(int number, siginfo_t *info, void *context)
{
	ucontext_t *at = context;
	uintptr_t rip = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
	if (info->si_code > 0 && rip >= (uintptr_t)siov_copy64 && rip < (uintptr_t)siov_copy64_end) {
		missing = (uintptr_t)info->si_addr;
		at->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)siov_copy64_failed;
		return;
	}
	int saved = errno;
	uint64_t from = __rdtsc();
	int done = info->si_code > 0 ? carried(number, info, at) : 0;
	if (done == 0)
		chain(number, info, at, 0);
	else if (done > 0 && space->ring) {
		__atomic_fetch_add(&space->ring->traps, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&space->ring->ticks, __rdtsc() - from, __ATOMIC_RELAXED);
	}
	errno = saved;
}
