/* Another user's process: argv[1] the overlay's folder, argv[2] what must happen, "folder" (it does not get in) or "peer" (it is sent away). */
#include "queue.h"
#include "../../shim/wire.h"
#include <sys/un.h>

int main(int argc, char **argv)
{
	CHECK(argc == 3 && getuid() != 0);
	static const char *const names[] = {"socket", "files"};
	for (int i = 0; i < 2; i++) {
		struct sockaddr_un at = {.sun_family = AF_UNIX};
		snprintf(at.sun_path, sizeof at.sun_path, "%.80s/%s", argv[1], names[i]);
		int fd = socket(AF_UNIX, i ? SOCK_STREAM : SOCK_SEQPACKET, 0), got = connect(fd, (struct sockaddr *)&at, sizeof at);
		if (!strcmp(argv[2], "folder")) {
			CHECK(got == -1 && errno == EACCES);
			continue;
		}
		struct siov_request hello = {.op = SIOV_HELLO, .args = {SIOV_VERSION}};
		struct siov_reply reply;
		CHECK(got == 0);
		send(fd, &hello, sizeof hello, MSG_NOSIGNAL);
		CHECK(recv(fd, &reply, sizeof reply, 0) <= 0);
	}
	return 0;
}
