/* Handlers run on the alternate stack where there is one, and it may be as small as the kernel allows plus little. */
#include "queue.h"
#include <setjmp.h>
#include <sys/auxv.h>

static void *portal;
static sigjmp_buf back;
static char *stack_at;
static size_t stack_size;
static volatile int on_stack, inside, deep;

static void handler(int number)
{
	char here;
	(void)number;
	on_stack = &here >= stack_at && &here < stack_at + stack_size;
	inside = copies(portal, 1);
	siglongjmp(back, 1);
}
static int sink(int depth)
{
	volatile char room[4096];
	room[0] = (char)depth;
	deep = depth;
	return depth < 1 << 30 ? sink(depth + 1) + room[0] : 0;
}
static void *thread(void *unused)
{
	(void)unused;
	/* A submission on a thread with the smallest stack, its handler on an alternate one that holds one frame and a page. */
	size_t size = getauxval(AT_MINSIGSTKSZ) + 4096;
	stack_t stack = {.ss_sp = malloc(size), .ss_size = size};
	CHECK(sigaltstack(&stack, NULL) == 0);
	for (int i = 0; i < 100; i++)
		CHECK(copies(portal, 1) == 1);
	return NULL;
}

int main(void)
{
	portal = portal_at(SHARED);
	pthread_t other;
	CHECK(pthread_create(&other, NULL, thread, NULL) == 0 && pthread_join(other, NULL) == 0);
	stack_size = 4 * getauxval(AT_MINSIGSTKSZ) + 16384;
	stack_at = malloc(stack_size);
	stack_t stack = {.ss_sp = stack_at, .ss_size = stack_size};
	CHECK(sigaltstack(&stack, NULL) == 0);
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	CHECK(copies(portal, 1) == 1);
	/* The stack itself is what is missing. */
	if (!sigsetjmp(back, 1))
		sink(0);
	CHECK(deep > 100 && on_stack == 1 && inside == 1);
	CHECK(copies(portal, 1) == 1);
	return 0;
}
