/* Descriptors that are handles, and mappings of them: each call goes to the server as it is. SPDX-License-Identifier: MIT */
#include "shim.h"
#include <sys/ioctl.h>

/* A descriptor goes: when the call returns, the file behind it has been closed if it was the last. */
#define CLOSING(fd, call)                                                                                                                      \
	({                                                                                                                                     \
		int ours = is_handle(fd, NULL), result = call;                                                                                 \
		ours && result >= 0 ? (simple(SIOV_SYNC, 0, 0, 0, 0), result) : result;                                                        \
	})
EXPORT int close(int fd) { return fd >= 0 && fd == last_socket ? (int)answer(-EBADF) : CLOSING(fd, REAL(close)(fd)); }
EXPORT int dup2(int from, int to) { return CLOSING(from == to ? -1 : to, REAL(dup2)(from, to)); }
EXPORT int dup3(int from, int to, int flags) { return CLOSING(to, REAL(dup3)(from, to, flags)); }
EXPORT int fclose(FILE *file) { return CLOSING(file ? fileno(file) : -1, REAL(fclose)(file)); }
EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return handles |= ready && message->msg_controllen > 0, REAL(recvmsg)(fd, message, flags);
}

/* A byte in a handle says that it is ready: it is read before the server is asked. */
#define SAID(fd) SYS(recvfrom, fd, &(char){0}, 1, MSG_DONTWAIT)
EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *time, const sigset_t *set)
{
	struct handle file;
	int all = REAL(ppoll)(fds, n, time, FREE(set)), found = all;
	for (nfds_t i = 0; all > 0 && i < n; i++)
		if (fds[i].revents & POLLIN && is_handle(fds[i].fd, &file)) {
			SAID(fds[i].fd);
			long now = simple(SIOV_POLL, file.id, 0, 0, 0);
			fds[i].revents = (short)((fds[i].revents & POLLOUT) | (now < 0 ? POLLERR : now & (fds[i].events | POLLERR | POLLHUP)));
			found -= !fds[i].revents;
		}
	return all > 0 && found == 0 ? ppoll(fds, n, time, set) : found;
}
EXPORT int poll(struct pollfd *fds, nfds_t n, int ms) { return ppoll(fds, n, ms < 0 ? NULL : &(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }
SAME(__poll_chk, poll) SAME(__ppoll_chk, ppoll)

#define POSITION (~0ull)
/* What would wait does so here, where signals reach it and other threads' calls go on. */
static long transfer(uint32_t op, int fd, uint64_t file, const void *buffer, size_t n, uint64_t offset)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	for (;;) {
		long result = (SAID(fd), simple(op, file, (uint64_t)(uintptr_t)buffer, n, offset));
		if (result != -SIOV_WAIT || SYS(poll, &poller, 1, -1) < 0)
			return result == -SIOV_WAIT ? -EINTR : result;
	}
}
#define TRANSFER(op, offset, call) ({ struct handle file; is_handle(fd, &file) ? answer(transfer(op, fd, file.id, buffer, n, (uint64_t)(offset))) : call; })
EXPORT ssize_t read(int fd, void *buffer, size_t n) { return TRANSFER(SIOV_READ, POSITION, REAL(read)(fd, buffer, n)); }
EXPORT ssize_t write(int fd, const void *buffer, size_t n) { return TRANSFER(SIOV_WRITE, POSITION, REAL(write)(fd, buffer, n)); }
EXPORT ssize_t pread(int fd, void *buffer, size_t n, off_t offset) { return TRANSFER(SIOV_READ, offset, REAL(pread)(fd, buffer, n, offset)); }
EXPORT ssize_t pwrite(int fd, const void *buffer, size_t n, off_t offset) { return TRANSFER(SIOV_WRITE, offset, REAL(pwrite)(fd, buffer, n, offset)); }
SAME(pread64, pread) SAME(pwrite64, pwrite) SAME(ioctl, ioctl3) SAME(__read_chk, read) SAME(__pread_chk, pread) SAME(__pread64_chk, pread)
int ioctl3(int fd, unsigned long number, uint64_t argument)
{
	struct handle file;
	struct siov_reply reply = {0};
	if (!is_handle(fd, &file))
		return REAL(ioctl)(fd, number, argument);
	long result = request((struct siov_request){.op = SIOV_IOCTL, .file = file.id, .args = {number, argument}}, NULL, &reply);
	/* Files that ioctls give are closed at exec, as the kernel's. */
	long made = result < 0 || !reply.args[0] ? 0 : new_handle((struct handle){.id = reply.args[0], .kind = 'f'}, O_CLOEXEC, (long)reply.args[1]);
	return (int)answer(made < 0 ? made : result);
}

/* A device's pages cannot be reached, every access traps; but for the pieces that the server has. */
EXPORT void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct handle file;
	struct siov_reply reply = {0};
	int ours = fd >= 0 && !(flags & MAP_ANONYMOUS) && is_handle(fd, &file);
	if (flags & MAP_FIXED && region_of((uintptr_t)address, length))
		simple(SIOV_MUNMAP, 0, (uint64_t)(uintptr_t)address, length, 0);
	int trap = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE));
	long at = SYS(mmap, address, length, ours ? PROT_NONE : prot, ours ? trap : flags, ours ? -1 : fd, ours ? 0 : offset);
	if (!ours || at < 0)
		return (void *)answer(at);
	struct siov_request map = {.op = SIOV_MMAP, .file = file.id, .args = {(uint64_t)at, length, (uint64_t)prot, (uint64_t)flags, (uint64_t)offset}};
	long result = request(map, NULL, &reply);
	if (result >= 0 && (result = pieces((uint64_t)at, 0, reply.args[1])) < 0)
		simple(SIOV_MUNMAP, 0, (uint64_t)at, length, 0);
	if (result >= 0 && reply.args[0])
		madvise((void *)at, length, MADV_DONTFORK);
	if (result < 0)
		SYS(munmap, at, length);
	return (void *)(result < 0 ? answer(result) : at);
}
SAME(mmap64, mmap)
/* The server would not hear of it, and pages that trap would become plain memory. */
EXPORT int mprotect(void *at, size_t n, int prot) { return region_of((uintptr_t)at, n) ? (int)answer(-EACCES) : REAL(mprotect)(at, n, prot); }
EXPORT int munmap(void *address, size_t length)
{
	long result = region_of((uintptr_t)address, length) ? simple(SIOV_MUNMAP, 0, (uint64_t)(uintptr_t)address, length, 0) : 0;
	return (int)answer(result < 0 && result != -EIO ? result : SYS(munmap, address, length));
}
