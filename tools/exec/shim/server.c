/* The way to the server: a connection for calls, handles for files, the ring for submissions. SPDX-License-Identifier: MIT */
#include "shim.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <x86intrin.h>

struct space *space;
int ready, handles, last_socket = -1;
char root[PATH_MAX], opaque[1024];
size_t root_length;
static const char *token = ""; /* what abstract names begin with: the folder's own name */

static void close_parents(void)
{
	SYS(close, last_socket);
	last_socket = -1;
}

/* SIOV_EXEC is the overlay's folder. */
__attribute__((constructor)) static void begin(void)
{
	const char *folder = getenv("SIOV_EXEC");
	if (ready || !folder || strlen(folder) > 80 || SYS(access, folder, R_OK) < 0)
		return;
	root_length = strlen(strcpy(root, folder));
	token = strrchr(root, '/') + 1;
	char list[PATH_MAX + 8];
	snprintf(list, sizeof list, "%s/opaque", root);
	long file = SYS(open, list, O_RDONLY | O_CLOEXEC);
	SYS(read, file, opaque, sizeof opaque - 2);
	SYS(close, file);
	long page = SYS(mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (page < 0)
		return;
	space = (struct space *)page;
	madvise(space, 4096, MADV_WIPEONFORK);
	pthread_atfork(NULL, NULL, close_parents);
	ready = handles = 1;
	start_traps();
	for (handles = 64; handles > 0 && !is_handle(handles - 1, NULL); handles--)
		; /* inherited ones */
}

/* What stdio still holds reaches the server before the process is gone. */
__attribute__((destructor)) static void end(void)
{
	if (ready && handles)
		fflush(NULL), simple(SIOV_SYNC, 0, 0, 0, 0);
}

static long exchange(struct siov_request *request, const void *payload, struct siov_reply *reply)
{
	struct iovec parts[2] = {{request, sizeof *request}, {(void *)payload, request->bytes}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = payload ? 2 : 1};
	int sent = SYS(sendmsg, space->socket, &message, MSG_NOSIGNAL) >= 0;
	return sent && SYS(recvfrom, space->socket, reply, sizeof *reply) == sizeof *reply ? reply->result : -EIO;
}

/* Connects to a socket in the overlay's folder; closes where that fails. */
static long reached(long fd, const char *name)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	snprintf(to.sun_path, sizeof to.sun_path, "%.80s/%s", root, name);
	long result = fd < 0 ? fd : SYS(connect, fd, &to, sizeof to);
	if (fd >= 0 && result < 0)
		SYS(close, fd);
	return result < 0 ? result : fd;
}

/* Maps a file of the server, over what is at an address if there is one. */
static long theirs(void *at, size_t length, int prot, long fd, uint64_t offset)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%ld/fd/%ld", space->server, fd);
	long file = SYS(openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	long result = file < 0 ? file : SYS(mmap, at, length, prot, MAP_SHARED | (at ? MAP_FIXED : 0), file, offset);
	SYS(close, file);
	return result < 0 ? result : (madvise((void *)result, length, MADV_DONTFORK), result);
}

static long attach(void)
{
	close_parents();
	/* Out of the way of programs that count their descriptors. */
	long low = reached(SYS(socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC), "socket"), high = SYS(fcntl, low, F_DUPFD_CLOEXEC, 900);
	long fd = high < 0 ? low : high;
	if (high >= 0)
		SYS(close, low);
	if (fd < 0)
		return fd;
	last_socket = space->socket = (int)fd;
	struct siov_request hello = {.op = SIOV_HELLO, .args = {SIOV_VERSION}};
	struct siov_reply reply;
	long server = exchange(&hello, NULL, &reply);
	if (server < 0)
		return server;
	prctl(PR_SET_PTRACER, server, 0, 0, 0);
	space->server = server;
	long ring = theirs(NULL, sizeof(struct siov_ring), PROT_READ | PROT_WRITE, (long)reply.args[0], 0);
	if (ring < 0)
		return ring;
	space->ring = (struct siov_ring *)ring;
	space->connected = 1;
	return 0;
}

/* One call to the server; a result or -errno. A server that is gone is EIO. No handler may come in between: it could call as well. */
long request(struct siov_request request, const void *payload, struct siov_reply *reply)
{
	uint64_t all = ~0ull, mask;
	SYS(rt_sigprocmask, SIG_SETMASK, &all, &mask, 8);
	while (__atomic_exchange_n(&space->lock, 1, __ATOMIC_ACQUIRE))
		SYS(sched_yield, 0);
	long result = space->connected ? 0 : attach();
	result = result ? result : exchange(&request, payload, reply);
	__atomic_store_n(&space->lock, 0, __ATOMIC_RELEASE);
	SYS(rt_sigprocmask, SIG_SETMASK, &mask, 0, 8);
	return result;
}
long simple(uint32_t op, uint64_t file, uint64_t a, uint64_t b, uint64_t c)
{
	struct siov_reply reply = {0};
	return request((struct siov_request){.op = op, .file = file, .args = {a, b, c}}, NULL, &reply);
}
/* Maps parts of a mapping that are more than pages which trap. */
long pieces(uint64_t mapping, uint64_t from, uint64_t count)
{
	for (; count > 0; count--, from++) {
		struct siov_reply r = {0};
		long fd = request((struct siov_request){.op = SIOV_PIECE, .args = {mapping, from}}, NULL, &r);
		long at = fd < 0 ? fd : theirs((void *)(uintptr_t)r.args[0], r.args[1], (int)r.args[2], fd, r.args[3]);
		if (at < 0)
			return at;
	}
	return 0;
}
static int server_gone(void) { return SYS(recvfrom, space->socket, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) == 0; }

