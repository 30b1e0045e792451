/* What no shim sends: packets and rings of random bytes, and handles of made-up names. argv: the overlay's folder, a seed, how often. Not preloaded. */
#include "queue.h"
#include "../../shim/wire.h"
#include <stddef.h>
#include <sys/un.h>

static uint32_t state;
static uint64_t any(void)
{
	state ^= state << 13, state ^= state >> 17, state ^= state << 5;
	uint64_t word = state;
	switch (state >> 8 & 7) {
	case 0:
		return word & 7;
	case 1:
		return ~0ull - (word & 0xff);
	case 2:
		return word << 32 | word;
	case 3:
		return 1ull << (word & 63);
	case 4:
		return (uintptr_t)&state & ~0xfffull;
	default:
		return word;
	}
}
static int to(const char *folder, const char *name, int type, const char *own)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX}, mine = {.sun_family = AF_UNIX};
	snprintf(at.sun_path, sizeof at.sun_path, "%.80s/%s", folder, name);
	int fd = socket(AF_UNIX, type, 0);
	if (own)
		bind(fd, (struct sockaddr *)&mine, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)snprintf(mine.sun_path + 1, 100, "%s", own)));
	struct timeval limit = {10, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
		return fd;
	close(fd);
	return -1;
}

int main(int argc, char **argv)
{
	CHECK(argc == 4);
	static char bytes[8192];
	state = (uint32_t)atol(argv[2]) | 1;
	for (int round = 0; round < atoi(argv[3]); round++) {
		int fd = to(argv[1], "socket", SOCK_SEQPACKET, NULL);
		CHECK(fd >= 0);
		struct siov_request hello = {.op = SIOV_HELLO, .args = {SIOV_VERSION}};
		struct siov_reply reply = {0};
		if (round % 4 == 0) {
			for (size_t i = 0; i < sizeof bytes; i++)
				bytes[i] = (char)any();
			send(fd, bytes, any() % sizeof bytes, MSG_NOSIGNAL);
			close(fd);
			continue;
		}
		CHECK(send(fd, &hello, sizeof hello, 0) == sizeof hello && recv(fd, &reply, sizeof reply, 0) == sizeof reply && reply.result > 0);
		/* A broken packet ends the connection without an answer. */
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 50000}, sizeof(struct timeval));
		snprintf(bytes, sizeof bytes, "/proc/%ld/fd/%ld", (long)reply.result, (long)reply.args[0]);
		int file = open(bytes, O_RDWR);
		CHECK(file >= 0);
		struct siov_ring *ring = mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		CHECK(ring != MAP_FAILED);
		/* The ring's bytes cannot be taken from the server. */
		CHECK(ftruncate(file, 0) == -1 && errno == EPERM);
		close(file);
		uint64_t files[4] = {0};
		for (int n = 0; n < 30; n++) {
			struct siov_request request = {.op = 2 + (uint32_t)any() % 11, .file = n % 3 ? files[n % 4] : any()};
			for (int i = 0; i < 5; i++)
				request.args[i] = any();
			if (request.op == SIOV_OPEN) {
				static const char *const paths[] = {SHARED, DEDICATED, "/sys/bus/dsa/devices/wq0.0/size", "/sys/bus/dsa/drivers/user/unbind", "/dev/iommu",
								    "/dev/../etc/passwd", "/etc/passwd", "", "/sys", "/dev/dsa"};
				const char *path = paths[any() % 10];
				struct {
					struct siov_request request;
					char path[64];
				} packet = {request, ""};
				packet.request.bytes = (uint32_t)any();
				strcpy(packet.path, path);
				send(fd, &packet, sizeof request + strlen(path), MSG_NOSIGNAL);
			} else
				send(fd, &request, any() % 8 ? sizeof request : any() % 100, MSG_NOSIGNAL);
			if (request.op != SIOV_WAKE && recv(fd, &reply, sizeof reply, 0) == sizeof reply && request.op == SIOV_OPEN && reply.result > 0) {
				char name[100];
				files[n % 4] = (uint64_t)reply.result;
				snprintf(name, sizeof name, "%s/%lx/c0", strrchr(argv[1], '/') + 1, n % 2 ? (unsigned long)reply.result : (unsigned long)any());
				to(argv[1], "files", SOCK_STREAM, name);
			}
			if (n % 5 == 0) {
				uint32_t at = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
				for (uint32_t i = 0; i < 20; i++) {
					struct siov_slot *slot = &ring->slots[(at + i) % SIOV_SLOTS];
					slot->kind = (uint32_t)any() % 4;
					slot->address = any();
					for (int k = 0; k < 64; k++)
						slot->data[k] = (uint8_t)any();
					slot->status = (uint32_t)any();
					__atomic_store_n(&slot->sequence, n % 10 ? at + i + 1 : (uint32_t)any(), __ATOMIC_SEQ_CST);
				}
				ring->tail = at + 20;
			}
		}
		munmap(ring, sizeof *ring);
		close(fd);
	}
	return 0;
}
