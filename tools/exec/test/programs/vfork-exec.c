/* vfork and exec, posix_spawn, system: the parent's memory is the child's until then, and nothing of the parent's is lost by it. */
#include "queue.h"
#include <spawn.h>

int main(int argc, char **argv)
{
	extern char **environ;
	if (argc > 1)
		return copies(portal_at(SHARED), 1) != 1;
	void *portal = portal_at(SHARED);
	for (int i = 0; i < 3; i++) {
		CHECK(copies(portal, 1) == 1);
		pid_t child = vfork();
		if (child == 0) {
			execl(argv[0], argv[0], "again", NULL);
			_exit(9);
		}
		CHECK(ended(child) == 0 && copies(portal, 1) == 1);
		child = vfork();
		if (child == 0) {
			execl("/nonexistent", "x", NULL);
			_exit(7);
		}
		CHECK(ended(child) == 7 && copies(portal, 1) == 1);
		CHECK(posix_spawn(&child, argv[0], NULL, NULL, (char *[]){argv[0], "again", NULL}, environ) == 0);
		CHECK(ended(child) == 0);
	}
	char line[4200];
	snprintf(line, sizeof line, "'%s' again && test -c " SHARED, argv[0]);
	CHECK(system(line) == 0);
	FILE *pipe = popen("cat /sys/bus/dsa/devices/wq0.0/state", "r");
	char text[32] = "";
	CHECK(pipe && fgets(text, sizeof text, pipe) && !strcmp(text, "enabled\n") && pclose(pipe) == 0);
	CHECK(copies(portal, 1) == 1);
	return 0;
}