/* ---- handles: stream sockets whose abstract name says which file of the server they are; so dup, fork, exec and SCM_RIGHTS just work */
int is_handle(int fd, struct handle *out)
{
	struct sockaddr_un name;
	struct handle found;
	int length = sizeof name, n = (int)strlen(token);
	if (!handles || SYS(getsockname, fd, &name, &length) < 0 || name.sun_family != AF_UNIX)
		return 0;
	length -= (int)offsetof(struct sockaddr_un, sun_path);
	if (length <= n + 1 || length > 100 || name.sun_path[0] || memcmp(name.sun_path + 1, token, (size_t)n))
		return 0;
	name.sun_path[length] = 0; /* getsockname(2) ends it by its length alone */
	return sscanf(name.sun_path + 1 + n, "/%llx/%c%llx", &found.id, &found.kind, &found.rdev) == 3 && (!out || (*out = found, 1));
}

/* Makes a handle, at a number if that is not negative: there or nowhere. */
long new_handle(struct handle file, int flags, long number)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int type = SOCK_STREAM | (flags & O_CLOEXEC ? SOCK_CLOEXEC : 0) | (flags & O_NONBLOCK ? SOCK_NONBLOCK : 0);
	int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "%s/%llx/%c%llx", token, file.id, file.kind, file.rdev);
	long fd = SYS(socket, AF_UNIX, type);
	if (fd >= 0)
		SYS(bind, fd, &name, offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	fd = reached(fd, "files");
	if (fd >= 0 && number >= 0) {
		long there = SYS(fcntl, fd, F_DUPFD_CLOEXEC, number);
		SYS(close, fd);
		SYS(close, there == number ? -1 : there);
		fd = there == number ? number : -EMFILE;
	}
	handles |= fd >= 0;
	if (fd < 0)
		simple(SIOV_SYNC, file.id, 0, 0, 0);
	return fd;
}

/* ---- the ring */
struct siov_region *region_of(uintptr_t address, size_t length)
{
	if (space && space->ring)
		for (struct siov_region *r = space->ring->regions; r < space->ring->regions + SIOV_REGIONS; r++)
			if (r->length && address < r->start + r->length && r->start < address + length)
				return r;
	return NULL;
}

static void wake(struct siov_ring *ring)
{
	struct siov_request request = {.op = SIOV_WAKE};
	if (__atomic_load_n(&ring->sleeping, __ATOMIC_SEQ_CST) && __atomic_exchange_n(&ring->sleeping, 0, __ATOMIC_SEQ_CST))
		SYS(sendto, space->socket, &request, sizeof request, MSG_NOSIGNAL);
}

/* The slot at the tail, once it is free, is ours; NULL: the server is gone. */
static struct siov_slot *taken(struct siov_ring *ring, uint32_t *at)
{
	for (;;) {
		*at = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
		struct siov_slot *slot = &ring->slots[*at % SIOV_SLOTS];
		int32_t ahead = (int32_t)(__atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE) - *at);
		if (ahead == 0 && __atomic_compare_exchange_n(&ring->tail, at, *at + 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return slot;
		if (ahead >= 0)
			continue;
		wake(ring);
		if (server_gone())
			return NULL;
		SYS(sched_yield, 0);
	}
}

/* Puts one submission into the ring; an answer. MOVDIR64B is posted and never waits, unless the ring is full. */
int post(uint32_t kind, uintptr_t address, const void *data)
{
	uint32_t at;
	struct siov_slot *slot = taken(space->ring, &at);
	if (!slot)
		return SIOV_BUS_ERROR;
	slot->kind = kind;
	slot->address = address;
	slot->status = SIOV_EMPTY;
	memcpy(slot->data, data, 64);
	__atomic_store_n(&slot->sequence, at + 1, __ATOMIC_SEQ_CST);
	wake(space->ring);
	if (kind == SIOV_MOVDIR64B)
		return SIOV_DONE;
	for (int spins = 0; __atomic_load_n(&slot->status, __ATOMIC_ACQUIRE) != SIOV_ANSWERED; spins++) {
		uint32_t empty = SIOV_EMPTY;
		struct timespec time = {0, 100000000};
		if (spins < 1000)
			_mm_pause();
		else if (__atomic_compare_exchange_n(&slot->status, &empty, SIOV_WAITS, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) || empty == SIOV_WAITS)
			if (SYS(futex, &slot->status, FUTEX_WAIT, SIOV_WAITS, &time) == -ETIMEDOUT && server_gone())
				return SIOV_BUS_ERROR;
	}
	int result = (int)slot->answer;
	__atomic_store_n(&slot->sequence, at + SIOV_SLOTS, __ATOMIC_RELEASE);
	return result;
}
