/* Paths: what the overlay has is found there, and its devices and attributes are opened by the server. SPDX-License-Identifier: MIT */
#include "shim.h"
#include <alloca.h>
#include <dirent.h>
#include <linux/openat2.h>
#include <sys/sysmacros.h>

static int inside; /* a directory of the overlay may be the current one, or open */

static int below(const char *path, const char *folder, size_t n) { return !strncmp(path, folder, n) && (path[n] == '/' || !path[n]); }
/* The path of an open file, as the kernel gives it; its length or -errno. */
static long path_of(long fd, char *out)
{
	char link[40];
	snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%ld", fd);
	long n = SYS(readlink, link, out, PATH_MAX - 1);
	return n < 0 ? n : (out[n] = 0, n);
}

/* The path in the overlay, in `out`, or the path itself where the overlay has nothing to say. */
static const char *overlay(long at, const char *path, char *out)
{
	char *const plain = out + root_length;
	size_t n = root_length;
	int upwards = 0;
	if (!ready || !path || !*path || (*path == '/' ? !strstr(path, "sys") && !strstr(path, "dev") : !inside))
		return path;
	if (*path == '/')
		memcpy(out, root, n);
	else if (path_of(at, out) < (long)n || !below(out, root, n))
		return path;
	else
		n = strlen(out);
	for (const char *from = path; *from && n < PATH_MAX - 2;) {
		size_t length = strcspn(from, "/");
		if (length > PATH_MAX - 2 - n)
			return path;
		upwards |= length == 2 && from[0] == '.' && from[1] == '.';
		if (length > 1 || (length == 1 && *from != '.')) {
			out[n++] = '/';
			memcpy(out + n, from, length);
			n += length;
		}
		from += length + (from[length] == '/');
	}
	out[n] = 0;
	if (upwards && (below(plain, "/sys", 4) || below(plain, "/dev", 4))) {
		/* Not above the overlay, which is no place in programs' eyes. */
		struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
		long folder = SYS(openat, AT_FDCWD, root, O_PATH | O_CLOEXEC), fd = SYS(openat2, folder, plain + 1, &how, sizeof how);
		long got = fd < 0 ? fd : path_of(fd, out);
		SYS(close, folder);
		SYS(close, fd);
		if (got < 0)
			return path;
	}
	if (!below(plain, "/sys", 4) && !below(plain, "/dev", 4))
		return path;
	for (const char *folder = opaque; *folder; folder += strlen(folder) + 1)
		if (below(plain, folder, strlen(folder)))
			return inside = 1, out;
	struct stat ours, theirs;
	if (SYS(newfstatat, AT_FDCWD, out, &ours, AT_SYMLINK_NOFOLLOW) < 0 || (S_ISDIR(ours.st_mode) && SYS(newfstatat, AT_FDCWD, plain, &theirs) == 0))
		return path;
	return inside = 1, out;
}
#define AT(at, path) ({ char *room = alloca(PATH_MAX); overlay(at, path, room); })
#define HERE(path) AT(AT_FDCWD, path)

/* Takes the overlay's folder off a path that the kernel gave. */
static char *shown(char *path)
{
	if (ready && path && below(path, root, root_length) && path[root_length])
		memmove(path, path + root_length, strlen(path + root_length) + 1);
	return path;
}

/* Whether a path of the overlay is the server's to open: `out` gets it as the server knows it. */
static int served(const char *path, int flags, char *out)
{
	int reads = (flags & O_ACCMODE) == O_RDONLY;
	if (!ready || !path || (flags & (O_PATH | O_DIRECTORY)) || strncmp(path, root, root_length) || (reads && below(path + root_length, "/sys", 4)))
		return 0;
	struct stat st;
	char full[PATH_MAX];
	long fd = SYS(openat, AT_FDCWD, path, O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW));
	long n = fd < 0 ? fd : path_of(fd, full);
	int regular = fd >= 0 && SYS(fstat, fd, &st) == 0 && S_ISREG(st.st_mode);
	SYS(close, fd);
	if (n < 0 || !regular || !below(full, root, root_length) || (reads && below(full + root_length, "/sys", 4)))
		return 0;
	return strcpy(out, full + root_length) != NULL;
}

static int opened(int at, const char *path, int flags, mode_t mode)
{
	char name[PATH_MAX];
	const char *to = AT(at, path);
	if (to != path && served(to, flags, name)) {
		struct siov_reply reply = {0};
		struct siov_request open = {.op = SIOV_OPEN, .bytes = (uint32_t)strlen(name), .args = {(uint64_t)flags}};
		long id = request(open, name, &reply);
		return (int)answer(id < 0 ? id : new_handle((struct handle){(uint64_t)id, reply.args[1], (char)reply.args[0]}, flags, -1));
	}
	return (int)answer(SYS(openat, at, to, to == path ? flags : flags & ~(O_CREAT | O_EXCL | O_TRUNC), mode));
}
/* Variadic in their headers; what is not given is rubbish in a register, and then not used. */
int open3(const char *path, int flags, mode_t mode) { return opened(AT_FDCWD, path, flags, mode); }
int openat4(int at, const char *path, int flags, mode_t mode) { return opened(at, path, flags, mode); }
EXPORT int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
EXPORT int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
SAME(open, open3) SAME(openat, openat4) SAME(open64, open3) SAME(openat64, openat4) SAME(__open64_2, __open_2) SAME(__openat64_2, __openat_2) SAME(creat64, creat)

