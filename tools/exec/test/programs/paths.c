/* Nothing outside of /dev and /sys is touched: the same files as the kernel itself gives, however they are written. argv[1]: a folder of ours. */
#include "queue.h"

static int same(const char *path)
{
	struct stat ours, real;
	int a = stat(path, &ours), error = errno;
	long b = syscall(SYS_newfstatat, AT_FDCWD, path, &real, 0);
	if (a != 0 || b != 0)
		return a == b && error == errno;
	return ours.st_dev == real.st_dev && ours.st_ino == real.st_ino && ours.st_mode == real.st_mode;
}

int main(int argc, char **argv)
{
	CHECK(argc == 2);
	static const char *const plain[] = {"/", "/etc/passwd", "/etc", "/proc/self/status", "/dev/null", "/dev/zero", "/dev/shm", "/dev/fd", "/dev", "/sys", "/sys/kernel",
					    "/sys/class", "/sys/bus", "/sys/bus/pci", "/devices", "/system", "/sys.conf", "/dev.conf", "/dsa", "//etc/passwd", "/./etc/passwd",
					    "/sys/../etc/passwd", "/dev/../etc/passwd", "/dev/../../etc/passwd", "/sys/bus/../../etc/passwd", "/dev/shm/../null",
					    "/sys/../../../../etc/passwd", "/sys/../../../../../../../../etc/passwd", "/dev/../shm", "/dev/../../shm", "/sys/../names",
					    "/sys/../socket", "/dev/../ring", "", "etc/passwd", "../etc/passwd", "/nonexistent", "/dev/nonexistent", "/sys/nonexistent"};
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
		if (!same(plain[i]))
			fprintf(stderr, "%s\n", plain[i]);
		CHECK(same(plain[i]));
	}
	struct stat st;
	/* Ours by other spellings. */
	CHECK(stat("/dev/../dev/dsa/wq0.0", &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(stat("//dev///dsa/./wq0.0", &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(stat("/sys/bus/dsa/../dsa/devices/dsa0/../wq0.0/size", &st) == 0 || errno == ENOENT);
	CHECK(stat("/sys/bus/dsa/devices/dsa0/wq0.0/../../dsa0/wq0.0/size", &st) == 0);
	/* Files of the same names elsewhere are made, written and removed where they are. */
	char path[4096], text[16] = "";
	CHECK(chdir(argv[1]) == 0 && mkdir("dev", 0700) == 0 && mkdir("dev/dsa", 0700) == 0);
	int fd = open("dev/dsa/wq0.0", O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0 && write(fd, "mine", 4) == 4 && close(fd) == 0);
	snprintf(path, sizeof path, "%s/dev/dsa/wq0.0", argv[1]);
	CHECK(same(path));
	FILE *file = fopen(path, "r+");
	CHECK(file && fgets(text, sizeof text, file) && !strcmp(text, "mine") && fclose(file) == 0);
	CHECK(stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 4);
	CHECK(unlink(path) == 0 && rmdir("dev/dsa") == 0 && rmdir("dev") == 0);
	/* Nothing can be made in sysfs, and nothing in it is lost. */
	CHECK(open("/sys/bus/dsa/devices/dsa0/new", O_RDWR | O_CREAT, 0600) == -1);
	CHECK(stat("/sys/bus/dsa/devices/dsa0/new", &st) == -1);
	fd = open("/sys/bus/dsa/devices/dsa0/version", O_RDONLY | O_TRUNC);
	CHECK(fd == -1 || close(fd) == 0);
	CHECK(stat("/sys/bus/dsa/devices/dsa0/version", &st) == 0 && st.st_size > 0);
	return 0;
}
