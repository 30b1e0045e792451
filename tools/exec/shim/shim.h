/*
 * The preload shim of siov exec. It carries system calls on files below the overlay, and what instructions do to mapped device pages, to a
 * server. It knows no ioctl, no register and no descriptor. One address space has one connection and one ring; a child of fork makes its own.
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "wire.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
/* On x86-64 these are one function, whatever types their headers give. */
#define SAME(name, as) __asm__(".globl " #name "\n.set " #name ", " #as);
/* The function of that name that a program would have got. */
#define REAL(name)                                                                                                                             \
	({                                                                                                                                     \
		static __typeof__(&name) found;                                                                                                \
		found ? found : (found = (__typeof__(&name))dlsym(RTLD_NEXT, #name));                                                          \
	})
/* A system call that nobody interposes and that leaves errno alone; what is not given is 0. */
#define SYS(...) SYS_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define SYS_(n, a, b, c, d, e, f, ...) sys6(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}
/* As libc gives it: -1 and errno. */
static inline long answer(long result) { return result >= 0 ? result : (errno = (int)-result, -1); }

/* What this address space has; zero again in a child of fork, which has another. */
struct space {
	int lock, connected, socket;
	long server; /* its process */
	struct siov_ring *ring;
};
/* A handle's name: which file of the server it is, of which kind, and its number as a device. */
struct handle {
	unsigned long long id, rdev;
	char kind;
};
extern struct space *space;
extern int ready;	/* the overlay is there */
extern int handles;	/* this process may have handles */
extern int last_socket; /* of the connection: a program does not close it, a child does */
extern char opaque[];	/* directories that are the overlay's alone, each with a 0 at its end */
extern char root[];	/* the overlay's folder */
extern size_t root_length;

/* A mask never has those that instructions raise: one that is blocked would kill. */
static inline sigset_t *without(sigset_t *set) { return sigdelset(set, SIGILL), sigdelset(set, SIGSEGV), sigdelset(set, SIGBUS), set; }
#define FREE(set) (!(set) || !ready ? (set) : without(memcpy(&(sigset_t){0}, set, sizeof(sigset_t))))
void start_traps(void);
long request(struct siov_request request, const void *payload, struct siov_reply *reply);
long simple(uint32_t op, uint64_t file, uint64_t a, uint64_t b, uint64_t c);
int is_handle(int fd, struct handle *out);
long new_handle(struct handle file, int flags, long number);
long pieces(uint64_t mapping, uint64_t from, uint64_t count);
int post(uint32_t kind, uintptr_t address, const void *data);
struct siov_region *region_of(uintptr_t address, size_t length);
