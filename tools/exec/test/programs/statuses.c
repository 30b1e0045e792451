/* Copies on a queue, argv[1] of them one after the other (argv[2]: 0 dedicated, 1 shared; 2 and 3 the same by write(2)); prints each status, how often ENQCMD had to try again, and poll(2). */
#include "queue.h"
#include <poll.h>

int main(int argc, char **argv)
{
	CHECK(argc == 3);
	int kind = atoi(argv[2]), shared = kind & 1, fd = open(shared ? SHARED : DEDICATED, O_RDWR), retries = 0;
	CHECK(fd >= 0);
	void *portal = portal_of(fd);
	CHECK(portal != MAP_FAILED);
	for (int i = 0; i < atoi(argv[1]); i++) {
		static char from[256], to[256];
		static struct dsa_completion_record record __attribute__((aligned(64)));
		struct dsa_hw_desc copy = memmove_of(to, from, sizeof to, &record);
		memset(from, i + 1, sizeof from);
		if (kind & 2)
			for (int tries = 0; write(fd, &copy, sizeof copy) != sizeof copy && tries < 1000; tries++)
				retries++;
		else if (shared)
			for (int tries = 0; enqcmd(portal, &copy) && tries < 1000; tries++)
				retries++;
		else
			movdir64b(portal, &copy);
		int status = done(&record, 0);
		CHECK(status != DSA_COMP_SUCCESS || !memcmp(from, to, sizeof to));
		int write = (status & 0x80) != 0;
		CHECK((status & 0x7f) != DSA_COMP_PAGE_FAULT_NOBOF || (record.fault_addr == (uintptr_t)(write ? to : from) && record.bytes_completed == 0));
		printf("%02x ", status);
	}
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	printf("retries %d poll %d\n", retries, poll(&poller, 1, 200) == 1 && poller.revents & POLLIN ? 1 : 0);
	return 0;
}
