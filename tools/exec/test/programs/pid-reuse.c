/* A process dies with work under way, and the next one gets its number: nothing of the first is the second's. 77: the number cannot be chosen here. */
#include "queue.h"
#include <linux/sched.h>

#define LENGTH (1 << 20)

static pid_t started(pid_t number)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1};
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

int main(void)
{
	static struct dsa_completion_record records[16] __attribute__((aligned(64)));
	char *a = malloc(LENGTH), *b = malloc(LENGTH), *untouched = malloc(LENGTH);
	memset(a, 1, LENGTH);
	memset(b, 2, LENGTH);
	memset(untouched, 2, LENGTH);
	pid_t number = 0;
	for (int i = 0; i < 20; i++) {
		pid_t child = number ? started(number) : fork();
		if (child < 0 && number)
			return 77;
		if (child == 0) {
			/* The same addresses as in the one before; what that one left under way must not come here. */
			void *portal = portal_at(i % 2 ? SHARED : DEDICATED);
			CHECK(!memcmp(b, untouched, LENGTH));
			CHECK(copies(portal, i % 2) == 1);
			for (int n = 0; n < 12; n++) {
				struct dsa_hw_desc copy = memmove_of(b, a, LENGTH, &records[n]);
				submit(portal, i % 2, &copy);
			}
			kill(getpid(), SIGKILL);
		}
		number = child;
		CHECK(ended(child) == -SIGKILL);
	}
	CHECK(!memcmp(b, untouched, LENGTH));
	return 0;
}
