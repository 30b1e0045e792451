/* A portal is not inherited (VM_DONTCOPY), and an open file is its opener's alone; a child opens for itself. Linux drivers/dma/idxd/cdev.c. */
#include "queue.h"
#include <poll.h>

int main(void)
{
	int fd = open(SHARED, O_RDWR), how;
	CHECK(fd >= 0);
	void *portal = portal_of(fd);
	CHECK(portal != MAP_FAILED && copies(portal, 1) == 1);
	char *shared_text = strcpy(malloc(4096), "parent");

	CHILD(how) copies(portal, 1);
	CHECK(how == -SIGSEGV);
	CHILD(how) *(volatile char *)portal = 1;
	CHECK(how == -SIGSEGV);
	CHILD(how)
	{
		struct dsa_hw_desc nothing = {0};
		struct pollfd poller = {.fd = fd, .events = POLLIN};
		CHECK(portal_of(fd) == MAP_FAILED && errno == EPERM);
		CHECK(write(fd, &nothing, sizeof nothing) == -1 && errno == EPERM);
		(void)poller;
	}
	CHECK(how == 0);
	CHILD(how)
	{
		strcpy(shared_text, "child");
		void *own = portal_at(SHARED);
		CHECK(copies(own, 1) == 1);
		/* Its own child, once more. */
		int inner;
		CHILD(inner) CHECK(copies(portal_at(SHARED), 1) == 1);
		CHECK(inner == 0 && copies(own, 1) == 1);
	}
	CHECK(how == 0 && !strcmp(shared_text, "parent"));
	/* A child that only closes what it inherited takes nothing from the parent. */
	CHILD(how) CHECK(close(fd) == 0);
	CHECK(how == 0 && copies(portal, 1) == 1);
	void *again = portal_of(fd);
	CHECK(again != MAP_FAILED && copies(again, 1) == 1);

	/* A dedicated queue stays taken while anybody has the file. */
	int own = open(DEDICATED, O_RDWR);
	CHECK(own >= 0);
	int go[2];
	CHECK(pipe(go) == 0);
	pid_t holder = fork();
	if (holder == 0) {
		char byte;
		close(go[1]);
		(void)!read(go[0], &byte, 1);
		_exit(0);
	}
	CHECK(close(own) == 0);
	CHECK(open(DEDICATED, O_RDWR) == -1 && errno == EBUSY);
	close(go[1]);
	CHECK(ended(holder) == 0);
	own = open(DEDICATED, O_RDWR);
	CHECK(own >= 0);
	return 0;
}