EXPORT FILE *fopen(const char *path, const char *mode)
{
	char name[PATH_MAX];
	const char *to = HERE(path);
	int flags = strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
	if (to == path || !served(to, flags, name))
		return REAL(fopen)(to, mode);
	int fd = opened(AT_FDCWD, path, flags | (strchr(mode, 'e') ? O_CLOEXEC : 0), 0);
	return fd < 0 ? NULL : fdopen(fd, mode);
}
SAME(fopen64, fopen)

/* Calls whose path alone is ours, in the first place or the second; whatever else they take and give fits a register. */
#define GENERIC(name) ({ static long (*found)(long, long, long, long, long); found ? found : (found = dlsym(RTLD_NEXT, #name)); })
#define FIRST(name)                                                                                                                            \
	long first_##name(const char *path, long b, long c, long d, long e) { return GENERIC(name)((long)HERE(path), b, c, d, e); } SAME(name, first_##name)
#define SECOND(name)                                                                                                                           \
	long second_##name(long at, const char *path, long c, long d, long e) { return GENERIC(name)(at, (long)AT(at, path), c, d, e); } SAME(name, second_##name)
FIRST(opendir) FIRST(scandir) FIRST(chdir) FIRST(access) FIRST(euidaccess) FIRST(readlink) FIRST(getxattr) FIRST(lgetxattr) FIRST(listxattr) FIRST(llistxattr)
FIRST(chmod) FIRST(chown) SECOND(faccessat) SECOND(readlinkat) SECOND(fchmodat) SECOND(fchownat) SAME(scandir64, first_scandir) SAME(eaccess, first_euidaccess)
EXPORT char *realpath(const char *path, char *out) { return shown(REAL(realpath)(HERE(path), out)); }
EXPORT char *__realpath_chk(const char *path, char *out, size_t room) { return (void)room, realpath(path, out); }
EXPORT char *canonicalize_file_name(const char *path) { return realpath(path, NULL); }
EXPORT char *getcwd(char *out, size_t room) { return shown(REAL(getcwd)(out, room)); }
EXPORT ssize_t __readlink_chk(const char *path, char *out, size_t n, size_t room) { return readlink(path, out, n < room ? n : room); }

/* A device's node in the overlay is a plain file whose size is its number; a handle is a socket, which says it in its name. */
static int status(int at, const char *path, struct stat *st, int flags)
{
	struct handle file = {.kind = 0};
	const char *to = AT(at, path);
	long result = SYS(newfstatat, at, to, st, flags);
	if (result == 0 && to != path && S_ISREG(st->st_mode) && below(to + root_length, "/dev", 4))
		file = (struct handle){.kind = 'c', .rdev = (unsigned long long)st->st_size};
	else if (result == 0 && path && !*path && S_ISSOCK(st->st_mode))
		is_handle(at, &file);
	if (file.kind) {
		st->st_mode = file.kind == 'f' ? 0600 : file.kind == 'c' ? S_IFCHR | (S_ISREG(st->st_mode) ? st->st_mode & 07777 : 0666) : S_IFREG | 0644;
		st->st_rdev = file.rdev;
		st->st_size = file.kind == 'a' ? 4096 : 0;
		st->st_blocks = 0;
	}
	return (int)answer(result);
}
EXPORT int stat(const char *path, struct stat *st) { return status(AT_FDCWD, path, st, 0); }
EXPORT int lstat(const char *path, struct stat *st) { return status(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW); }
EXPORT int fstat(int fd, struct stat *st) { return status(fd, "", st, AT_EMPTY_PATH); }
EXPORT int fstatat(int at, const char *path, struct stat *st, int flags) { return status(at, path, st, flags); }
/* Of programs that were built for glibc before 2.33. */
EXPORT int __xstat(int version, const char *path, struct stat *st) { return (void)version, stat(path, st); }
EXPORT int __lxstat(int version, const char *path, struct stat *st) { return (void)version, lstat(path, st); }
EXPORT int __fxstat(int version, int fd, struct stat *st) { return (void)version, fstat(fd, st); }
SAME(stat64, stat) SAME(lstat64, lstat) SAME(fstat64, fstat) SAME(fstatat64, fstatat) SAME(__xstat64, __xstat) SAME(__lxstat64, __lxstat) SAME(__fxstat64, __fxstat)
EXPORT int statx(int at, const char *path, int flags, unsigned mask, struct statx *out)
{
	struct stat st;
	const char *to = AT(at, path);
	long result = SYS(statx, at, to, flags, mask, out);
	if (result == 0 && (to != path || (!*path && is_handle(at, NULL))) && status(at, path, &st, flags & (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) == 0) {
		out->stx_mode = (uint16_t)st.st_mode;
		out->stx_size = (uint64_t)st.st_size;
		out->stx_rdev_major = major(st.st_rdev);
		out->stx_rdev_minor = minor(st.st_rdev);
	}
	return (int)answer(result);
}
