/* Programs block all signals; an instruction that the processor lacks is still carried out, wherever the mask was set. */
#include "queue.h"
#include <poll.h>
#include <spawn.h>

static void *portal;
static int found = -1;
static void on_signal(int number)
{
	(void)number;
	found = copies(portal, 1);
}
static void *thread(void *result)
{
	*(int *)result = copies(portal, 1);
	return NULL;
}

int main(int argc, char **argv)
{
	sigset_t all, none, before;
	sigfillset(&all);
	sigemptyset(&none);
	portal = portal_at(SHARED);
	if (argc > 1)
		return copies(portal, 1) != 1; /* spawned with everything blocked */

	CHECK(sigprocmask(SIG_SETMASK, &all, &before) == 0 && copies(portal, 1) == 1);
	CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
	CHECK(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0 && copies(portal, 1) == 1);
	int result = 0;
	pthread_t inherits;
	CHECK(pthread_create(&inherits, NULL, thread, &result) == 0 && pthread_join(inherits, NULL) == 0 && result == 1);
	pthread_attr_t attributes;
	CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setsigmask_np(&attributes, &all) == 0);
	result = 0;
	CHECK(pthread_create(&inherits, &attributes, thread, &result) == 0 && pthread_join(inherits, NULL) == 0 && result == 1);

	struct sigaction action = {.sa_handler = on_signal, .sa_mask = all};
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	sigset_t wait = all;
	sigdelset(&wait, SIGUSR1);
	CHECK(raise(SIGUSR1) == 0 && found == -1);
	CHECK(sigsuspend(&wait) == -1 && errno == EINTR && found == 1);
	found = -1;
	CHECK(raise(SIGUSR1) == 0 && found == -1);
	CHECK(ppoll(NULL, 0, NULL, &wait) == -1 && errno == EINTR && found == 1);
	found = -1;
	CHECK(raise(SIGUSR1) == 0 && pselect(0, NULL, NULL, NULL, NULL, &wait) == -1 && errno == EINTR && found == 1);
	CHECK(pthread_sigmask(SIG_SETMASK, &none, NULL) == 0);

	posix_spawnattr_t spawn;
	pid_t child;
	CHECK(posix_spawnattr_init(&spawn) == 0 && posix_spawnattr_setflags(&spawn, POSIX_SPAWN_SETSIGMASK) == 0);
	CHECK(posix_spawnattr_setsigmask(&spawn, &all) == 0);
	extern char **environ;
	CHECK(posix_spawn(&child, argv[0], NULL, &spawn, (char *[]){argv[0], "spawned", NULL}, environ) == 0);
	CHECK(ended(child) == 0);
	return 0;
}
